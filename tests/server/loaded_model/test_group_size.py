"""Which times win is decided by numbers; what can be measured, by real graphs."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import Graphs
from onnx import helper

from command_line.resources import cores
from server.loaded_model.group_size import best_group_rows, group_size
from server.onnx.engine import Engine


def linear(graphs, name, features, dtype="float32", shape=None, classes=3, threads=1):
    weights = np.ones((features, classes), dtype)
    path = graphs.add(
        name,
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        {"x": (dtype, shape or ["n", features])},
        {"y": (dtype, [*(shape or ["n"])[:1], classes])},
        {"W": weights},
    )
    return Engine(path, threads)


@pytest.mark.parametrize(
    ("row_ns", "rows"),
    [
        ({16: 10.0, 32: 9.0, 64: 8.0}, 64),
        ({16: 10.0, 32: 8.0, 64: 11.9}, 64),  # no clear evidence: the largest
        ({16: 10.0, 32: 8.0, 64: 12.1}, 32),
        ({16: 8.0, 32: 12.1, 64: 12.1}, 16),
        ({16: 3.0}, 16),
    ],
)
def test_the_largest_that_none_clearly_beats_is_chosen(row_ns, rows):
    assert best_group_rows(row_ns) == rows


# Bursts of work with pauses between them, so that some executions meet it and others do not.
NOISE = """
import random, time
import numpy as np
a = np.ones((500, 500))
while True:
    until = time.monotonic() + random.random() / 20
    while time.monotonic() < until:
        a @ a
    print(flush=True)
    time.sleep(random.random() / 30)
"""


@pytest.fixture
def noise():
    """Other programs that keep the machine busy, one a core."""
    others = [
        subprocess.Popen([sys.executable, "-c", NOISE], stdout=subprocess.PIPE)
        for _ in range(cores())
    ]
    try:
        for other in others:
            other.stdout.readline()
        yield
    finally:
        for other in others:
            with other:
                other.kill()


@pytest.mark.parametrize("starts", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_starts_on_a_noisy_machine_choose_one_size(graphs, noise, starts):
    for features in (1000, 20_000):
        name = f"noisy_{features}_{starts}"
        engine = linear(graphs, name, features, classes=64, threads=cores())
        assert {group_size(engine, 1024).rows for _ in range(starts)} == {64}


def test_a_model_that_larger_groups_are_clearly_worse_for_gets_a_small_one(graphs):
    # A row is held against all others of its batch, so it costs the more the more they are.
    path = graphs.add(
        "crowded",
        [
            helper.make_node("Unsqueeze", ["x", "one"], ["rows"]),
            helper.make_node("Unsqueeze", ["x", "zero"], ["others"]),
            helper.make_node("Mul", ["rows", "others"], ["pairs"]),
            helper.make_node("Exp", ["pairs"], ["far"]),
            helper.make_node("ReduceSum", ["far", "both"], ["y"], keepdims=0),
        ],
        {"x": ("float32", ["n", 500])},
        {"y": ("float32", ["n"])},
        {"zero": np.array([0]), "one": np.array([1]), "both": np.array([1, 2])},
    )
    chosen = group_size(Engine(path, 1), 1024)
    assert chosen.rows < 64
    assert chosen.reason.startswith("more cost clearly more a row: a row takes ")


def test_no_more_rows_than_a_request_may_hold(graphs):
    engine = linear(graphs, "small", 10)
    assert group_size(engine, 16).rows == 16
    assert group_size(engine, 5).rows == 5


def test_no_more_rows_than_fit_into_the_buffer(graphs, monkeypatch):
    # 64 KiB a row: 32 of them are 2 MiB.
    monkeypatch.setattr("server.loaded_model.group_size._MOST_BYTES", 2 * 2**20)
    assert group_size(linear(graphs, "wide", 2**13, "float64"), 1024).rows in (16, 32)
    assert group_size(linear(graphs, "wider", 2**19, classes=1), 1024).rows == 1


def test_models_that_cannot_be_measured_get_the_default(graphs):
    texts = graphs.add(
        "texts",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": ("string", ["n", 2])},
        {"y": ("string", ["n", 2])},
    )
    free = graphs.add(
        "free",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": ("float32", ["n", "m"])},
        {"y": ("float32", ["n", "m"])},
    )
    # Element 1 of a table with one element: ones are refused when the graph is run.
    picky = graphs.add(
        "picky",
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        {"x": ("int64", ["n", 1])},
        {"y": ("float32", ["n", 1])},
        {"table": np.zeros(1, np.float32)},
    )
    for path in (texts, free, picky):
        assert group_size(Engine(path, 1), 1024).rows == 32


@pytest.mark.parametrize(
    ("validation", "options", "rows", "reason"),
    [
        (True, (), 64, "the most that fit: a row takes "),
        (False, ("--group-rows", "5"), 5, "set"),
    ],
)
def test_the_log_says_what_was_chosen_and_why(launch, tmp_path, validation, options, rows, reason):
    linear(Graphs(tmp_path), "plain", 1000)
    process = launch(tmp_path, *options, validation=validation)
    process.stop()
    (loaded,) = [line for line in map(json.loads, process.said()) if "group_rows" in line]
    assert loaded["group_rows"] == rows
    assert loaded["group_rows_because"].startswith(reason)
