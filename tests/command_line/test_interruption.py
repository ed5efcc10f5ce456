import os
import signal
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import psutil
import pytest

from command_line.interruption import (
    Interrupted,
    holding_signals,
    interruptible,
    keeping,
    results_folder,
)
from measure.core.processes import child

PATIENCE_S = 20


def interrupted(number=signal.SIGINT):
    signal.raise_signal(number)
    pytest.fail("the signal did not end the block")


@pytest.fixture
def heeded():
    """Let a signal have its default handler, which nohup takes from SIGHUP."""
    handlers = {}

    def heed(number):
        if signal.getsignal(number) is signal.SIG_IGN:
            handlers[number] = signal.signal(number, signal.SIG_DFL)

    yield heed
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_what_is_measured_and_the_rest_goes_on(name, code, heeded):
    heeded(signal.Signals[name])
    points = []
    with interruptible():
        with keeping() as kept:
            points.append(1)
            interrupted(signal.Signals[name])
        marks = kept.because(len(points), "1 of 2 points")
        with pytest.raises(Interrupted) as ended:
            kept.end("results")
    because = f"interrupted by {name} after 1 of 2 points"
    assert marks == {"partial": True, "partial_because": because}
    assert ended.value.exit_code == code
    assert str(ended.value) == f"{because}: partial results are in results"


def test_what_comes_to_its_end_is_not_partial():
    with interruptible(), keeping() as kept:
        pass
    assert kept.because(3, "3 points") == {}
    kept.end("results")


def test_nothing_measured_is_nothing_to_write():
    with interruptible():
        with keeping() as kept:
            interrupted()
        with pytest.raises(Interrupted, match="nothing was measured, so nothing is written"):
            kept.because(0, "0 of 2 points")


def test_the_handlers_before_are_back_afterwards():
    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


def test_a_signal_that_is_ignored_stays_so():
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, handler)


class Signalled:
    """Takes the signal where Python ignores exceptions."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        # Handlers run between two instructions.
        for _ in range(10):
            pass


def test_a_signal_that_comes_in_a_destructor_is_not_lost():
    def wait():
        Signalled()
        threading.Event().wait(60)

    with interruptible(), pytest.raises(Interrupted):
        wait()


def test_other_exceptions_that_are_ignored_are_told_as_before():
    class Broken:
        def __del__(self):
            raise ValueError("broken")

    told = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda ignored: told.append(ignored.exc_type)
    try:
        with interruptible():
            Broken()
    finally:
        sys.unraisablehook = hook
    assert told == [ValueError]


def interrupt_in(folder, *files):
    def measure():
        with results_folder(folder):
            for name in files:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text("")
            interrupted()

    with interruptible(), pytest.raises(Interrupted):
        measure()


def test_a_new_folder_without_a_record_goes_again(tmp_path):
    interrupt_in(tmp_path / "new", "models/model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_record_stays(tmp_path):
    interrupt_in(tmp_path / "new", "sweep.json", "models/model.onnx")
    assert (tmp_path / "new" / "sweep.json").exists()


def test_a_folder_that_was_there_stays(tmp_path):
    interrupt_in(tmp_path, "models/model.onnx")
    assert (tmp_path / "models" / "model.onnx").exists()


def test_ctrl_c_does_not_reach_children():
    with child([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        # A terminal sends it to the group of what runs in front.
        assert os.getpgid(process.pid) != os.getpgrp()
        # Priorities hold among processes of one session.
        assert os.getsid(process.pid) == os.getsid(0)


def test_a_process_ends_with_its_block_and_takes_along_what_it_started():
    code = "import subprocess; s = subprocess.Popen(['sleep', '600']); print(s.pid, flush=True)"
    with child([sys.executable, "-c", f"{code}; s.wait()"], stdout=subprocess.PIPE) as process:
        started = psutil.Process(int(process.stdout.readline()))
    assert process.returncode == -signal.SIGTERM
    _, left = psutil.wait_procs([started], timeout=60)
    assert left == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_of_children_comes_after_it(number):
    started = []

    def start():
        with holding_signals():
            signal.raise_signal(number)
            started.append(True)
        threading.Event().wait(60)

    with interruptible(), pytest.raises(Interrupted):
        start()
    assert started


def wait_for_a_signal():
    threading.Event().wait(PATIENCE_S)
    pytest.fail("the signal did not end the wait")


def test_a_signal_while_a_lock_is_taken_comes_once_it_is_safe(heeded):
    heeded(signal.SIGINT)
    condition = threading.Condition()
    # The innermost frame of Python is then that of Condition.__enter__, which has just taken it.
    condition._lock = SimpleNamespace(__enter__=partial(signal.raise_signal, signal.SIGINT))
    taken = []

    def take_and_wait():
        for _ in range(20):
            condition.__enter__()
            taken.append(True)
        wait_for_a_signal()

    with pytest.raises(Interrupted), interruptible():
        take_and_wait()
    assert len(taken) == 20


def test_a_signal_ends_code_that_waits_in_a_library(heeded):
    heeded(signal.SIGINT)

    def wait():
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        wait_for_a_signal()

    with pytest.raises(Interrupted), interruptible():
        wait()
