"""Describe models in the protocol's messages: metadata, configuration, statistics."""

from collections.abc import Mapping

from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb
from protos.datatypes import BYTES, datatype_of
from server.engine import TensorSpec
from server.model import Model
from server.statistics import Duration

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"


def metadata(model: Model) -> pb.ModelMetadataResponse:
    """Names, datatypes and shapes, the batch axis included."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=[_tensor_metadata(spec) for spec in (*model.engine.inputs, *model.optional_inputs)],
        outputs=[_tensor_metadata(spec) for spec in model.engine.outputs],
    )


def config(model: Model, server_parameters: Mapping[str, str]) -> config_pb.ModelConfig:
    """How the model is served, as Triton's clients read it.

    Parameters are the server's own, then what the graph's metadata says.
    """
    batches = model.max_batch_rows > 0
    described = config_pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=model.max_batch_rows,
        version_policy=config_pb.ModelVersionPolicy(
            latest=config_pb.ModelVersionPolicy.Latest(num_versions=1)
        ),
        instance_group=[
            config_pb.ModelInstanceGroup(
                name=model.name, count=1, kind=config_pb.ModelInstanceGroup.KIND_CPU
            )
        ],
        default_model_filename="model.onnx",
    )
    for spec in model.engine.inputs:
        described.input.add(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batches))
    for spec in model.optional_inputs:
        data_type, dims = _data_type(spec), _dims(spec, batches)
        described.input.add(name=spec.name, data_type=data_type, dims=dims, optional=True)
    for spec in model.engine.outputs:
        described.output.add(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batches))
    if batches:
        limits = model.limits.batching
        described.dynamic_batching.preferred_batch_size.append(limits.group_rows)
        described.dynamic_batching.max_queue_delay_microseconds = limits.queue_delay_ns // 1000
        described.dynamic_batching.preserve_ordering = True
    for name, value in {**model.engine.metadata, **server_parameters}.items():
        described.parameters[name].string_value = value
    return described


def statistics(model: Model) -> pb.ModelStatistics:
    """What the model did since it was loaded; reasons why batches closed are response_stats."""
    with model.statistics.lock:
        counts = model.statistics.counts
        described = pb.ModelStatistics(
            name=model.name,
            version=model.version,
            last_inference=counts.last_inference_ms,
            inference_count=counts.inference_rows,
            execution_count=counts.executions,
            inference_stats=pb.InferStatistics(
                success=_duration(counts.success),
                fail=_duration(counts.fail),
                queue=_duration(counts.queue),
                compute_input=_duration(counts.compute_input),
                compute_infer=_duration(counts.compute_infer),
                compute_output=_duration(counts.compute_output),
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
    return described


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=datatype_of(spec.dtype), shape=_dims(spec, skip_batch=False)
    )


def _dims(spec: TensorSpec, skip_batch: bool) -> list[int]:
    return [-1 if size is None else size for size in spec.shape[1 if skip_batch else 0 :]]


def _data_type(spec: TensorSpec) -> int:
    datatype = datatype_of(spec.dtype)
    name = "STRING" if datatype == BYTES else datatype
    return config_pb.DataType.Value(f"TYPE_{name}")
