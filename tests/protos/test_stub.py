import pytest

from protos import inference_pb2 as pb
from protos.stub import InferenceStub

METHODS = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods


class Paths:
    """A channel that notes what is asked of it."""

    def unary_unary(self, path, **_):
        return path

    def stream_stream(self, path, **_):
        return f"{path} as a stream"


def test_every_rpc_has_its_path_and_only_the_stream_is_one():
    stub = InferenceStub(Paths())
    service = "/inference.GRPCInferenceService/"
    expected = {method.name: service + method.name for method in METHODS}
    expected["ModelStreamInfer"] += " as a stream"
    assert {method.name: getattr(stub, method.name) for method in METHODS} == expected


def test_a_name_that_is_no_rpc_is_named():
    with pytest.raises(AttributeError, match="has no RPC 'ModelInferr'"):
        _ = InferenceStub(Paths()).ModelInferr
