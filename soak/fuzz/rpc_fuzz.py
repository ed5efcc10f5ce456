"""Send damaged messages to every RPC of a real server: each must get a proper status."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np

from measure.core.local_server import ServerProcess, running_server
from protos import inference_pb2 as pb
from protos.codec import InferRequest, decode_response, decode_stream_response, encode_request
from protos.tensors import Tensor
from soak.clients import at_once, wrong
from soak.fuzz.codec_fuzz import seeds as codec_seeds
from soak.fuzz.mutation import mutated
from soak.known_answers import MODEL, SMALL, Questions, put_model
from soak.request_kinds import OPTIONS, UNTRIED
from soak.tally import Tally

CLIENTS = 4
# After this many calls the server must answer a valid request correctly.
_BETWEEN_CANARIES = 250
_SERVICE = "/inference.GRPCInferenceService/"
# Longer than any call here may take: one that reaches it hangs.
_HANG_S = 30.0
_MOST_MESSAGES = 5

Code = grpc.StatusCode
# Statuses that a working server never returns: UNKNOWN is an escaped exception, INTERNAL an
# unexpected one; no call here is cancelled or part of a transaction.
_NEVER = {Code.UNKNOWN, Code.INTERNAL, Code.CANCELLED, Code.ABORTED, Code.DATA_LOSS}
# As words of their own: reasons of other faults have "enclosed".
_CONNECTION = re.compile(r"\b(connection|socket|GOAWAY|transport|closed)\b", re.IGNORECASE)


def run(tally: Tally, folder: Path) -> None:
    """Count calls that got a status with a reason, or an answer."""
    put_model(folder, SMALL)
    questions = Questions(SMALL)
    with running_server(folder, (*OPTIONS, *UNTRIED)) as server:
        stop = threading.Event()
        at_once(
            [
                _Client(tally, server, questions, random.Random(tally.seed + n), stop).run
                for n in range(CLIENTS)
            ]
        )
        if not server.alive:
            tally.fail("the server", f"ended with {server.process.poll()}: {server.said()}")
        if "unforeseen" in server.said():
            tally.fail("the server's log", server.said())


def seeds() -> dict[str, list[bytes]]:
    """Valid messages for every RPC, by its name."""
    shared = pb.SystemSharedMemoryRegisterRequest(name="r", key="/no-such-object", byte_size=8)
    config = pb.RepositoryModelLoadRequest(model_name=MODEL)
    config.parameters["config"].string_param = '{"max_batch_size": 8, "dynamic_batching": {}}'
    unload = pb.RepositoryModelUnloadRequest(model_name=MODEL)
    unload.parameters["unload_dependents"].bool_param = True
    log = pb.LogSettingsRequest()
    log.settings["log_verbose_level"].uint32_param = 0
    trace = pb.TraceSettingRequest(model_name=MODEL)
    trace.settings["trace_level"].value.append("OFF")
    named = {"name": MODEL, "version": "1"}
    messages = [
        pb.ServerLiveRequest(),
        pb.ServerReadyRequest(),
        pb.ModelReadyRequest(**named),
        pb.ServerMetadataRequest(),
        pb.ModelMetadataRequest(**named),
        pb.ModelConfigRequest(**named),
        pb.ModelStatisticsRequest(**named),
        pb.RepositoryIndexRequest(ready=True),
        config,
        pb.RepositoryModelLoadRequest(model_name=MODEL),
        unload,
        pb.SystemSharedMemoryStatusRequest(name="r"),
        shared,
        pb.SystemSharedMemoryUnregisterRequest(name="r"),
        pb.CudaSharedMemoryStatusRequest(name="r"),
        pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"h", byte_size=8),
        pb.CudaSharedMemoryUnregisterRequest(name="r"),
        trace,
        log,
    ]
    x = np.random.default_rng(0).standard_normal((2, 8), np.float32)
    inference = [*codec_seeds()["request"][1]]
    for rows in (x, np.tile(x, (1, SMALL.features // 8))):
        for version in ("", "1"):
            request = InferRequest(MODEL, (Tensor.of("x", rows),), model_version=version, id="1")
            inference.append(encode_request(request))
    found: dict[str, list[bytes]] = {"ModelInfer": inference, "ModelStreamInfer": inference}
    for message in messages:
        rpc = type(message).__name__.removesuffix("Request")
        found.setdefault(rpc, []).append(message.SerializeToString())
    return found


class _Client:
    """One client with its own channel, which calls until the tally is over."""

    def __init__(
        self,
        tally: Tally,
        server: ServerProcess,
        questions: Questions,
        generator: random.Random,
        stop: threading.Event,
    ) -> None:
        self._tally, self._server, self._questions = tally, server, questions
        self._random, self._stop = generator, stop
        self._seeds = seeds()
        # Half of all calls carry tensors, which have the most to get wrong.
        others = [name for name in self._seeds if "Infer" not in name]
        self._rpcs: Sequence[str] = [*others, *["ModelInfer", "ModelStreamInfer"] * len(others)]

    def run(self) -> None:
        """Call, and regularly check that valid requests are still answered."""
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._server.address, options=options) as channel:
            calls = 0
            while not self._stop.is_set() and self._tally.take():
                rpc = self._random.choice(self._rpcs)
                call = self._stream if rpc == "ModelStreamInfer" else self._unary
                self._judged(call, channel, rpc)
                calls += 1
                if calls % _BETWEEN_CANARIES == 0:
                    self._canary(channel, calls)

    def _judged(
        self,
        call: Callable[[grpc.Channel, str, list[bytes]], str | None],
        channel: grpc.Channel,
        rpc: str,
    ) -> None:
        count = self._random.randint(1, _MOST_MESSAGES) if rpc == "ModelStreamInfer" else 1
        messages = [mutated(self._random, self._seeds[rpc]) for _ in range(count)]
        try:
            wrong = call(channel, rpc, messages)
            self._tally.note("OK")
        except grpc.RpcError as error:
            wrong = _wrong_status(error)
            self._tally.note(error.code().name)
        if wrong is None:
            self._tally.add()
        else:
            self._tally.fail(f"{rpc} {[message.hex() for message in messages]}", wrong)
            if not self._server.alive:
                self._stop.set()

    def _unary(self, channel: grpc.Channel, rpc: str, messages: list[bytes]) -> str | None:
        channel.unary_unary(_SERVICE + rpc)(messages[0], timeout=_HANG_S)
        return None

    def _stream(self, channel: grpc.Channel, rpc: str, messages: list[bytes]) -> str | None:
        ends = self._random.random() < 0.2
        call = channel.stream_stream(_SERVICE + rpc)(
            iter(messages),
            timeout=_HANG_S,
            metadata=(("triton_grpc_error", "true"),) if ends else (),
        )
        texts = [decode_stream_response(data)[0] for data in call]
        if len(texts) != len(messages):
            return f"{len(texts)} answers to {len(messages)} messages"
        return "internal error" if "internal error" in texts else None

    def _canary(self, channel: grpc.Channel, number: int) -> None:
        """A valid request, after loading the model, which a damaged message may have unloaded."""
        x, wanted = self._questions[number]
        message = encode_request(InferRequest(MODEL, (Tensor.of("x", x),)))
        load = pb.RepositoryModelLoadRequest(model_name=MODEL).SerializeToString()
        try:
            for _ in _attempts():
                channel.unary_unary(f"{_SERVICE}RepositoryModelLoad")(load, timeout=_HANG_S)
                try:
                    answer = channel.unary_unary(f"{_SERVICE}ModelInfer")(message, timeout=_HANG_S)
                    break
                except grpc.RpcError as error:
                    # Another client's message may have unloaded it at once.
                    if "not ready" not in (error.details() or ""):
                        raise
            labels = decode_response(answer).outputs[0].data
        except Exception as error:
            self._tally.fail("canary", repr(error))
            return
        fault = wrong(labels, wanted)
        if fault is not None:
            self._tally.fail("canary", fault)
        self._tally.note("canaries")


def _attempts() -> Iterator[int]:
    """Retry for as long as a call may take."""
    end_s = time.monotonic() + _HANG_S
    number = 0
    while time.monotonic() < end_s:
        yield number
        number += 1


def _wrong_status(error: grpc.RpcError) -> str | None:
    code, text = error.code(), error.details() or ""
    lost = code is Code.UNAVAILABLE and _CONNECTION.search(text) is not None
    if code in _NEVER or code is Code.DEADLINE_EXCEEDED or lost or not text:
        return f"{code.name}: {text}"
    return None
