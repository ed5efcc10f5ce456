import itertools

import numpy as np
import pytest

from measure.engine.arrivals import due_times_ns
from measure.plan.simulation import Costs, simulate
from server.batching.policy import CloseReason, Limits

MS = 1_000_000
ALONE = Limits(group_rows=1, slice_rows=1)
GROUPS = Limits(group_rows=4, slice_rows=8)


def costs(receive=0.0, answer=0.0, batch=10.0, row=1.0, **more):
    """Costs of milliseconds."""
    return Costs(receive * MS, answer * MS, batch * MS, row * MS, **more)


def run(limits, spent, *due_ms, rows=1):
    """Latencies in milliseconds, rows of the batches, why they closed."""
    seen = simulate(limits, spent, rows, [int(due * MS) for due in due_ms])
    return [ns / MS for ns in seen.latencies_ns], seen.batch_rows, seen.closed


# Against queueing theory.


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_one_at_a_time_waits_as_long_as_an_m_d_1_queue(utilisation):
    service_ns = 1 * MS
    latencies_ns = []
    # Near capacity the mean of so many arrivals still varies by a twentieth.
    for seed in range(1 if utilisation < 0.7 else 3):
        due_ns = itertools.islice(due_times_ns("poisson", utilisation * 1000, seed), 40_000)
        latencies_ns += simulate(ALONE, Costs(0, 0, service_ns, 0), 1, due_ns).latencies_ns
    waited_ns = np.mean(latencies_ns) - service_ns
    # Pollaczek and Khinchine's mean for a service time without variance.
    assert waited_ns == pytest.approx(utilisation * service_ns / (2 * (1 - utilisation)), rel=0.05)


def test_receiving_and_executing_in_turn_are_two_queues_in_a_row():
    # What leaves the first every 2 ms at most never waits at the second, which takes 1 ms.
    due_ns = list(itertools.islice(due_times_ns("poisson", 300, seed=5), 20_000))
    seen = simulate(ALONE, costs(receive=2, batch=1, row=0), 1, due_ns)
    waited_ms = np.mean(seen.latencies_ns) / MS - 3
    assert waited_ms == pytest.approx(0.6 * 2 / (2 * (1 - 0.6)), rel=0.05)


def test_a_spread_keeps_the_mean():
    due_ns = [i * 100 * MS for i in range(10_000)]
    seen = simulate(ALONE, costs(receive=2, answer=3, spread=0.5), 1, due_ns)
    assert np.mean(seen.latencies_ns) / MS == pytest.approx(16, rel=0.01)
    assert np.std(seen.latencies_ns) > 1 * MS


def test_a_spread_of_delays_takes_nothing_of_the_server():
    due_ns = list(itertools.islice(due_times_ns("poisson", 80, seed=3), 10_000))
    plain = simulate(ALONE, costs(receive=2, answer=3), 1, due_ns)
    spread = simulate(ALONE, costs(receive=2, answer=3, answer_spread=0.9), 1, due_ns)
    assert spread.batch_rows == plain.batch_rows
    more_ns = np.subtract(spread.latencies_ns, plain.latencies_ns)
    assert np.mean(more_ns) / MS == pytest.approx(0, abs=0.1)
    assert np.std(more_ns) / MS == pytest.approx(3 * (np.exp(0.9**2) - 1) ** 0.5, rel=0.1)


# Batches, by hand.


def test_a_lone_request_takes_the_sum_of_its_costs():
    assert run(GROUPS, costs(receive=2, answer=3), 5) == ([16], [1], [CloseReason.IDLE])


def test_what_comes_during_an_execution_shares_the_next():
    latencies, rows, closed = run(GROUPS, costs(), 0, 1, 2)
    assert rows == [1, 2]
    assert closed == [CloseReason.IDLE, CloseReason.IDLE]
    # 0 to 11; then 11 to 23 for both.
    assert latencies == [11, 22, 21]


def test_a_group_holds_no_more_rows_than_it_may():
    _, rows, closed = run(GROUPS, costs(), *range(10))
    assert rows == [1, 4, 4, 1]
    assert closed[1:3] == [CloseReason.FULL, CloseReason.FULL]


def test_requests_that_do_not_fit_are_split():
    _, rows, _ = run(GROUPS, costs(), 0, 1, 2, rows=3)
    # Three, then four: one whole and the first row of the other; then what is left of it.
    assert rows == [3, 4, 2]


def test_a_large_request_runs_in_slices():
    _, rows, closed = run(GROUPS, costs(), 0, rows=20)
    assert rows == [8, 8, 4]
    assert closed == [CloseReason.FULL] * 3


def test_a_queue_delay_gathers_what_comes_within():
    limits = Limits(group_rows=4, slice_rows=8, queue_delay_ns=5 * MS)
    latencies, rows, closed = run(limits, costs(), 0, 4, 6)
    assert rows == [2, 1]
    assert closed == [CloseReason.DELAY, CloseReason.DELAY]
    # The first waits 5 ms; the third came at 6 and goes once the worker is free, at 17.
    assert latencies == [17, 13, 22]


def test_a_full_group_waits_for_no_delay():
    limits = Limits(group_rows=2, slice_rows=8, queue_delay_ns=50 * MS)
    latencies, rows, closed = run(limits, costs(), 0, 1)
    assert (latencies, rows, closed) == ([13, 12], [2], [CloseReason.FULL])


def test_rows_of_several_requests_are_gathered():
    latencies, rows, _ = run(GROUPS, costs(gather_ns=2 * MS), 0, 1, 2)
    assert rows == [1, 2]
    assert latencies == [11, 26, 25]


# Two things at once.


def test_requests_are_received_one_after_the_other():
    limits = Limits(group_rows=1, slice_rows=1)
    latencies, _, _ = run(limits, costs(receive=4, batch=1, row=0), 0, 0)
    assert latencies == [5, 9]


def test_receiving_and_executing_slow_each_other_down():
    spent = costs(receive=4, batch=8, row=0, receive_speed=0.5, execute_speed=0.25)
    latencies, rows, _ = run(GROUPS, spent, 0, 4)
    assert rows == [1, 1]
    # Received at 4. From 4 to 12 the second is received, at half speed, and the first gets 2 of
    # its 8 ms done; it ends at 18. The second then runs alone, until 26.
    assert latencies == [18, 22]


def test_the_same_seed_gives_the_same_latencies():
    due_ns = list(itertools.islice(due_times_ns("poisson", 50, seed=1), 200))
    spent = costs(receive=2, answer=3, spread=0.3)
    first, again, other = (simulate(GROUPS, spent, 1, due_ns, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.latencies_ns != other.latencies_ns
