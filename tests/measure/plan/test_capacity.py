from dataclasses import replace
from functools import cache

import pytest
from plan_calibrations import COSTS, LIMITS, MS, calibration

from measure.plan.capacity import Demand, plan
from measure.plan.check import Range
from measure.plan.fit import predict
from server.batching.policy import Limits

FAST = 1e12
REQUESTS = 1500
TRUST = Range(most_per_s=250.0, margin=0.0)


@cache
def made():
    return calibration(fitted=(), held_out=())


@cache
def planned(rate_per_s, p99_ms, link=FAST, trust=TRUST):
    return plan(Demand(rate_per_s, p99_ms * MS, link), made(), COSTS, trust, REQUESTS)


def test_a_rate_that_one_replica_takes_needs_one():
    found = planned(20, 50)
    assert (found.replicas, found.rate_per_s) == (1, 20)
    assert found.chosen.limits == LIMITS
    assert found.binds == "nothing: one replica is enough"


def test_no_replica_gets_more_than_was_checked():
    found = planned(1_000_000, 1000)
    assert (found.replicas, found.rate_per_s) == (4000, 250)
    assert found.binds == "the highest rate at which the prediction was checked"


def test_a_tight_bound_takes_more_replicas_of_less_each():
    found = planned(10_000, 15)
    assert found.replicas > 40
    assert found.rate_per_s == 10_000 / found.replicas
    assert found.chosen.predicted == predict(
        found.chosen.limits, COSTS, 1, found.rate_per_s, REQUESTS
    )
    assert found.p99_ns == found.chosen.predicted.p99_ns
    assert found.binds == "the p99"
    # A tenth more for each would miss it, even with the other ways to batch.
    limits = [option.limits for option in (found.chosen, *found.options)]
    beyond = [predict(one, COSTS, 1, 1.1 * found.rate_per_s, REQUESTS) for one in limits]
    assert all(one.p99_ns > 15 * MS for one in beyond)


def test_the_error_that_was_seen_is_kept_as_a_margin():
    found = planned(10_000, 15, trust=replace(TRUST, margin=0.2))
    assert found.p99_ns == pytest.approx(1.2 * found.chosen.predicted.p99_ns)
    assert found.p99_ns <= 15.5 * MS
    assert found.replicas > planned(10_000, 15).replicas


def test_a_link_may_be_what_binds():
    # A request is 1 MiB: 100 a second are 0.84 Gbit/s.
    found = planned(1_000_000, 1000, link=100 * 8 * 2**20)
    assert (found.replicas, found.rate_per_s) == (10_000, 100)
    assert found.binds == "the network"


def test_a_bound_below_a_lone_request_is_met_by_no_number_of_replicas():
    assert planned(1000, 5) is None


def test_other_batches_are_taken_where_they_carry_more():
    # Every execution costs 20 ms, however many rows it has: who gathers none is lost.
    dear = replace(COSTS, batch_ns=20 * MS, gather_ns=0.0)
    other = replace(made(), limits=Limits.of(2, 1024, 0))
    goal = Demand(1000.0, 80 * MS, FAST)
    found = plan(goal, other, dear, TRUST, REQUESTS)
    assert found.chosen.limits.group_rows == 2
    assert {option.limits.queue_delay_ns for option in found.options} == {0, 1 * MS, 5 * MS}
    assert max(option.limits.group_rows for option in found.options) == 2


def test_a_queue_delay_is_left_away_where_it_gains():
    other = replace(made(), limits=Limits.of(16, 1024, 50 * MS))
    found = plan(Demand(1000.0, 20 * MS, FAST), other, COSTS, TRUST, REQUESTS)
    assert found.chosen.limits.queue_delay_ns == 0
    assert found.chosen.limits.group_rows in (4, 16)
