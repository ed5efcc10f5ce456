"""tritonclient as its users install it, in a process of its own: tritonclient_calls.py."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from model.export import export
from model.weights import from_seed
from protos.datatypes import BYTES, DTYPES

CLASSES, FEATURES, ROWS = 4, 8, 6
SCRIPT = Path(__file__).with_name("tritonclient_calls.py")
WEIGHTS = from_seed(CLASSES, FEATURES, 0)
X = np.random.default_rng(1).standard_normal((ROWS, FEATURES), np.float32)
SCORES = X @ WEIGHTS.astype(np.float32).T
LABELS = SCORES.argmax(axis=1).tolist()


@pytest.fixture(scope="module")
def told(graphs, launch_for_module, run_script):
    """What each step of the script gave, by name."""
    export(graphs.folder, "linear", WEIGHTS, "float32", 0)
    for datatype, dtype in DTYPES.items():
        rows = ("string" if datatype == BYTES else dtype, ["rows"])
        node = helper.make_node("Identity", ["x"], ["y"])
        graphs.add(f"same_{datatype}", [node], {"x": rows}, {"y": rows})
    return run_script(SCRIPT, launch_for_module(graphs.folder).address)


def test_the_labels_differ():
    assert len(set(LABELS)) > 1


def test_server_and_model_are_live_and_ready(told):
    assert told("live_and_ready") == [True] * 4


def test_metadata_and_config_describe_server_and_model(told):
    server, metadata, config = told("descriptions")
    assert {"statistics", "logging", "system_shared_memory"} <= set(server["extensions"])
    assert [metadata["name"], metadata["versions"]] == ["linear", ["1"]]
    assert metadata["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": ["-1", str(FEATURES)]},
    ]
    assert [entry["name"] for entry in metadata["outputs"]] == ["label", "scores"]
    assert config["max_batch_size"] == 1024
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [str(FEATURES)]}]


def test_statistics_count_what_was_asked(told):
    before, after = told("statistics")
    grown = int(after["inference_count"]) - int(before.get("inference_count", 0))
    assert grown == ROWS
    assert int(after["inference_stats"]["compute_infer"]["ns"]) > 0


def test_outputs_come_in_the_order_asked_for_with_the_id(told):
    id, names, labels, scores = told("unary")
    assert (id, names, labels) == ("7", ["scores", "label"], LABELS)
    np.testing.assert_allclose(scores, SCORES, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", ["unary_without_naming_outputs", "compressed"])
def test_labels_are_right(told, step):
    assert told(step) == LABELS


def test_asynchronous_requests_get_their_own_answers(told):
    assert told("asynchronous") == {str(row): [label] for row, label in enumerate(LABELS)}


@pytest.mark.parametrize("step", ["streamed", "stream_with_empty_final_responses"])
def test_a_stream_answers_in_order(told, step):
    assert told(step) == [
        {"id": str(row), "label": [label], "final": True} for row, label in enumerate(LABELS)
    ]


def test_a_stream_outlives_the_error_of_one_request(told):
    answers = told("stream_with_an_error")
    error = answers.pop(1)
    assert "'nobody'" in error["text"]
    assert [answer["label"] for answer in answers] == [[LABELS[0]], *([a] for a in LABELS[2:])]


def test_an_error_ends_a_stream_that_asked_for_it(told):
    first, error = told("stream_that_an_error_ends")
    assert first["label"] == LABELS[:1]
    assert error["status"] == "StatusCode.NOT_FOUND"
    assert "'nobody'" in error["text"]


def test_the_asyncio_client_gets_the_same_labels(told):
    alone, streamed = told("with_asyncio")
    assert alone == LABELS
    assert streamed == [[label] for label in LABELS]


@pytest.mark.parametrize("datatype", DTYPES)
def test_each_datatype_comes_back_as_it_went(told, datatype):
    assert told("datatypes")[datatype] == [True, True, [3]]


def test_inputs_and_outputs_may_lie_in_shared_memory(told):
    before, during, sent, offset, labels, scores, after = told("shared_memory")
    assert before == after == []
    assert sorted(during) == ["input", "output"]
    assert int(during["input"]["byte_size"]) == X.nbytes
    assert sent == [0, 0]
    assert offset == 8 * ROWS
    assert labels == LABELS
    np.testing.assert_allclose(scores, SCORES, rtol=1e-5, atol=1e-6)


def test_strings_may_lie_in_shared_memory(told):
    assert told("strings_in_shared_memory") == ["", "some", "größer"]


def test_cuda_shared_memory_is_refused(told):
    assert told("cuda_shared_memory") == [{}, "StatusCode.INVALID_ARGUMENT"]


def test_tracing_is_off(told):
    assert told("trace_settings") == [{"value": ["OFF"]}, "StatusCode.UNAVAILABLE"]


def test_log_settings_change_and_change_back(told):
    before, changed, after = told("log_settings")
    assert before["log_warning"] == {"bool_param": True}
    assert before == after
    expected = {"log_warning": {"bool_param": False}, "log_verbose_level": {"uint32_param": 1}}
    assert changed == before | expected
