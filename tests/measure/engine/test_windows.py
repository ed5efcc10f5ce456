import re

import numpy as np
import pytest

from measure.engine.slice import Slice
from measure.engine.windows import STABLE_WINDOWS, Window, is_stable, stability, window_of

SECOND_NS, MS = 10**9, 10**6


def windows_of(durations_ns, concurrency, window_ns, count=STABLE_WINDOWS):
    """Windows of a closed loop that begins each request when the one before took its time.

    `durations_ns(now_ns)` gives the next request's. The loop runs for a window before they begin.
    """
    found = [Slice(n * window_ns, (n + 1) * window_ns) for n in range(count + 1)]
    for slot in range(concurrency):
        now_ns = slot * window_ns // (7 * concurrency)
        while (now_ns := now_ns + (took_ns := int(durations_ns(now_ns)))) < found[-1].end_ns:
            found[now_ns // window_ns].answer(took_ns, took_ns, 1)
    return [window_of(one) for one in found[1:]]


def chance(seed, mean_ms, spread):
    """Durations of one server that never changes."""
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(np.log(1 + spread**2))
    return lambda now_ns: rng.lognormal(np.log(mean_ms * MS) - sigma**2 / 2, sigma)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("spread", [0.05, 0.3, 0.6])
def test_a_closed_loop_that_differs_by_chance_alone_is_not_called_unstable(concurrency, spread):
    verdicts = []
    for seed in range(20):
        drawn = windows_of(chance(seed, 5, spread), concurrency, SECOND_NS // 5)
        verdicts.append(stability(drawn, "closed")[0])
    assert verdicts.count(False) <= 1
    # A steady server's windows agree, though they are short.
    assert spread > 0.05 or set(verdicts) == {True}


def test_windows_of_few_requests_say_how_many_it_takes():
    verdict, text = stability(windows_of(chance(3, 50, 0.6), 1, SECOND_NS // 2), "closed")
    assert verdict is None
    requests = int(re.search(r"--window-requests (\d+)$", text)[1])
    # With so many, chance keeps within what is called stable.
    seconds = requests * 50 * MS
    drawn = [windows_of(chance(seed, 50, 0.6), 1, seconds) for seed in range(30)]
    assert sum(is_stable(one, "closed") for one in drawn) >= 24


@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_server_that_slows_down_is_unstable(concurrency):
    steady = chance(0, 5, 0.3)
    slows = windows_of(
        lambda now_ns: steady(now_ns) * (1 + 2 * now_ns / SECOND_NS), concurrency, SECOND_NS
    )
    assert stability(slows, "closed")[0] is False


def test_a_stall_in_a_window_is_no_chance():
    steady = chance(0, 5, 0.3)
    stalled = []

    def once(now_ns):
        if now_ns > 3 * SECOND_NS and not stalled:
            stalled.append(now_ns)
            return SECOND_NS // 2
        return steady(now_ns)

    assert stability(windows_of(once, 1, SECOND_NS), "closed")[0] is False
    assert stalled


def test_a_server_that_stops_answering_is_unstable():
    steady = chance(0, 5, 0.3)
    hangs = windows_of(
        lambda now_ns: steady(now_ns) if now_ns < 2 * SECOND_NS else 10 * SECOND_NS, 4, SECOND_NS
    )
    assert hangs[-1].answered == 0
    assert stability(hangs, "closed")[0] is False


def test_a_record_without_spreads_is_judged_as_it_was():
    unlike = [Window(rate, 10.0, 0, 100.0) for rate in (100.0, 100.0, 130.0)]
    assert stability(unlike, "closed")[0] is False


def test_fewer_than_three_windows_are_not_stable():
    assert stability(windows_of(chance(0, 5, 0.05), 1, SECOND_NS, 2), "closed")[0] is False
