"""Triton's client and ours in one process, whichever is imported first: both_clients.py."""

from pathlib import Path

import pytest
from onnx import helper

SCRIPT = Path(__file__).with_name("both_clients.py")
ORDERS = (
    ("tritonclient.grpc", "client"),
    ("client", "tritonclient.grpc"),
    ("tritonclient.grpc", "protos.codec", "client"),
    ("server.app.server", "tritonclient.grpc"),
)
LABELS = [1, 0]


@pytest.fixture(scope="module")
def address(graphs, launch_for_module):
    graphs.add(
        "pick",
        [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
        {"x": ("float32", ["batch", 3])},
        {"label": ("int64", ["batch"])},
    )
    return launch_for_module(graphs.folder).address


@pytest.fixture(scope="module", params=ORDERS, ids=" then ".join)
def told(request, address, run_script):
    """What each step of the script gave, by name."""
    return run_script(SCRIPT, address, *request.param)


def test_our_client_predicts(told):
    assert told("ours") == [LABELS, [LABELS, LABELS[::-1]]]


def test_tritons_client_infers_and_reads_the_configuration(told):
    assert told("theirs") == [LABELS, "pick"]


def test_configurations_are_read(told):
    assert told("configuration") == [3, "l", 3]


def test_reflection_describes_our_messages_and_the_health_service(told):
    assert told("reflection") == ["protos/model_config.proto", ["service"]]
