"""grpc.testing.TestService, as gRPC's interoperability tests ask for it.

https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md
"""

# ruff: noqa: N802  (methods carry the names of their RPCs)

import sys
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from transport.serving.grpc_handlers import GrpcHandlers
from transport.serving.server import Server
from transport.workers import Workers

PACKAGE = "grpc.testing"
_TYPES = {"int32": 5, "bytes": 12, "string": 9, "bool": 8}
# Message: its fields as (name, number, type); a star means repeated.
_MESSAGES = {
    "Empty": (),
    "BoolValue": (("value", 1, "bool"),),
    "Payload": (("type", 1, "int32"), ("body", 2, "bytes")),
    "EchoStatus": (("code", 1, "int32"), ("message", 2, "string")),
    "SimpleRequest": (
        ("response_type", 1, "int32"),
        ("response_size", 2, "int32"),
        ("payload", 3, "Payload"),
        ("response_compressed", 6, "BoolValue"),
        ("response_status", 7, "EchoStatus"),
        ("expect_compressed", 8, "BoolValue"),
    ),
    "SimpleResponse": (("payload", 1, "Payload"),),
    "StreamingInputCallRequest": (("payload", 1, "Payload"), ("expect_compressed", 2, "BoolValue")),
    "StreamingInputCallResponse": (("aggregated_payload_size", 1, "int32"),),
    "ResponseParameters": (
        ("size", 1, "int32"),
        ("interval_us", 2, "int32"),
        ("compressed", 3, "BoolValue"),
    ),
    "StreamingOutputCallRequest": (
        ("response_type", 1, "int32"),
        ("response_parameters", 2, "*ResponseParameters"),
        ("payload", 3, "Payload"),
        ("response_status", 7, "EchoStatus"),
    ),
    "StreamingOutputCallResponse": (("payload", 1, "Payload"),),
}
_METADATA = ("x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin")


def _messages():
    file = descriptor_pb2.FileDescriptorProto(
        name="transport_interop.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = 3 if kind.startswith("*") else 1
            kind = kind.removeprefix("*")  # noqa: PLW2901
            if kind in _TYPES:
                field.type = _TYPES[kind]
            else:
                field.type, field.type_name = 11, f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _messages()


def payload(size):
    """A payload of zeros."""
    return MESSAGES["Payload"](body=bytes(size))


def _echo_metadata(context):
    initial, trailing = _METADATA
    for key, value in context.invocation_metadata():
        if key == initial:
            context.send_initial_metadata(((key, value),))
        if key == trailing:
            context.set_trailing_metadata(((key, value),))


def _check_status(request, context):
    if request.HasField("response_status") and request.response_status.code:
        context.set_trailing_metadata(())
        code = next(
            each for each in grpc.StatusCode if each.value[0] == request.response_status.code
        )
        context.abort(code, request.response_status.message)


class TestService:
    """The methods; UnimplementedCall is missing on purpose."""

    __test__ = False

    def EmptyCall(self, request, context):
        return MESSAGES["Empty"]()

    def UnaryCall(self, request, context):
        _echo_metadata(context)
        _check_status(request, context)
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        return MESSAGES["SimpleResponse"](payload=payload(request.response_size))

    def StreamingInputCall(self, requests, context):
        size = sum(len(request.payload.body) for request in requests)
        return MESSAGES["StreamingInputCallResponse"](aggregated_payload_size=size)

    def StreamingOutputCall(self, request, context):
        if any(each.compressed.value for each in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        for parameters in request.response_parameters:
            if not parameters.compressed.value:
                context.disable_next_message_compression()
            time.sleep(parameters.interval_us / 1e6)
            yield MESSAGES["StreamingOutputCallResponse"](payload=payload(parameters.size))

    def FullDuplexCall(self, requests, context):
        _echo_metadata(context)
        for request in requests:
            _check_status(request, context)
            yield from self.StreamingOutputCall(request, context)


# Method: kinds of request and response; a star means a stream.
METHODS = {
    "EmptyCall": ("Empty", "Empty"),
    "UnaryCall": ("SimpleRequest", "SimpleResponse"),
    "StreamingInputCall": ("*StreamingInputCallRequest", "StreamingInputCallResponse"),
    "StreamingOutputCall": ("StreamingOutputCallRequest", "*StreamingOutputCallResponse"),
    "FullDuplexCall": ("*StreamingOutputCallRequest", "*StreamingOutputCallResponse"),
}
_KINDS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def handlers():
    """Grpcio's handler of the service."""
    service = TestService()
    table = {}
    for name, (request, response) in METHODS.items():
        kind = _KINDS[request.startswith("*"), response.startswith("*")]
        table[name] = kind(
            getattr(service, name),
            MESSAGES[request.lstrip("*")].FromString,
            MESSAGES[response.lstrip("*")].SerializeToString,
        )
    return grpc.method_handlers_generic_handler(f"{PACKAGE}.TestService", table)


def main():
    """Serve until standard input ends; print the port."""
    server = Server(["127.0.0.1:0"], GrpcHandlers((handlers(),), Workers(16, 16, "interop")))
    print(server.addresses[0].rpartition(":")[2], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
