"""Call the RPCs of GRPCInferenceService on a channel by their names and messages."""

from typing import Any

from protos import inference_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class InferenceStub:
    """A callable for each RPC: `InferenceStub(channel).ModelReady(request, timeout=5)`.

    It is made from the service's descriptor: generated stubs say the same in 900 lines, and refuse
    every grpcio older than the one that generated them.
    """

    def __init__(self, channel: Any) -> None:
        for method in _SERVICE.methods:
            make = channel.stream_stream if method.client_streaming else channel.unary_unary
            call = make(
                f"/{_SERVICE.full_name}/{method.name}",
                request_serializer=getattr(pb, method.input_type.name).SerializeToString,
                response_deserializer=getattr(pb, method.output_type.name).FromString,
            )
            setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        """Tell type checkers that RPCs are attributes; AttributeError for other names."""
        raise AttributeError(f"{_SERVICE.full_name} has no RPC {name!r}")
