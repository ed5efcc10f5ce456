"""The results of a load in one interval of time."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from client.errors import RequestFailed
from measure.core.stages import RequestTimes, Stages
from measure.engine.histogram import Histogram

_COUNTS = (
    "latency_sum_ns",
    "latency_square_sum_ns2",
    "rows",
    "due",
    "wrong_labels",
    "near_ties",
    "in_flight_area_ns",
    "left_behind",
    "send_lag_sum_ns",
    "sent",
    "send_ns",
    "decode_ns",
    "received",
    "receive_ns",
    "round_trip_ns",
    "staged",
)
_STAGES = (
    *("receive_ns", "decode_ns", "queue_ns", "assemble_ns", "compute_ns", "handover_ns"),
    "batch_rows",
)


@dataclass(slots=True)
class OfServer:
    """The part of one of several servers: latency, rows and wrong labels of what it answered.

    `errors` counts requests that failed there by code, `resent` those that were sent again because
    it was unavailable or cut the call.
    """

    latency: Histogram = field(default_factory=Histogram)
    rows: int = 0
    wrong_labels: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    resent: int = 0

    def add(self, other: Self) -> None:
        """Merge another interval or process."""
        self.latency.add(other.latency)
        self.rows += other.rows
        self.wrong_labels += other.wrong_labels
        self.errors.update(other.errors)
        self.resent += other.resent


@dataclass(slots=True)
class Slice:
    """Requests that ended between two instants (time.perf_counter_ns).

    `latency` holds those of answered requests, from the intended send time in an open loop and from
    the actual one in a closed loop; `round_trip` counts from the actual one in both. `errors`
    counts failed requests by the gRPC name of their status, `error_latency` holds their times until
    the error, and `error_texts` the first text of each code. `due` is how many should have been
    sent. `send_lag` is the delay between the intended send and the actual one; in a closed loop,
    since the answer that released the request. `in_flight_area_ns` is the number of requests in
    flight, integrated over time. `left_behind` counts requests that were due but had no answer when
    the load ended. `send_ns` is the time until the kernel had the requests, summed over the `sent`
    ones for which that is known; `receive_ns` that from the first byte of answers until they were
    complete, over the `received` ones; `decode_ns` the time to decode answers; and `round_trip_ns`
    the time from send to answer. `stages` are sums over the answers that reported timings, `staged`
    in number, and `stage_answers` in how many of them each stage was. `servers` has the part of
    each server by its address, empty if unknown, where there may be several.
    """

    start_ns: int
    end_ns: int
    latency: Histogram = field(default_factory=Histogram)
    round_trip: Histogram = field(default_factory=Histogram)
    send_lag: Histogram = field(default_factory=Histogram)
    latency_sum_ns: int = 0
    latency_square_sum_ns2: int = 0
    rows: int = 0
    due: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    error_latency: dict[str, Histogram] = field(default_factory=dict)
    error_texts: dict[str, str] = field(default_factory=dict)
    wrong_labels: int = 0
    near_ties: int = 0
    in_flight_area_ns: int = 0
    left_behind: int = 0
    send_lag_sum_ns: int = 0
    sent: int = 0
    send_ns: int = 0
    decode_ns: int = 0
    received: int = 0
    receive_ns: int = 0
    round_trip_ns: int = 0
    staged: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    stage_answers: Counter[str] = field(default_factory=Counter)
    providers: set[str] = field(default_factory=set)
    servers: dict[str, OfServer] = field(default_factory=dict)

    @property
    def elapsed_ns(self) -> int:
        """Length of the interval."""
        return self.end_ns - self.start_ns

    @property
    def answered(self) -> int:
        """Number of requests answered without error."""
        return self.latency.samples

    @property
    def rate_per_s(self) -> float:
        """Answered requests per second."""
        return self.answered * 1e9 / self.elapsed_ns

    @property
    def mean_latency_ns(self) -> float | None:
        """Mean latency of the answered requests; None if there are none."""
        return self.latency_sum_ns / self.answered if self.answered else None

    @property
    def latency_sd_ns(self) -> float | None:
        """Standard deviation of the answered requests' latencies; None for fewer than two."""
        n = self.answered
        if n < 2:
            return None
        return math.sqrt((n * self.latency_square_sum_ns2 - self.latency_sum_ns**2) / (n * (n - 1)))

    @property
    def mean_round_trip_ns(self) -> float | None:
        """Mean time from send to answer of the answered requests; None if there are none."""
        return self.round_trip_ns / self.answered if self.answered else None

    @property
    def mean_send_lag_ns(self) -> float:
        """Mean send lag; 0 if nothing was sent."""
        return self.send_lag_sum_ns / max(self.send_lag.samples, 1)

    def answer(self, latency_ns: int, round_trip_ns: int, rows: int) -> None:
        """Count an answer."""
        self.round_trip.record(round_trip_ns)
        self.round_trip_ns += round_trip_ns
        self.latency.record(latency_ns)
        self.latency_sum_ns += latency_ns
        self.latency_square_sum_ns2 += latency_ns**2
        self.rows += rows

    def fail(self, error: RequestFailed, latency_ns: int) -> None:
        """Count a failed request; its latency is measured like an answer's."""
        self.errors[error.code] += 1
        self.error_latency.setdefault(error.code, Histogram()).record(latency_ns)
        self.error_texts.setdefault(error.code, error.text)

    def send(self, lag_ns: int) -> None:
        """Count a sent request and its send lag."""
        self.send_lag.record(lag_ns)
        self.send_lag_sum_ns += lag_ns

    def client_times(self, send_ns: int | None, receive_ns: int | None) -> None:
        """Add the client's own times of an answered request, as far as they are known."""
        if send_ns is not None:
            self.sent += 1
            self.send_ns += send_ns
        if receive_ns is not None:
            self.received += 1
            self.receive_ns += receive_ns

    def of_server(self, server: str) -> OfServer:
        """The part of a server."""
        return self.servers.setdefault(server, OfServer())

    def lost(self, times: RequestTimes) -> OfServer:
        """Count the vain attempts of a request; the part of the server where it ended."""
        for server in times.call.lost:
            self.of_server(server).resent += 1
        return self.of_server(times.call.server)

    def split(self, stages: Stages) -> None:
        """Add the stage timings of an answer."""
        self.staged += 1
        for name in _STAGES:
            value = getattr(stages, name)
            if value is not None:
                self.stages[name] += value
                self.stage_answers[name] += 1
        self.providers.add(stages.execution_provider)

    def add(self, other: Self) -> None:
        """Merge another process's slice of the same interval, or the next slice."""
        self.start_ns = min(self.start_ns, other.start_ns)
        self.end_ns = max(self.end_ns, other.end_ns)
        self.latency.add(other.latency)
        self.round_trip.add(other.round_trip)
        self.send_lag.add(other.send_lag)
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors.update(other.errors)
        for code, histogram in other.error_latency.items():
            self.error_latency.setdefault(code, Histogram()).add(histogram)
        self.error_texts = {**other.error_texts, **self.error_texts}
        self.stages.update(other.stages)
        self.stage_answers.update(other.stage_answers)
        self.providers |= other.providers
        for server, part in other.servers.items():
            self.of_server(server).add(part)
