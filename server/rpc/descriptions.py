"""Describe models in the protocol's messages: metadata, configuration, statistics."""

from collections.abc import Mapping, Sequence

from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb
from protos.datatypes import datatype_of
from server.batching.statistics import Duration, Histogram
from server.loaded_model.config_completion import data_type
from server.loaded_model.model import Model
from server.onnx.engine import TensorSpec

# Before the name of an output: the parameter that holds its labels.
_LABELS_OF = "labels:"
# gRPC's clients take answers of up to 4 MiB.
_MOST_LABEL_BYTES = 2**20


def metadata(model: Model, versions: Sequence[str]) -> pb.ModelMetadataResponse:
    """Names, datatypes and shapes, the batch axis included, with all versions that serve."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=versions,
        platform=model.config.platform,
        inputs=[_tensor_metadata(spec) for spec in (*model.inputs, *model.optional_inputs)],
        outputs=[_tensor_metadata(spec) for spec in model.outputs],
    )


def config(model: Model, server_parameters: Mapping[str, str]) -> config_pb.ModelConfig:
    """How the model is served, as Triton's clients read it.

    Parameters are the server's own, then the labels of outputs, how the model is executed, then
    the configuration's, then the graph's metadata.
    """
    described = config_pb.ModelConfig()
    described.CopyFrom(model.config)
    for spec in model.optional_inputs:
        described.input.add(
            name=spec.name,
            data_type=data_type(spec),
            dims=_shape(spec),
            optional=True,
        )
    if model.max_batch_rows:
        batching = described.dynamic_batching
        batching.preferred_batch_size[:] = [model.batching.group_rows]
        batching.max_queue_delay_microseconds = model.batching.queue_delay_ns // 1000
        batching.preserve_ordering = True
    configured = {name: value.string_value for name, value in model.config.parameters.items()}
    own = {**model.execution, **_labels(model), **server_parameters}
    for name, value in {**model.engine.metadata, **configured, **own}.items():
        described.parameters[name].string_value = value
    return described


def statistics(model: Model) -> pb.ModelStatistics:
    """What the model did since it was loaded.

    The protocol has no fields for the time to receive and to send, nor for the reasons why batches
    closed: they are response_stats.
    """
    with model.statistics.lock:
        counts = model.statistics.counts
        answered = counts.succeeded
        described = pb.ModelStatistics(
            name=model.name,
            version=model.version,
            last_inference=counts.last_inference_ms,
            inference_count=counts.inference_rows,
            execution_count=counts.executions,
            inference_stats=pb.InferStatistics(
                success=pb.StatisticDuration(count=answered, ns=counts.total_ns),
                fail=_duration(counts.fail),
                queue=pb.StatisticDuration(count=answered, ns=counts.queue.ns),
                compute_input=pb.StatisticDuration(count=answered, ns=counts.compute_input.ns),
                compute_infer=pb.StatisticDuration(count=answered, ns=counts.compute_infer.ns),
                compute_output=pb.StatisticDuration(count=answered, ns=counts.compute_output.ns),
            ),
        )
        for rows, batch in sorted(counts.batches.items()):
            described.batch_stats.add(
                batch_size=rows,
                compute_input=_duration(batch.compute_input),
                compute_infer=_duration(batch.compute_infer),
            )
        for reason, count in counts.closed.items():
            described.response_stats[f"batch_closed_{reason}"].success.count = count
        for name, duration in (("receive", counts.receive), ("send", counts.send)):
            if duration.count:
                described.response_stats[name].success.CopyFrom(_duration(duration))
    return described


def _labels(model: Model) -> dict[str, str]:
    """The labels of each output that has a label file, as JSON, as long as there is room."""
    shown = {}
    left = _MOST_LABEL_BYTES
    for name, labels in model.labels.items():
        text = labels.as_json(left)
        if text is not None:
            left -= len(text)
            shown[f"{_LABELS_OF}{name}"] = text
    return shown


def _duration(duration: Duration | Histogram) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name,
        datatype=datatype_of(spec.dtype),
        shape=_shape(spec),
    )


def _shape(spec: TensorSpec) -> list[int]:
    return [-1 if size is None else size for size in spec.shape]
