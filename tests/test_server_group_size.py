"""Which times win is decided by numbers; what can be measured, by real graphs."""

import numpy as np
import pytest
from onnx import helper

from server.engine import Engine
from server.group_size import best_group_rows, measured_group_rows


def linear(graphs, name, features, dtype="float32", shape=None):
    weights = np.ones((features, 3), dtype)
    path = graphs.add(
        name,
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        {"x": (dtype, shape or ["n", features])},
        {"y": (dtype, [*(shape or ["n"])[:1], 3])},
        {"W": weights},
    )
    return Engine(path, 1)


@pytest.mark.parametrize(
    ("row_ns", "rows"),
    [
        ({16: 10.0, 32: 9.0, 64: 8.0}, 64),
        ({16: 10.0, 32: 8.0, 64: 10.0}, 32),
        ({16: 8.0, 32: 10.0, 64: 10.0}, 16),
        ({16: 10.0, 32: 10.0, 64: 10.4}, 64),  # about equal: the largest
        ({16: 10.0, 32: 10.4, 64: 10.6}, 32),
        ({16: 3.0}, 16),
    ],
)
def test_the_largest_of_about_the_best_is_chosen(row_ns, rows):
    assert best_group_rows(row_ns) == rows


def test_a_model_is_measured(graphs):
    assert measured_group_rows(linear(graphs, "plain", 1000), 1024) in (16, 32, 64)


def test_no_more_rows_than_a_request_may_hold(graphs):
    engine = linear(graphs, "small", 10)
    assert measured_group_rows(engine, 16) == 16
    assert measured_group_rows(engine, 5) == 5


def test_no_more_rows_than_fit_into_the_buffer(graphs):
    # 2 MiB a row: 32 of them are 64 MiB.
    assert measured_group_rows(linear(graphs, "wide", 2**18, "float64"), 1024) in (16, 32)
    assert measured_group_rows(linear(graphs, "wider", 2**24), 1024) == 1


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
        assert measured_group_rows(Engine(path, 1), 1024) == 32
