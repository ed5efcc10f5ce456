"""Random sequences of RPCs to a real server, checked against a model of its state."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from client.shared_memory import SharedArray
from measure.core.local_server import ServerProcess, running_server
from protos import inference_pb2 as pb
from protos.codec import InferRequest, decode_response, decode_stream_response, encode_request
from protos.stub import InferenceStub
from protos.tensors import Tensor
from soak.known_answers import SMALL, Questions, put_model
from soak.request_kinds import UNTRIED
from soak.tally import Tally

MODELS = ("first", "second")
NOBODY = "nobody"
_REGION_NAMES = ("a", "b")
_OPTIONS = ("--model-control", "explicit", *UNTRIED)
_TIMEOUT_S = 30.0
_SERVICE = "/inference.GRPCInferenceService/"
_STEPS = 25
# Sequences that are drawn together; the time limit is checked in between.
_BATCH = 10

Code = grpc.StatusCode
models = st.sampled_from((*MODELS, NOBODY))
numbers = st.integers(0, 500)
regions = st.sampled_from(_REGION_NAMES)


def run(tally: Tally, folder: Path) -> None:
    """Count sequences in which every call had the result that the model of the state predicts."""
    with machine(folder) as kind:
        batch = 0
        while taken := tally.take(_BATCH):
            # A different seed for each batch, or all would draw the same.
            seeded = seed(tally.seed + batch)(kind)
            batch += 1
            try:
                run_state_machine_as_test(seeded, settings=drawn(taken))
            except Exception as error:
                notes = "; ".join(getattr(error, "__notes__", []))
                for _ in range(taken):
                    tally.fail("a sequence", f"{error!r} {notes}")
                return
            tally.add(taken)


def drawn(count: int) -> settings:
    """Settings for drawing so many sequences, without shrinking failures, which takes minutes."""
    return settings(
        max_examples=count,
        stateful_step_count=_STEPS,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[type["Sequences"]]:
    """Make a class of sequences that call one server, which runs while the block lasts."""
    for name in MODELS:
        put_model(folder, SMALL, name)
    questions = Questions(SMALL)
    with (
        running_server(folder, _OPTIONS) as running,
        grpc.insecure_channel(running.address) as open_channel,
        SharedArray((4, SMALL.features), np.float32) as memory,
    ):
        memory.array[:] = questions[3][0]

        class Here(Sequences):
            server = running
            channel = open_channel
            shared = memory
            asked = questions

        yield Here
        if not running.alive:
            raise RuntimeError(f"the server ended: {running.said()}")


class Sequences(RuleBasedStateMachine):
    """Loaded models and registered regions must follow from the calls alone."""

    server: ServerProcess
    channel: grpc.Channel
    shared: SharedArray
    asked: Questions

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.registered: set[str] = set()
        self.stub: Any = InferenceStub(self.channel)

    @initialize()
    def start_from_nothing(self) -> None:
        """Reset the server, which the previous sequence used, to a known state."""
        for name in MODELS:
            self.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=name))
        self.stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())

    @rule(name=models)
    def load(self, name: str) -> None:
        """Load or reload a model."""
        request = pb.RepositoryModelLoadRequest(model_name=name)
        wanted = Code.NOT_FOUND if name == NOBODY else Code.OK
        self.expect(wanted, self.stub.RepositoryModelLoad, request)
        self.loaded |= {name} - {NOBODY}

    @rule(name=models)
    def unload(self, name: str) -> None:
        """Unload a model, loaded or not."""
        request = pb.RepositoryModelUnloadRequest(model_name=name)
        wanted = Code.NOT_FOUND if name == NOBODY else Code.OK
        self.expect(wanted, self.stub.RepositoryModelUnload, request)
        self.loaded -= {name}

    @rule(name=regions)
    def register(self, name: str) -> None:
        """Register the shared memory under a name."""
        request = pb.SystemSharedMemoryRegisterRequest(
            name=name, key=self.shared.key, byte_size=self.shared.byte_size
        )
        wanted = Code.ALREADY_EXISTS if name in self.registered else Code.OK
        self.expect(wanted, self.stub.SystemSharedMemoryRegister, request)
        self.registered.add(name)

    @rule(name=st.one_of(regions, st.just("")))
    def unregister(self, name: str) -> None:
        """Forget a region, or all of them."""
        request = pb.SystemSharedMemoryUnregisterRequest(name=name)
        self.expect(Code.OK, self.stub.SystemSharedMemoryUnregister, request)
        self.registered -= {name} if name else set(_REGION_NAMES)

    @rule(name=models, number=numbers)
    def infer(self, name: str, number: int) -> None:
        """Send a request."""
        x, wanted = self.asked[number]
        answer = self.ask(self.state(name), name, Tensor.of("x", x))
        if answer is not None:
            assert answer.tolist() == wanted.tolist()

    @rule(name=models, region=regions)
    def infer_shared(self, name: str, region: str) -> None:
        """Send a request whose rows lie in shared memory."""
        rows = self.shared.rows("x", 0, 4)
        parameters = {**rows.parameters, "shared_memory_region": region}
        tensor = Tensor(rows.name, rows.datatype, rows.shape, None, parameters)
        wanted = self.state(name)
        if wanted is Code.OK and region not in self.registered:
            wanted = Code.NOT_FOUND
        answer = self.ask(wanted, name, tensor)
        if answer is not None:
            assert answer.tolist() == self.asked[3][1].tolist()

    @rule(name=models, number=numbers, count=st.integers(1, 6))
    def stream(self, name: str, number: int, count: int) -> None:
        """Send several requests on one stream, each answered or rejected in order."""
        answers = list(self.open_stream(name, number, count))
        assert len(answers) == count
        for at, data in enumerate(answers):
            text, response = decode_stream_response(data)
            assert response.id == str(number + at)
            assert bool(text) == (name not in self.loaded), text
            if not text:
                labels = response.outputs[0].data
                assert np.array_equal(labels, self.asked[number + at][1])  # type: ignore[arg-type]

    @rule(name=models, number=numbers, count=st.integers(1, 6))
    def cancel(self, name: str, number: int, count: int) -> None:
        """Cancel a stream after its first answer, and a request before any."""
        call = self.open_stream(name, number, count)
        next(call)
        call.cancel()
        message = self.message(name, number)
        infer = self.channel.unary_unary(f"{_SERVICE}ModelInfer")
        infer.future(message, timeout=_TIMEOUT_S).cancel()

    @rule(name=models)
    def malformed(self, name: str) -> None:
        """Send an invalid message: a group that does not end."""
        infer = self.channel.unary_unary(f"{_SERVICE}ModelInfer")
        self.expect(Code.INVALID_ARGUMENT, infer, self.message(name, 0) + b"\x0b")

    @invariant()
    def it_says_what_it_is(self) -> None:
        """Check that index and status list the loaded models and registered regions."""
        index = self.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), timeout=_TIMEOUT_S)
        status = self.stub.SystemSharedMemoryStatus(
            pb.SystemSharedMemoryStatusRequest(), timeout=_TIMEOUT_S
        )
        # Before the sequence begins, the previous one's state remains.
        if self._initialize_rules_to_run:
            return
        assert {model.name for model in index.models} == self.loaded
        assert set(status.regions) == self.registered

    def state(self, name: str) -> grpc.StatusCode:
        """The status of a valid request for a model now."""
        if name == NOBODY:
            return Code.NOT_FOUND
        return Code.OK if name in self.loaded else Code.UNAVAILABLE

    def expect(self, wanted: grpc.StatusCode, call: Any, request: Any) -> Any:
        """Call, and check the status; return the answer, None if it is not OK."""
        answer, got, text = None, Code.OK, ""
        try:
            answer = call(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            got, text = error.code(), error.details() or ""
        assert got is wanted, f"{got.name} {text}, expected {wanted.name}"
        return answer

    def ask(self, wanted: grpc.StatusCode, name: str, tensor: Tensor) -> Any:
        """Labels of one request; None if it was rejected as expected."""
        infer = self.channel.unary_unary(f"{_SERVICE}ModelInfer")
        message = encode_request(InferRequest(name, (tensor,)))
        answer = self.expect(wanted, infer, message)
        return None if answer is None else decode_response(answer).outputs[0].data

    def message(self, name: str, number: int) -> bytes:
        """Encode the question of that number, for a model."""
        x, _ = self.asked[number]
        return encode_request(InferRequest(name, (Tensor.of("x", x),), id=str(number)))

    def open_stream(self, name: str, number: int, count: int) -> Any:
        """Send so many questions on a stream."""
        messages = [self.message(name, number + at) for at in range(count)]
        call = self.channel.stream_stream(f"{_SERVICE}ModelStreamInfer")
        return call(iter(messages), timeout=_TIMEOUT_S)
