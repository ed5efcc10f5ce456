"""Make a request of a message: decode it, check it, queue it, with room for what that takes.

Nearly all messages are quick, and all of it happens at once in the I/O thread. One that becomes
many objects is worked on by another thread, with a pause every few milliseconds, and only once
there is room for them; so is one whose tensors are read from shared memory.
"""

import time
from collections.abc import Callable
from functools import partial

from protos.codec import InferRequest
from protos.request_decoding import Weighed, decode_quick, decode_weighed, weigh_request
from protos.weight import MOST_FIELDS
from server.batching.request import Caller
from server.errors import Cancelled, TooMany
from server.rpc import status
from server.rpc.accounting.pending import Pending
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.native.room import SMALL_ANSWER_BYTES, Room
from transport.serving.server_call import ServerCall
from transport.status import Status
from transport.workers import Workers

# What the I/O thread decodes by itself: half a millisecond. Memory for that time is not asked for.
_HERE_FIELDS = 256
_HERE_BYTES = 4 * 2**20
# What the worker takes for the time of decoding without asking: it decodes one message at a time.
_FREE_BYTES = 16 * 2**20
_HERE_HELD_BYTES = 32 * 1024
# Lets a thread that waits for the interpreter have it.
_PAUSE_S = 50e-6

# The request, or the error with the id of the message; neither where it was cancelled.
Ready = Callable[[Pending | None, Exception | None, str], None]
_Step = Callable[[], None]


class Preparation:
    """Of one message. The I/O thread calls, and is called."""

    __slots__ = (
        "_arrived_ns",
        "_call",
        "_caller",
        "_counted",
        "_ended",
        "_give_back",
        "_id",
        "_idle_trim",
        "_inference",
        "_message",
        "_over",
        "_pending",
        "_ready",
        "_receive_ns",
        "_room",
        "_then",
        "_workers",
        "_working",
    )

    def __init__(
        self,
        call: ServerCall,
        inference: Inference,
        workers: Workers,
        idle_trim: IdleTrim,
        caller: Caller,
        room: Room,
        give_back: Callable[[], object],
        ready: Ready,
    ) -> None:
        """`room`: of the message. `give_back`: called once a queued request needs it no more.

        `ready` is called once, with the result.
        """
        self._call = call
        self._inference = inference
        self._workers = workers
        self._idle_trim = idle_trim
        self._caller = caller
        self._room = room
        self._give_back = give_back
        self._ready = ready
        self._arrived_ns = 0
        self._receive_ns = 0
        self._message: memoryview | None = None
        self._id = ""
        self._pending: Pending | None = None  # prepared, and not queued
        self._counted = False  # the message as one that fails, if it does
        self._then: _Step | None = None
        self._working = False  # another thread has it
        self._ended: Status | None = None  # with what the call has ended meanwhile
        self._over = False  # `ready` was called

    def start(self, message: memoryview, arrived_ns: int, receive_ns: int) -> None:
        """Begin with a message that was complete at `arrived_ns`, after so much time."""
        self._message = message
        self._arrived_ns, self._receive_ns = arrived_ns, receive_ns
        try:
            decoded = decode_quick(message)
            if decoded is None:
                self._weigh_here(message)
            else:
                self._check(decoded)
        except Exception as error:
            self._refuse(error)

    def cancel(self, ended: Status) -> None:
        """The call has `ended`: `ready` is called, where a thread has the message after that."""
        if self._over or self._ended is not None:
            return
        self._ended = ended
        if not self._working:
            self._give_up()

    # --- decoding

    def _weigh_here(self, message: memoryview) -> None:
        weighed = weigh_request(message, _HERE_FIELDS)
        if weighed is not None:
            weight = weighed.weight
            if weight.transient_bytes <= _HERE_BYTES and weight.held_bytes <= _HERE_HELD_BYTES:
                self._ask(weight.held_bytes, partial(self._decode_here, weighed))
                return
        self._work(self._weigh)

    def _decode_here(self, weighed: Weighed) -> None:
        self._check(decode_weighed(weighed))

    def _weigh(self) -> _Step:
        """In a worker."""
        message = self._message
        assert message is not None
        weighed = weigh_request(message, MOST_FIELDS, self._pause)
        assert weighed is not None
        weight = weighed.weight
        step = partial(self._work, partial(self._decode, weighed))
        transient = max(0, weight.transient_bytes - _FREE_BYTES)
        return partial(self._ask, transient + weight.held_bytes, step)

    def _decode(self, weighed: Weighed) -> _Step:
        """In a worker."""
        decoded = decode_weighed(weighed, self._pause)
        return partial(self._check, decoded, slow=True)

    # --- checking and queueing

    def _check(self, decoded: InferRequest, *, slow: bool = False) -> None:
        self._id = decoded.id
        shared_bytes = 0
        for tensor in decoded.inputs:
            if tensor.data is None:
                shared_bytes = self._inference.shared_bytes(decoded)
                break
        if shared_bytes or slow:
            self._ask(shared_bytes, partial(self._work, partial(self._check_there, decoded)))
            return
        self._expect(decoded, self._prepare(decoded))

    def _check_there(self, decoded: InferRequest) -> _Step:
        """In a worker."""
        return partial(self._expect, decoded, self._prepare(decoded))

    def _prepare(self, decoded: InferRequest) -> Pending:
        self._counted = True
        pending = self._inference.prepare(decoded, self._arrived_ns, self._caller, self._receive_ns)
        pending.cover = self._room.cover
        self._pending = pending
        return pending

    def _expect(self, decoded: InferRequest, pending: Pending) -> None:
        answer_bytes = pending.request.answer_bytes
        if answer_bytes <= SMALL_ANSWER_BYTES or self._room.expect(answer_bytes, self._granted):
            self._queue(decoded, pending)
        else:
            self._then = partial(self._queue_with_room, decoded, pending)

    def _queue_with_room(self, decoded: InferRequest, pending: Pending) -> None:
        self._room.expected(pending.request.answer_bytes)
        self._queue(decoded, pending)

    def _queue(self, decoded: InferRequest, pending: Pending) -> None:
        self._pending = None
        pending = self._inference.queue(pending, decoded, self._caller, self._give_back)
        self._end(pending, None, decoded.id)

    # --- steps

    def _ask(self, more_bytes: int, then: _Step) -> None:
        """Go on with `then` once there is room for more bytes."""
        if more_bytes and not self._room.grow(more_bytes, self._granted):
            self._then = then
            return
        then()

    def _granted(self) -> None:
        """Any thread."""
        self._call.connection.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        then, self._then = self._then, None
        if then is not None and self._ended is None:
            self._step(then)

    def _step(self, step: _Step) -> None:
        try:
            step()
        except Exception as error:
            self._refuse(error)

    def _work(self, work: Callable[[], _Step]) -> None:
        """Let a worker work; what it returns is the next step here."""
        self._working = True
        if not self._workers.submit(partial(self._run, work)):
            self._working = False
            raise TooMany("too many large messages wait to be decoded")

    def _run(self, work: Callable[[], _Step]) -> None:
        try:
            self._pause()
            step = work()
        except Exception as error:
            step = partial(self._refuse, error)
        self._call.connection.loop.call_soon(partial(self._worked, step))

    def _worked(self, step: _Step) -> None:
        self._working = False
        # What was made of the message is large, and made of small pieces.
        self._idle_trim.trim_soon()
        if self._ended is None:
            self._step(step)
            return
        self._give_up()

    def _pause(self) -> None:
        """In a worker: stop where nobody waits any more; let other threads go on."""
        if self._call.done:
            raise Cancelled("the client cancelled the request")
        time.sleep(_PAUSE_S)

    def _give_up(self) -> None:
        assert self._ended is not None
        self._count(self._ended)
        self._end(None, None, "")

    def _refuse(self, error: Exception) -> None:
        request_id = getattr(error, "request_id", self._id)
        self._count(status.described(error), request_id)
        self._end(None, error, request_id)

    def _end(self, pending: Pending | None, error: Exception | None, request_id: str) -> None:
        self._over = True
        self._message = None
        self._ready(pending, error, request_id)

    def _count(self, ended: Status, request_id: str = "") -> None:
        """Count a message that is not queued, unless that is done."""
        message, self._message = self._message, None
        pending, self._pending = self._pending, None
        ends = self._inference.ends
        if pending is not None:
            ends.failed(pending, ended)
        elif not self._counted:
            length = 0 if message is None else len(message)
            ends.refuse(self._caller, ended, self._arrived_ns, length, request_id=request_id)
