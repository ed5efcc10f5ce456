import json
import signal

import numpy as np
import pytest

from measure.core.local_server import running_server
from soak import answers, hot_swap
from soak.__main__ import main
from soak.clients import ONCE
from soak.known_answers import SMALL, Questions, put_model
from soak.signals import kills, terminations
from soak.signals.refused_clients import RefusedClients
from soak.tally import Tally


def outcome(part, folder, count, **more):
    tally = Tally(count, 60)
    part(tally, folder, **more)
    tally.close()
    return tally


def test_every_answer_is_right_and_none_is_lost(tmp_path):
    tally = outcome(answers.run, tmp_path, 800, experiment=SMALL, most_rows=4)
    assert (tally.done, tally.failures) == (800, [])
    assert min(tally.facts["unary"], tally.facts["streamed"]) > 0


def test_wrong_answers_are_kept_with_what_came(tmp_path):
    class Wrong(Questions):
        def __getitem__(self, number):
            x, labels = super().__getitem__(number)
            return x, labels if number % 2 else labels + 1

    put_model(tmp_path, SMALL)
    tally = Tally(40, 60)
    with running_server(tmp_path) as server:
        answers.ask(tally, server.address, Wrong(SMALL))
    assert tally.failed == 40 - tally.done > 0
    assert all(", expected [" in failure.came for failure in tally.failures)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_fails_nothing_that_was_accepted(tmp_path, number):
    tally = outcome(terminations.run, tmp_path, 1, number=number)
    assert (tally.done, tally.failures) == (1, [])
    assert tally.facts["requests"] > 0


def test_a_server_that_dies_of_a_signal_fails_its_requests(tmp_path):
    tally = outcome(terminations.run, tmp_path, 1, number=signal.SIGKILL)
    assert (tally.done, tally.failed) == (0, 1)
    assert "exit code: -9" in tally.failures[0].came


def test_clients_that_retry_do_not_see_a_killed_server(tmp_path):
    tally = outcome(kills.run, tmp_path, 1)
    assert (tally.done, tally.failures) == (1, [])
    assert tally.facts["starts"] == 2


def test_clients_that_do_not_retry_see_it(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "PATIENT", ONCE)
    tally = outcome(kills.run, tmp_path, 1)
    assert tally.done == 0
    assert any("UNAVAILABLE" in failure.came for failure in tally.failures)


def test_swaps_are_counted(tmp_path):
    tally = outcome(hot_swap.run, tmp_path, 5)
    assert (tally.done, tally.failures) == (5, [])


def test_a_load_tells_answers_that_are_wrong(tmp_path):
    put_model(tmp_path, SMALL)
    questions = Questions(SMALL)
    questions._labels = questions._labels + 1
    with running_server(tmp_path) as server, RefusedClients(server.address, questions) as load:
        load.wait_until_answered(1, lambda: bool(load.wrong))
    assert load.wrong


def test_a_question_has_the_labels_of_its_rows():
    questions = Questions(SMALL, most_rows=3)
    for number in range(50):
        x, labels = questions[number]
        assert len(x) == len(labels) == 1 + number % 3
        assert labels.dtype == np.int64


def test_the_record_says_how_far_it_came(tmp_path, capsys):
    assert main(["--seconds", "1", "--only", "codec", "--seed", "7", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "soak.json").read_text())
    (part,) = record["parts"]
    assert (record["seed"], part["name"], part["wanted"]) == (7, "codec", 10_000_000)
    assert 0 < part["done"] < part["wanted"]
    assert part["rate_below"] == pytest.approx(3 / part["done"], rel=0.01)
    assert f"{part['done']:,} done, 0 failed" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--seconds", "0"], ["--only", "nothing"]])
def test_a_bad_command_line_is_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert f"got {words[1]!r}, expected" in capsys.readouterr().err
