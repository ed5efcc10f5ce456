"""Clients that know nothing of this service: health probes, and clients that use reflection."""

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from onnx import helper

TIMEOUT_S = 20
Health = health_pb2.HealthCheckResponse


@pytest.fixture(scope="module")
def models(graphs):
    row = ("float64", ["batch", 2])
    add = helper.make_node("Add", ["a", "b"], ["total"])
    graphs.add("sum", [add], {"a": row, "b": row}, {"total": row})
    return graphs.folder


@pytest.fixture(scope="module")
def channel(serve, models):
    with grpc.insecure_channel(serve(models).address) as connected:
        yield connected


@pytest.fixture
def reflected(channel):
    """Services by name, and the types of their messages, from reflection alone."""
    database = ProtoReflectionDescriptorDatabase(channel)
    # A pool of its own: nothing that this process has imported is in it.
    return database.get_services(), DescriptorPool(database)


def call(channel, method, **fields):
    """Call a unary RPC by its descriptor; the answer."""
    request = GetMessageClass(method.input_type)(**fields)
    return channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )(request, timeout=TIMEOUT_S)


def test_reflection_describes_every_service_that_it_names(reflected):
    services, pool = reflected
    methods = {name: pool.FindServiceByName(name).methods_by_name for name in services}
    assert set(methods) == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert {"ModelInfer", "ModelConfig"} <= set(methods["inference.GRPCInferenceService"])
    assert {"Check", "Watch"} <= set(methods["grpc.health.v1.Health"])


def test_a_client_without_stubs_reads_a_configuration_and_checks_health(channel, reflected):
    _, pool = reflected
    inference = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name
    config = call(channel, inference["ModelConfig"], name="sum").config
    assert [tensor.name for tensor in config.input] == ["a", "b"]
    health = pool.FindServiceByName("grpc.health.v1.Health").methods_by_name
    assert call(channel, health["Check"]).status == Health.SERVING


def test_a_client_without_stubs_infers(channel, reflected):
    services, pool = reflected
    (name,) = [name for name in services if name.endswith("InferenceService")]
    methods = pool.FindServiceByName(name).methods_by_name
    assert call(channel, methods["ServerReady"]).ready
    metadata = call(channel, methods["ModelMetadata"], name="sum")
    rows = np.arange(4.0).reshape(2, 2)
    answer = call(
        channel,
        methods["ModelInfer"],
        model_name="sum",
        inputs=[
            {"name": tensor.name, "datatype": tensor.datatype, "shape": [2, 2]}
            for tensor in metadata.inputs
        ],
        raw_input_contents=[rows.tobytes()] * len(metadata.inputs),
    )
    (total,) = answer.raw_output_contents
    np.testing.assert_array_equal(np.frombuffer(total), 2 * rows.reshape(-1))


def test_a_client_without_stubs_streams(channel, reflected):
    _, pool = reflected
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    method = service.methods_by_name["ModelStreamInfer"]
    assert method.client_streaming
    assert method.server_streaming
    request = GetMessageClass(method.input_type)(model_name="nobody", id="7")
    answers = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )(iter([request]), timeout=TIMEOUT_S)
    (answer,) = answers
    assert "'nobody'" in answer.error_message
    assert answer.infer_response.id == "7"


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
def test_a_probe_sees_that_it_serves(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(asked, timeout=TIMEOUT_S).status == Health.SERVING
    watch = stub.Watch(asked, timeout=TIMEOUT_S)
    assert next(watch).status == Health.SERVING
    watch.cancel()


def test_a_probe_learns_of_an_unknown_service(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service="nobody")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(asked, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(asked, timeout=TIMEOUT_S)
    assert next(watch).status == Health.SERVICE_UNKNOWN
    watch.cancel()


def test_a_watch_sees_a_server_stop(launch, models):
    process = launch(models)
    with grpc.insecure_channel(process.address) as connected:
        watch = health_pb2_grpc.HealthStub(connected).Watch(
            health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S
        )
        assert next(watch).status == Health.SERVING
        assert process.stop() == 0
        assert next(watch).status == Health.NOT_SERVING
