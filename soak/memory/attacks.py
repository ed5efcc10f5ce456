"""Rounds of attacks on a server's memory; each ends by itself after a few seconds."""

import contextlib
import gzip
import itertools
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import h2.settings
import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from measure.overload.http2_peer import Http2Peer, framed
from protos import inference_pb2 as pb
from protos.codec import InferRequest, encode_request
from protos.stub import InferenceStub
from protos.tensors import Tensor
from protos.wire import encode_varint, length_prefix
from server.batching.shared_memory import FOLDER
from soak.fuzz.frames_fuzz import frame

MIB = 2**20
# One row of 4 bytes is answered with so many.
WIDE, ANSWER_BYTES = "wide", 64 * 1024
# Takes a whole tensor of any size, which no other request can share.
WHOLE = "whole"
_SERVICE = "/inference.GRPCInferenceService/"
_INFER, _STREAM = f"{_SERVICE}ModelInfer", f"{_SERVICE}ModelStreamInfer"
_OTHERS = ("/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check", f"{_SERVICE}ServerLive")
_DATA = 0
_END_STREAM = 0x1
_CALLS = 300
# How long a client does nothing before it leaves.
_STANDS_STILL_S = 2.0
_PATIENCE_S = 60.0
_numbers = itertools.count()

# Raises OSError where the server ends its connection, which is no fault.
Attack = Callable[[str], None]


def put_models(folder: Path) -> None:
    """Write the models that the attacks name."""
    width = ANSWER_BYTES // 4
    ones = numpy_helper.from_array(np.ones((1, width), np.float32), "ones")
    _put(folder, WIDE, helper.make_node("Mul", ["x", "ones"], ["y"]), ["batch", 1], width, ones)
    _put(folder, WHOLE, helper.make_node("ReduceMax", ["x"], ["y"], keepdims=1), ["any"], None)


def _put(
    folder: Path,
    name: str,
    node: NodeProto,
    shape: Sequence[int | str | None],
    width: int | None,
    *constants: TensorProto,
) -> None:
    outputs: list[str | int | None] = ["batch", width] if width else [1]
    graph = helper.make_graph(
        [node],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        list(constants),
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(model.SerializeToString())


def _asking(model: str, x: np.ndarray) -> bytes:
    return encode_request(InferRequest(model, (Tensor.of("x", x),)))


_WIDE_MESSAGE = framed(_asking(WIDE, np.ones((1, 1), np.float32)))


@contextlib.contextmanager
def _peer(address: str) -> Iterator[Http2Peer]:
    """A client whose windows are as wide as can be; OSError where its connection ends."""
    with Http2Peer(address) as peer:
        if not peer.hello():
            raise ConnectionError("the server closed the connection")
        window: dict[h2.settings.SettingCodes | int, int] = {
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1
        }
        peer.h2.update_settings(window)
        peer.h2.increment_flow_control_window(2**31 - 1 - 65535)
        peer.flush()
        yield peer


def _send(peer: Http2Peer, number: int, data: bytes, *, end: bool = False) -> None:
    peer.socket.sendall(frame(_DATA, _END_STREAM if end else 0, number, data))


def unread_answers(address: str) -> None:
    """Ask for large answers, one a call, and read none."""
    with _peer(address) as peer:
        for _ in range(_CALLS):
            _send(peer, peer.call(_INFER), _WIDE_MESSAGE, end=True)
        time.sleep(_STANDS_STILL_S)


def unread_streams(address: str) -> None:
    """The same on streams, as many messages as their windows take."""
    with _peer(address) as peer:
        for _ in range(8):
            number = peer.call(_STREAM)
            for _ in range(16):
                _send(peer, number, _WIDE_MESSAGE * 100)
        time.sleep(_STANDS_STILL_S)


def half_sent(address: str) -> None:
    """Announce large messages, and send the start of each."""
    with _peer(address) as peer:
        for _ in range(_CALLS):
            _send(peer, peer.call(_INFER), b"\0" + struct.pack(">I", 8 * MIB) + bytes(1024))
        time.sleep(_STANDS_STILL_S)


def sent_ahead(address: str) -> None:
    """Fill the window of each call with a message that may have no room."""
    piece = bytes(64 * 1024)
    with _peer(address) as peer:
        for _ in range(_CALLS):
            number = peer.call(_INFER)
            _send(peer, number, b"\0" + struct.pack(">I", 8 * MIB))
            for _ in range(15):
                _send(peer, number, piece)
        time.sleep(_STANDS_STILL_S)


def calls_without_a_message(address: str) -> None:
    """Open calls of health, reflection and control, and send nothing on them."""
    with _peer(address) as peer:
        for _ in range(100):
            for path in _OTHERS:
                peer.call(path)
            peer.call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        time.sleep(_STANDS_STILL_S)


def bombs(address: str) -> None:
    """Send messages that become much more than they are, packed and not."""
    model = length_prefix(1, len(WIDE)) + WIDE.encode()
    empty = length_prefix(5, MIB) + b"\x22\0" * (MIB // 2)
    shape = b"\x1a" + encode_varint(3) + encode_varint(2**18)
    text = b"\x0a\1x\x12\5BYTES" + shape + length_prefix(5, 2**19) + b"\x42\0" * 2**18
    numbers = b"\x0a\1x\x12\5INT64" + length_prefix(5, 4 + MIB) + length_prefix(3, MIB)
    messages = (
        bytes(24 * MIB),
        model + b"\x2a\0" * MIB,
        model + empty,
        model + length_prefix(5, len(text)) + text,
        model + length_prefix(5, len(numbers) + MIB) + numbers + b"\1" * MIB,
        model + length_prefix(7, 0) * MIB,
        length_prefix(1, 8 * MIB) + b"n" * (8 * MIB),
    )
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        infer = channel.unary_unary(_INFER)
        calls = [
            infer.future(message, timeout=_PATIENCE_S, compression=compression)
            for message in messages
            for compression in (None, grpc.Compression.Gzip, grpc.Compression.Deflate)
        ]
        # A size that is not true.
        lie = gzip.compress(bytes(24 * MIB), 1)[:-4] + struct.pack("<I", 1000)
        with _peer(address) as peer:
            number = peer.call(_INFER, ("grpc-encoding", "gzip"))
            _send(peer, number, b"\1" + struct.pack(">I", len(lie)) + lie, end=True)
        for call in calls:
            call.exception()


def shared_memory(address: str) -> None:
    """Name much more memory than the messages have, and outputs that are as large."""
    name = f"soak-{os.getpid()}-{next(_numbers)}"
    path, size = FOLDER / name, 48 * MIB
    with path.open("wb") as file:
        file.truncate(size)
    try:
        with grpc.insecure_channel(address) as channel:
            stub = InferenceStub(channel)
            stub.SystemSharedMemoryRegister(
                pb.SystemSharedMemoryRegisterRequest(name=name, key=name, byte_size=size)
            )
            request = pb.ModelInferRequest(model_name=WHOLE)
            tensor = request.inputs.add(name="x", datatype="FP32", shape=[size // 4])
            tensor.parameters["shared_memory_region"].string_param = name
            tensor.parameters["shared_memory_byte_size"].int64_param = size
            for call in [stub.ModelInfer.future(request, timeout=_PATIENCE_S) for _ in range(16)]:
                call.exception()
            stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name=name))
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
    finally:
        path.unlink()


ATTACKS: Mapping[str, Attack] = {
    each.__name__: each
    for each in (
        unread_answers,
        unread_streams,
        half_sent,
        sent_ahead,
        calls_without_a_message,
        bombs,
        shared_memory,
    )
}
