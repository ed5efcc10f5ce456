import io
import re
from dataclasses import replace

import pytest
import report_records
from rich.console import Console

from measure.core.record import read
from measure.engine.bisection import Found
from measure.engine.slice import Slice
from measure.engine.windows import Window
from measure.load import record as load_record
from measure.load.settings import Progress
from measure.load.summary import Asked, summarise
from measure.load.table import render
from measure.load.terminal import LoadProgress
from measure.slo.table import answer

SECOND_NS = 10**9
CLOSED = Asked("closed", "unary", 1, 1, concurrency=4)
OPEN = Asked("open", "unary", 1, 1, rate_per_s=100.0, arrivals="poisson")


def point(asked, *, errors=0):
    """Three seconds of 100 requests of 40 ms each: four of them under way."""
    windows = []
    for start_s in range(3):
        one = Slice(start_s * SECOND_NS, (start_s + 1) * SECOND_NS, due=100)
        for _ in range(100):
            one.answer(40_000_000, 40_000_000, 1)
            one.send(1_000)
        one.in_flight_area_ns = 4 * SECOND_NS
        windows.append(one)
    last = Slice(3 * SECOND_NS, 3 * SECOND_NS)
    last.errors["UNAVAILABLE"] = errors
    return summarise(asked, windows, last, labels_known=False, steal=None)


def printed(*parts):
    file = io.StringIO()
    console = Console(file=file, width=120)
    for part in parts:
        console.print(part)
    return " ".join(file.getvalue().split())


def test_a_loop_is_called_what_it_is():
    closed = printed(*render([point(CLOSED)], None))
    assert "closed 4" in closed
    assert "closed loop: each request waits for the previous answer" in closed
    assert "open loop" not in closed
    opened = printed(*render([point(OPEN)], None))
    assert "open 100/s" in opened
    assert "open loop: requests are sent on schedule" in opened
    assert "closed loop" not in opened


def test_the_clients_own_part_is_shown_beside_the_latency_from_the_send():
    windows = [Slice(s * SECOND_NS, (s + 1) * SECOND_NS, due=100) for s in range(3)]
    for one in windows:
        for _ in range(100):
            one.answer(40_000_000, 38_000_000, 1)
            one.send(2_000_000)
    late = summarise(OPEN, windows, Slice(0, 0), labels_known=False, steal=None)
    text = printed(*render([late], None))
    assert "unary open 100/s 2.00 5.0% 40.0 38.0 38.0 -" in text
    assert "from send: latency as ghz counts it" in text
    # A record made before this was kept is shown without.
    assert "ghz" not in printed(*render([replace(late, from_send_ns=None)], None))


def test_a_record_made_before_the_clients_part_was_kept_is_read():
    content = load_record.to_json({}, {}, [point(CLOSED)], None)
    assert read(content, load_record.LoadRecord).points == [point(CLOSED)]
    (one,) = content["points"]
    del one["from_send_ns"], one["client_share"]
    for window in one["windows"]:
        del window["answered"], window["latency_sd_ns"]
    (found,) = read(content, load_record.LoadRecord).points
    assert (found.from_send_ns, found.client_share) == (None, None)
    assert found.latency_ns == point(CLOSED).latency_ns


def test_a_record_made_before_receiving_was_timed_is_read_and_shown_without():
    content = report_records.load()
    now = read(content, load_record.LoadRecord).points
    assert "reports no time for receiving" not in printed(*render(now, None))
    for one in content["points"]:
        for name in ("server_receive_ns", "handover_ns", "server_send_ns", "answer_receive_ns"):
            assert one["split"].pop(name) > 0
    points = read(content, load_record.LoadRecord).points
    split = points[0].split
    assert (split.server_receive_ns, split.handover_ns) == (None, None)
    assert (split.server_send_ns, split.answer_receive_ns) == (None, None)
    text = printed(*render(points, None))
    assert "the server reports no time for receiving messages" in text
    # Dashes, not zeros: server receive, then handover, server send, answer receive.
    assert re.search(r"unary open 100/s 0\.00100 0\.500 - [\d.]+ ", text)


def test_failed_checks_come_first():
    text = printed(*render([point(CLOSED, errors=3)], "nobody knows them"))
    assert text.startswith("not valid: unary, closed 4: errors: 3 failed requests")
    assert "3 UNAVAILABLE" in text
    assert " NO " in text
    assert "labels are unchecked: nobody knows them" in text


def test_a_percentile_without_enough_samples_is_a_dash():
    # 300 samples tell p90, but not p99.
    assert "40.0 40.0 - - 40.0 300" in printed(*render([point(CLOSED)], None))


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_shown_with_and_without_a_terminal(terminal):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    with LoadProgress(console) as progress:
        progress(Progress("starting the server"))
        progress(Progress("unary, closed loop", window=Window(120.0, 8e6, 2, 120.0)))
        progress(Progress("unary, closed loop", point=point(CLOSED, errors=1)))
    text = file.getvalue()
    assert "unary, closed 4" in text
    assert "1 errors  not valid" in text
    if terminal:
        assert "120 requests/s  mean 8.00 ms  2 errors" in text
    else:
        assert text.splitlines()[0] == "starting the server"
        assert len(text.splitlines()) == 2
        assert "\x1b" not in text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Found(100.0, 105.0), "100 requests/s; 105 miss it"),
        (Found(100.0, None), "100 requests/s, the most that was tried"),
        (Found(None, 3.0), "no rate met it, down to 3.00 requests/s"),
        (Found(100.0, None, 200.0), "inconclusive at 200 requests/s; 100 requests/s meet it"),
        (Found(None, None, 20.0), "inconclusive at 20.0 requests/s; no rate was seen to meet it"),
    ],
)
def test_the_answer_of_slo_says_what_is_known(found, text):
    assert answer(found, 50) == f"p99 <= 50 ms: {text}"
