"""What must be as before once a fault is over: the process, its answers, memory, descriptors."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from model.weights import from_seed

MIB = 2**20
MOST_GROWTH_BYTES = 16 * MIB
# gRPC's own threads come and go with what the connections do.
MOST_MORE_THREADS = 4
_AT_ONCE = 12


class Steady:
    """A server process with a model `linear` that is to survive whatever is done to it."""

    def __init__(self, process, caller, message, labels, eventually):
        """`message` is a canary: its answer must be exactly `labels`."""
        self._process = process
        self._caller = caller
        self._message = message
        self._labels = labels
        self._eventually = eventually
        self._folder = Path(f"/proc/{process.popen.pid}")
        self._fill_pools()
        self.memory_bytes, self.descriptors, self.threads = self._measure()

    @classmethod
    def of_linear(cls, process, caller, eventually, classes, features):
        """Of a process whose model `linear` has the weights of seed 0."""
        x = np.random.default_rng(1).standard_normal((5, features), np.float32)
        labels = (x @ from_seed(classes, features, 0).astype(np.float32).T).argmax(axis=1)
        message = caller.message("linear", outputs=["label"], x=x)
        return cls(process, caller, message, labels, eventually)

    def check(self):
        """Fail unless the same process serves as it did before."""
        assert self._process.popen.poll() is None
        self._eventually(self._serves, "it serves as before")
        self._eventually(self._is_small, "memory, descriptors and threads are back")

    @contextlib.contextmanager
    def no_peak(self):
        """Fail unless memory stays small all through the block, not only after it."""
        before = self._start_of_peak()
        yield
        assert self._peak_bytes() - before < MOST_GROWTH_BYTES

    def _start_of_peak(self):
        """Let the peak of memory start anew; the bytes resident now."""
        (self._folder / "clear_refs").write_text("5")
        return self._peak_bytes()

    def _peak_bytes(self):
        lines = (self._folder / "status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def _serves(self):
        try:
            (label,) = self._caller.infer(self._message).outputs
        except grpc.RpcError as error:
            # The places of those who were a nuisance are free again in a moment.
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            return False
        np.testing.assert_array_equal(label.data, self._labels)
        return self._caller.health() == "SERVING"

    def _is_small(self):
        memory_bytes, descriptors, threads = self._measure()
        return (
            memory_bytes - self.memory_bytes < MOST_GROWTH_BYTES
            and descriptors <= self.descriptors
            and threads <= self.threads + MOST_MORE_THREADS
        )

    def _measure(self):
        resident_pages = int((self._folder / "statm").read_text().split()[1])
        return (
            resident_pages * os.sysconf("SC_PAGE_SIZE"),
            len(list((self._folder / "fd").iterdir())),
            len(list((self._folder / "task").iterdir())),
        )

    def _fill_pools(self):
        """Let every pool of the server start its threads, which it keeps."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for ask in (self._ask, self._ask_on_a_stream, self._ask_for_health):
                list(pool.map(ask, range(10 * _AT_ONCE)))

    def _ask(self, _):
        self._passes(lambda: self._caller.infer(self._message))

    def _ask_on_a_stream(self, _):
        self._passes(lambda: self._caller.stream([self._message]))

    def _ask_for_health(self, _):
        self._caller.health()
        self._caller.control("ServerLive")

    @staticmethod
    def _passes(ask):
        try:
            ask()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
