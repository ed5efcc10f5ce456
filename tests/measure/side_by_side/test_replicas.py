"""Replicas against one server on the same cores, measured for a moment."""

import json

import pytest

from measure.side_by_side import replicas


def test_replicas_are_compared_with_one_server(tmp_path, capsys):
    out = tmp_path / "replicas.json"
    options = ["2", "--replicas", "2", "--threads", "2", "--features", "64", "--seconds", "0.3"]
    assert replicas.main([*options, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "2 replicas with 1 threads each to one server with 2, 12 requests in flight" in said
    assert "0 failed, 0 wrong labels" in said
    content = json.loads(out.read_text())
    assert content["schema"] == replicas.SCHEMA
    assert content["environment"]["cores"]
    assert [(side["servers"], side["threads"]) for side in content["sides"]] == [(1, 2), (2, 1)]
    for side in content["sides"]:
        assert len(side["requests_per_s"]) == len(side["requests_per_core_s"]) == 2
        assert min(*side["requests_per_s"], *side["requests_per_core_s"]) > 0


@pytest.mark.parametrize("words", [["--replicas", "1"], ["--concurrency", "2"]])
def test_loads_that_leave_a_server_idle_are_refused(words, capsys):
    assert replicas.main(["1", *words]) == 2
    assert (
        "expected at least 2 replicas and a request in flight for each" in capsys.readouterr().err
    )
