"""The I/O thread: timers, calls from other threads, its end."""

import functools
import threading
import time

from conftest import wait_until

from transport.loop import Loop

PATIENCE_S = 20


def test_timers_run_in_their_order_unless_they_are_cancelled():
    loop = Loop("test")
    ran, done = [], threading.Event()
    now_s = time.monotonic()
    loop.call_at(now_s + 0.05, done.set)
    for delay in (0.03, 0.01, 0.02):
        loop.call_at(now_s + delay, lambda delay=delay: ran.append(delay))
    loop.call_at(now_s + 0.015, lambda: ran.append("cancelled")).cancel()
    assert done.wait(PATIENCE_S)
    loop.stop()
    assert ran == [0.01, 0.02, 0.03]


def test_a_timer_of_years_does_not_end_the_thread():
    loop = Loop("test")
    loop.call_later(1e10, lambda: None)
    for _ in range(2):
        # Once it sleeps, and once it was woken.
        turned = threading.Event()
        loop.call_soon(turned.set)
        assert turned.wait(PATIENCE_S)
        wait_until(lambda: loop._asleep, "it sleeps")
    loop.stop()


def test_cancelled_timers_do_not_pile_up():
    loop = Loop("test")
    kept = loop.call_later(3600, lambda: None)
    for _ in range(20):
        for _ in range(1_000):
            loop.call_later(3600, lambda: None).cancel()
        turned = threading.Event()
        loop.call_soon(turned.set)
        assert turned.wait(PATIENCE_S)
    assert len(loop._timers) < 5_000
    assert any(each[2] is kept for each in loop._timers)
    loop.stop()


def test_what_was_asked_for_before_the_end_is_done():
    for _ in range(20):
        loop = Loop("test")
        ran = []
        for number in range(10):
            loop.call_soon(functools.partial(ran.append, number))
        loop.stop()
        assert ran == list(range(10))


def test_a_call_that_fails_does_not_end_the_thread(caplog):
    loop = Loop("test")
    done = threading.Event()
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(done.set)
    assert done.wait(PATIENCE_S)
    loop.stop()
    assert "a call failed" in caplog.text
