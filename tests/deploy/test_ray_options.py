"""Servers on Ray: their options, the file that deploys them, and how many a queue asks for."""

import re
from types import SimpleNamespace

import pytest
from conftest import ROOT

from deploy.ray import options
from deploy.ray.options import OptionsRefused
from deploy.ray.scaling import QueuePolicy
from server.app.config import Config

HOST = "10.0.0.1"
SERVE = (ROOT / "deploy" / "ray" / "serve.yaml").read_text()


@pytest.fixture
def words(tmp_path):
    return ["--models", str(tmp_path)]


def test_a_replica_listens_on_any_port_of_its_node(words):
    assert options.config(words, {}, HOST, 2).address == "10.0.0.1:0"
    assert options.config(words, {}, "fd00::1", 2).address == "[fd00::1]:0"


def test_its_threads_are_the_cores_that_it_has_reserved(words):
    assert options.config(words, {}, HOST, 3).threads == 3
    assert options.config(words, {}, HOST, 0.5).threads == 1
    assert options.config(words, {"ARGMAX_SERVER_THREADS": "5"}, HOST, 3).threads == 5
    assert options.config([*words, "--threads", "7"], {}, HOST, 3).threads == 7


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--model-control", "explicit"], "got --model-control explicit, expected none or poll"),
        (["--address", "127.0.0.1:1"], "got --address, expected none"),
        (["--address=127.0.0.1:1"], "got --address, expected none"),
        (["--max-batch-rows", "many"], "options: --max-batch-rows got 'many'"),
        (["--grace", "1"], "options: unrecognized argument --grace: did you mean --grace-s?"),
    ],
)
def test_what_a_replica_cannot_have_is_refused_in_one_line(words, more, says):
    with pytest.raises(OptionsRefused) as caught:
        options.config([*words, *more], {}, HOST, 2)
    (line,) = str(caught.value).splitlines()
    assert says in line


def test_none_and_poll_are_taken(words):
    for control in ("none", "poll"):
        given = [*words, "--model-control", control]
        assert options.config(given, {}, HOST, 2).model_control == control


def test_the_options_of_the_file_are_the_servers():
    (listed,) = re.findall(r"options: \[(.*)\]", SERVE)
    names = {each.removeprefix("--").replace("-", "_") for each in re.findall(r"--[\w-]+", listed)}
    assert names
    assert names <= set(Config.__dataclass_fields__)
    assert "host: 127.0.0.1" in SERVE


@pytest.mark.parametrize(("waiting", "replicas"), [((), 0), ((0,), 0), ((8,), 2), ((3, 5, 4), 3)])
def test_a_queue_asks_for_a_replica_for_each_so_many_requests(waiting, replicas):
    metrics = {"waiting_requests": dict(enumerate(waiting))}
    context = SimpleNamespace(aggregated_metrics=metrics)
    assert QueuePolicy(4)(context) == (replicas, {})
    assert QueuePolicy(4)(SimpleNamespace(aggregated_metrics=None)) == (0, {})
