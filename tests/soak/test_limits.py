"""A handful of what the soak does two hundred times."""

from soak.signals import limits
from soak.tally import Tally


def test_servers_with_any_limit_end_in_time_whenever_they_are_stopped(tmp_path):
    tally = Tally(6, 300.0, seed=3)
    limits.run(tally, tmp_path)
    assert (tally.done, tally.failed, tally.failures) == (6, 0, [])


def test_a_server_that_does_not_end_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_PATIENCE_S", 1.0)
    tally = Tally(1, 300.0)
    tally.facts |= {"longest_end_s": 0.0, "exit_codes": {}}
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    limits._end_one(tally, "ignores", ["RLIMIT_CORE", "0", "-c", program], 5.0)
    assert tally.failed == 1
