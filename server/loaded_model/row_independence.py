"""Decide whether rows of several requests may share an execution."""

from pathlib import Path

from protos.model_config_pb2 import ModelConfig, ModelInput, ModelOutput
from rowwise import axis_names
from server.errors import LoadError
from server.loaded_model import config_settings
from server.loaded_model.row_probe import Finding, probe
from server.onnx.engine import Engine

# Reasons that the configuration or the graph gives itself.
_WRITTEN = "max_batch_size is 0"
_NO_AXIS = "an input or output has no first axis of any size"
_COUNTED = "dims of the configuration count the first axis"


def found_in_doubt(reason: str) -> bool:
    """Whether rows may share executions except for a finding in the graph."""
    return reason not in ("", _WRITTEN, _NO_AXIS, _COUNTED)


def doubt(
    engine: Engine, path: Path, config: ModelConfig, most_rows: int, group_rows: int | None
) -> str:
    """Why each request gets its own executions; "" if requests may share them.

    `most_rows`: the largest batch where the configuration sets none. `group_rows`: most rows that
    are gathered for an execution, None: to be measured. LoadError when the configuration asks for
    batches, and rows were seen to change each other's outputs.
    """
    reason = _said(engine, config)
    if reason and config.HasField("dynamic_batching"):
        raise LoadError("got dynamic_batching for a model without a batch axis, max_batch_size 0")
    if reason or config_settings.rows_may_mix(config):
        return reason
    if config.HasField("max_batch_size"):
        _check(probe(engine, config.max_batch_size, group_rows), config.max_batch_size)
        return ""
    reason = _unproved(engine, path)
    if reason:
        return reason
    finding = probe(engine, most_rows, group_rows)
    return finding.change or finding.unclear


def _said(engine: Engine, config: ModelConfig) -> str:
    """Why rows share no executions, by the configuration and the graph's axes alone."""
    if config.HasField("max_batch_size") and not config.max_batch_size:
        return _WRITTEN
    if not engine.batches:
        if config.max_batch_size:
            raise LoadError(
                f"max_batch_size is {config.max_batch_size}; the graph has tensors without a free "
                "batch axis, expected 0"
            )
        return _NO_AXIS
    return _COUNTED if not config.max_batch_size and _counts_batch_axis(config, engine) else ""


def _check(finding: Finding, max_batch_size: int) -> None:
    if finding.change:
        raise LoadError(
            f"max_batch_size is {max_batch_size}, but rows are not independent: {finding.change}; "
            f'expected max_batch_size: 0, or parameters {{ key: "{config_settings.ROWS_MAY_MIX}" '
            'value { string_value: "true" } } if that is intended'
        )


def _counts_batch_axis(config: ModelConfig, engine: Engine) -> bool:
    """Sizes that count the batch axis say that it is an axis like any other."""
    ranks = {spec.name: len(spec.shape) for spec in (*engine.inputs, *engine.outputs)}
    listed: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    return any(each.dims and len(each.dims) == ranks.get(each.name) for each in listed)


def _unproved(engine: Engine, path: Path) -> str:
    """The operators of the graph that may mix rows."""
    names = axis_names.doubt(
        {spec.name: spec.axes for spec in engine.inputs},
        {spec.name: spec.axes for spec in engine.outputs},
    )
    if names:
        return names
    # Importing ONNX is slow, and most graphs do not need it.
    from rowwise import proof, structure  # noqa: PLC0415

    return proof.doubt(structure.read(path)) or ""
