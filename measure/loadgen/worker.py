"""Run LoadGen once in this process: a job in JSON on stdin, an outcome on stdout.

LoadGen reads its built-in configuration only once per process, and cannot be stopped: so each run
has a process, which ends if a request fails.
"""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.client import Client
from client.errors import ClientError, DeadlineExceeded
from client.model_input import ModelInput
from command_line.extras import optional
from command_line.parser import positionals
from measure.core.child_process import Parent
from measure.core.record import decoded, encoded
from measure.loadgen.examples import LoadedExamples
from measure.loadgen.senders import Batch, Done, InTurn, Rows, Sender, StreamSender, UnarySender
from measure.loadgen.settings import settings_of
from measure.loadgen.warm_up import warm_up
from measure.loadgen.worker_job import Job, Outcome, Scenario, rows_of_batch
from transport.calling.resolving import Resolving

mlperf_loadgen = optional("mlperf_loadgen", "loadgen", "loadgen")

# Samples per query; Offline has a single query of any length.
_QUERY_ROWS: dict[Scenario, int] = {"SingleStream": 1, "MultiStream": 8, "Server": 1}
# Unary requests wait here, not in gRPC's memory.
_MOST_IN_FLIGHT_BYTES = 128 * 2**20
_WATCH_S = 0.5
# A file would configure an audit; this one never exists.
_NO_AUDIT = "none.conf"


class Run:
    """One run of a job: LoadGen's callbacks, queries in flight, received labels."""

    def __init__(self, job: Job, client: Client, parent: Parent) -> None:
        self._job = job
        self._client = client
        self._parent = parent
        self._examples = LoadedExamples(job.experiment)
        self._batch_rows = rows_of_batch(job.experiment.row_bytes)
        self._sent_rows = min(_QUERY_ROWS.get(job.scenario, self._batch_rows), self._batch_rows)
        self._sender: Sender | None = None
        self._lock = threading.Lock()
        self._labels: Counter[tuple[int, int]] = Counter()
        self._under_way = 0
        self._last_ns = time.monotonic_ns()

    def __call__(self) -> Outcome:
        """Warm up, run LoadGen, and return the outcome; a failed request ends the process."""
        samples_per_s, latency_ns = self._warm_up()
        settings = settings_of(self._job, samples_per_s, latency_ns)
        self._sender = self._open(self._examples.rows, self._done)
        threading.Thread(target=self._watch, daemon=True).start()
        log = mlperf_loadgen.LogSettings()
        log.log_output.outdir = self._job.folder
        sut = mlperf_loadgen.ConstructSUT(self._issue, _flush)
        library = mlperf_loadgen.ConstructQSL(
            self._job.experiment.examples,
            self._examples.most_loaded,
            self._examples.load,
            self._examples.unload,
        )
        mlperf_loadgen.StartTestWithLogSettings(sut, library, settings, log, _NO_AUDIT)
        mlperf_loadgen.DestroyQSL(library)
        mlperf_loadgen.DestroySUT(sut)
        self._sender.close()
        return Outcome(
            tuple((index, label, count) for (index, label), count in self._labels.items()),
            samples_per_s,
            latency_ns,
        )

    def _warm_up(self) -> tuple[float, int]:
        rows = self._sent_rows
        examples = LoadedExamples(self._job.experiment)
        drawn = range(min(rows, self._job.experiment.examples))
        examples.load(drawn)
        batch = Batch(range(rows), [at % len(drawn) for at in range(rows)])
        return warm_up(
            self._job.scenario,
            lambda done: self._open(examples.rows, done),
            batch,
            self._job.timeout_s,
        )

    def _open(self, rows: Rows, done: Done) -> Sender:
        if self._job.transport == "stream":
            return InTurn(
                [
                    StreamSender(self._client, rows, done, self._fail)
                    for _ in range(self._job.servers)
                ]
            )
        fitting = _MOST_IN_FLIGHT_BYTES // (self._sent_rows * self._job.experiment.row_bytes)
        in_flight = min(self._job.in_flight, max(1, fitting))
        return UnarySender(self._client, rows, done, self._fail, in_flight)

    def _issue(self, samples: Sequence[Any]) -> None:
        """Take a query in LoadGen's thread, and return at once."""
        assert self._sender is not None
        with self._lock:
            if not self._under_way:
                self._last_ns = time.monotonic_ns()
            self._under_way += len(samples)
        for start in range(0, len(samples), self._batch_rows):
            part = samples[start : start + self._batch_rows]
            self._sender.send(Batch([one.id for one in part], [one.index for one in part]))

    def _done(self, batch: Batch, labels: NDArray[Any]) -> None:
        """Pass labels to LoadGen, which copies what it logs before it returns."""
        at, size = labels.ctypes.data, labels.itemsize
        mlperf_loadgen.QuerySamplesComplete(
            [
                mlperf_loadgen.QuerySampleResponse(sample, at + place * size, size)
                for place, sample in enumerate(batch.ids)
            ]
        )
        with self._lock:
            self._labels.update(zip(batch.indices, labels.tolist(), strict=True))
            self._under_way -= len(batch.ids)
            self._last_ns = time.monotonic_ns()

    def _watch(self) -> None:
        """End the run if the server stops answering; LoadGen would wait forever."""
        while True:
            time.sleep(_WATCH_S)
            with self._lock:
                silent_s = (time.monotonic_ns() - self._last_ns) / 1e9
                waiting = self._under_way
            if waiting and silent_s > self._job.timeout_s:
                text = f"no answer for {silent_s:.0f} s, with {waiting} samples in flight"
                self._fail(DeadlineExceeded("DEADLINE_EXCEEDED", text))

    def _fail(self, error: Exception) -> None:
        """Report the error and end the process, because LoadGen cannot report failures."""
        self._parent.fail(error)
        os._exit(1)


def main() -> int:
    """Take a job from the parent, and report its outcome or the error."""
    parent = Parent()
    job = decoded(next(iter(parent)), Job)
    parent.end_with_it()
    experiment = job.experiment
    takes = ModelInput(job.input_name, np.dtype(experiment.dtype), (experiment.features,))
    try:
        credentials = job.credential_files.read()
        with Client(
            job.address,
            job.model,
            takes=takes,
            credentials=credentials,
            balance=job.balance,
            resolving=Resolving(job.resolve_s),
        ) as client:
            client.wait_until_ready(job.timeout_s)
            outcome = Run(job, client, parent)()
    except (ClientError, OSError, MemoryError) as error:
        parent.fail(error)
        return 1
    parent.say(**encoded(outcome))
    return 0


def _flush() -> None:
    """Do nothing: no queries wait for a larger batch."""


if __name__ == "__main__":
    positionals("measure.loadgen.worker", __doc__)
    sys.exit(main())
