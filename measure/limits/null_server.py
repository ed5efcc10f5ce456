"""Answer every request of the protocol at once, and compute nothing.

It isolates the cost of the client, gRPC and the wire.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from command_line.parser import positionals
from protos import inference_pb2 as pb
from protos import malloc
from protos import model_config_pb2 as config_pb
from protos.codec import InferResponse, encode_response, encode_stream_response
from protos.datatypes import datatype_of
from protos.quantize import DEFAULT_SCALE
from protos.request_decoding import decode_request
from protos.tensors import Tensor

_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_WORKERS = 4


def main() -> None:
    """Serve a model that takes rows of so many features, until the process ends."""
    names = ("address", "features", "dtype")
    address, columns, dtype = positionals("measure.limits.null_server", __doc__, *names)
    malloc.keep_in_process()
    features = int(columns)
    server = grpc.server(ThreadPoolExecutor(_WORKERS), options=_OPTIONS)
    handlers = {
        "ModelMetadata": _answering(pb.ModelMetadataRequest, lambda _: _metadata(features, dtype)),
        "ModelConfig": _answering(pb.ModelConfigRequest, lambda _: _config()),
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            lambda data, _: encode_response(_zeros(data))
        ),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port(address)
    server.start()
    print(f"listening on {address.rpartition(':')[0]}:{port}", flush=True)
    server.wait_for_termination()


def _answering(request: Any, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        lambda message, _: answer(message),
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _stream(messages: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    for data in messages:
        yield encode_stream_response(_zeros(data))


def _zeros(data: bytes) -> InferResponse:
    request = decode_request(data)
    labels = np.zeros(request.inputs[0].shape[0], np.int64)
    return InferResponse(request.model_name, (Tensor.of("label", labels),), id=request.id)


def _metadata(features: int, dtype: str) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        inputs=[tensor(name="x", datatype=datatype_of(np.dtype(dtype)), shape=[-1, features])],
        outputs=[tensor(name="label", datatype="INT64", shape=[-1])],
    )


def _config() -> pb.ModelConfigResponse:
    described = config_pb.ModelConfig()
    described.parameters["wire_scale"].string_value = repr(DEFAULT_SCALE)
    return pb.ModelConfigResponse(config=described)


if __name__ == "__main__":
    main()
