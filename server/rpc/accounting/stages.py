"""The stages of a request that has ended, one after the other."""

from typing import NamedTuple

from server.rpc.accounting.ended_request import EndedRequest


class Stages(NamedTuple):
    """Nanoseconds; 0 for a stage that the request did not reach.

    As the parameters of an answer have them: `queue` begins when the message is decoded, and
    `handover` is from the last batch to the thread that encodes the answer. Where batches of one
    request ran at the same time, the stages add up to more than the request took, and it is 0.
    """

    receive: int
    decode: int
    queue: int
    assemble: int
    compute: int
    handover: int
    encode: int


def stages(request: EndedRequest) -> Stages:
    """Its stages."""
    timings = request.timings
    ran = timings.queue_ns > 0
    known_ns = timings.queue_ns + timings.assemble_ns + timings.compute_ns
    total_ns = request.ended_ns - request.arrived_ns
    return Stages(
        receive=request.receive_ns or 0,
        decode=request.decode_ns,
        # The scheduler's queue begins with the message's arrival.
        queue=max(0, timings.queue_ns - request.decode_ns) if ran else 0,
        assemble=timings.assemble_ns,
        compute=timings.compute_ns,
        handover=max(0, total_ns - request.encode_ns - known_ns) if ran else 0,
        encode=request.encode_ns,
    )


def total_ns(request: EndedRequest) -> int:
    """Nanoseconds from its message's first byte, where that was seen, until it ended."""
    return request.ended_ns - request.arrived_ns + (request.receive_ns or 0)
