from dataclasses import replace

import pytest
from plan_calibrations import CAPACITY_PER_S, COSTS, LIMITS, MS, alone, calibration, loaded

from client.errors import UsageError
from measure.core.record import RecordError, decoded, encoded
from measure.plan.calibration import sizes
from measure.plan.check import check
from measure.plan.fit import executions, fit_costs, predict
from measure.plan.observed import Calibration
from measure.plan.table import error_text

# Of each pass: enough here, as what is fitted was simulated by the same code.
REQUESTS = 800


@pytest.fixture(scope="module", autouse=True)
def _short_search():
    """Look for the costs a third as long as a plan does: these loads have no noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("measure.plan.fit._TRIES", 40)
        yield


@pytest.fixture(scope="module")
def fitted():
    loads = tuple(loaded(share * CAPACITY_PER_S) for share in (0.5, 0.8))
    return fit_costs(calibration(fitted=loads), REQUESTS)


def test_what_lone_requests_show_is_taken_as_it_is(fitted):
    line = executions(calibration())
    assert line.alpha_ns == pytest.approx(COSTS.batch_ns)
    assert line.beta_ns == pytest.approx(COSTS.row_ns)
    assert fitted.batch_ns == line.alpha_ns
    assert fitted.row_ns == line.beta_ns
    assert fitted.gather_ns == pytest.approx(COSTS.gather_ns, rel=0.01)
    elsewhere_ns = COSTS.receive_ns + COSTS.answer_ns
    assert elsewhere_ns <= fitted.receive_ns + fitted.answer_ns < 1.3 * elsewhere_ns


def test_the_costs_of_a_simulated_server_predict_loads_they_were_not_fitted_to(fitted):
    errors = [one.p99_error for one in check(calibration(), fitted)]
    assert len(errors) == 3
    assert max(map(abs, errors)) < 0.2


@pytest.mark.slow
def test_cores_of_their_own_are_told_from_shared_ones(fitted):
    apart = replace(COSTS, receive_speed=1.0, execute_speed=1.0)
    found = fit_costs(calibration(apart, fitted=(loaded(300.0, apart),)), REQUESTS)
    assert found.receive_speed + found.execute_speed > 1.6
    assert fitted.receive_speed + fitted.execute_speed < 1.4


@pytest.mark.slow
def test_executions_that_slow_down_do_not_make_gathering_dear():
    load = loaded(300.0)
    slowed = replace(load, compute_ns=2 * load.compute_ns, assemble_ns=2 * load.assemble_ns)
    found = fit_costs(calibration(fitted=(slowed,)), REQUESTS)
    assert found.gather_ns == pytest.approx(COSTS.gather_ns, rel=0.01)


def test_a_server_that_takes_one_row_at_once_has_no_slope():
    line = executions(calibration(sizes=(alone(1),)))
    assert (line.alpha_ns, line.beta_ns) == (COSTS.execute_ns(1, 1), 0.0)


def test_a_line_through_the_only_two_sizes_tells_no_error():
    line = executions(calibration(sizes=(alone(1), alone(2))))
    assert line.latency_ns(2) == pytest.approx(COSTS.execute_ns(2, 1))
    assert error_text(line) == "too few batch sizes for an error"
    assert error_text(executions(calibration())) == "worst error 0%"


@pytest.mark.parametrize(
    ("rows", "group_rows", "measured"),
    [(1, 1, [1]), (1, 2, [1, 2]), (3, 1, [1, 2, 3]), (64, 1, [1, 32, 64]), (1, 8, [1, 2, 4, 8])],
)
def test_three_sizes_are_measured_where_requests_have_so_many_rows(rows, group_rows, measured):
    assert sizes(rows, group_rows, row_bytes=4) == measured


def test_a_rate_that_is_higher_takes_longer():
    p99 = [predict(LIMITS, COSTS, 1, rate, requests=4000).p99_ns for rate in (50, 200, 320)]
    assert p99[0] < p99[1] < p99[2]
    assert p99[0] > COSTS.execute_ns(1, 1) + 2 * MS


@pytest.mark.parametrize(
    "changes", [{"fitted": ()}, {"fitted": (replace(loaded(100.0), errors=1),)}, {"rows": 3}]
)
def test_nothing_to_fit_is_refused(changes):
    with pytest.raises(UsageError, match="rows to fit"):
        fit_costs(calibration(**changes))


def test_too_few_lone_requests_are_refused():
    few = replace(alone(1), p90_ns=None, samples=40)
    with pytest.raises(UsageError, match="40 single requests are too few"):
        fit_costs(calibration(sizes=(few, alone(2))))


def test_a_calibration_survives_json():
    made = calibration(held_out=(replace(loaded(100.0), doubts=("steal: 3%",)),))
    assert decoded(encoded(made), Calibration) == made


@pytest.mark.parametrize("broken", [{}, {"limits": {"rows": 1}}, {"busy": {"rows": 1}}])
def test_something_else_is_no_calibration(broken):
    content = encoded(calibration()) | broken if broken else {}
    with pytest.raises(RecordError, match="lacks"):
        decoded(content, Calibration)
