from pathlib import Path

import pytest

from soak.leaks import KINDS, watch
from soak.request_kinds import prepare
from soak.tally import Tally

LEAKY = str(Path(__file__).with_name("leaky_server.py"))
REQUESTS = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    prepare(folder)
    return folder


def watched(folder, kind, requests=REQUESTS, **program):
    found = watch(Tally(requests, 60), folder, kind, requests, 60, **program)
    assert found.requests > requests / 2
    return found


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind == "unary" else pytest.param(kind, marks=pytest.mark.slow)
        for kind in KINDS
        if kind != "reload"
    ],
)
def test_nothing_is_left_of_requests(folder, kind):
    found = watched(folder, kind)
    assert not found.leaks, found


@pytest.mark.slow
def test_nothing_is_left_of_models_that_were_loaded_anew(folder):
    found = watched(folder, "reload", 60)
    assert not found.leaks, found


def test_a_leak_of_memory_is_found_with_its_size(folder):
    found = watched(folder, "unary", program=(LEAKY, "memory"))
    assert found.leaks
    assert found.bytes_a_request.grows
    assert 3000 < found.bytes_a_request.per_step < 8000


@pytest.mark.slow
@pytest.mark.parametrize("what", ["descriptors", "threads"])
def test_descriptors_and_threads_that_stay_are_found(folder, what):
    found = watched(folder, "unary", 120, program=(LEAKY, what))
    assert found.leaks
    assert getattr(found, what) > 60


@pytest.mark.slow
def test_without_time_nothing_is_claimed(folder):
    assert watch(Tally(600, 60), folder, "unary", 600, 0) is None
