"""Instruments that drive three real servers: the part of each, and one of them killed."""

import json
import signal
from concurrent import futures

import pytest
from client_load import answered

from measure.__main__ import main
from measure.report import kinds, page
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES, SERVERS = 8, 64, 3
SHORT = ["--warm-up-s", 0.1, "--window-s", 0.2, "--max-windows", 3, "--classes", CLASSES]
SIZE = ["--classes", CLASSES, "--features", FEATURES]


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module")
def servers(serve, models):
    return [serve(models, metrics_address="127.0.0.1:0") for _ in range(SERVERS)]


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command; its record and what it printed."""

    def run_command(name, addresses, *options, status=0):
        words = [name, "--out", tmp_path, *(w for one in addresses for w in ("--address", one))]
        code = main([str(word) for word in (*words, *options)])
        printed, progress = capsys.readouterr()
        assert code == status, printed + progress
        return json.loads((tmp_path / f"{name}.json").read_text()), printed

    return run_command


def check_parts(point, addresses):
    """The parts of a point's servers, which add up to the point."""
    parts = {part["address"]: part for part in point["replicas"]}
    assert set(parts) == set(addresses)
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    for part in parts.values():
        assert part["requests"] > 0
        assert part["p50_ns"] > 0
        assert (part["failed"], part["errors"], part["wrong_labels"]) == (0, {}, 0)
        assert (part["resent"], part["serving"]) == (0, True)
    return parts


@pytest.mark.parametrize("balance", ["least_requests", "round_robin"])
def test_a_load_of_several_servers_has_the_part_of_each(run, servers, balance):
    addresses = [server.address for server in servers]
    load = ["--concurrency", 6, "--rate", 150, "--modes", "unary,stream", "--balance", balance]
    urls = ",".join(f"http://{server._management.address}/metrics" for server in servers)
    content, printed = run("load", addresses, *SHORT, *load, "--server-metrics", urls)
    assert content["unchecked_because"] is None
    assert content["settings"]["address"] == ",".join(addresses)
    assert content["settings"]["balance"] == balance
    assert len(content["points"]) == 4
    for point in content["points"]:
        parts = check_parts(point, addresses)
        assert (point["errors"], point["wrong_labels"]) == ({}, 0)
        assert sum(part["requests"] for part in parts.values()) == point["latency_ns"]["samples"]
        # Not those of the windows exactly, as the servers are read a little later.
        counts = [part["server"]["answered"] for part in parts.values()]
        assert point["server"]["answered"] == sum(counts)
        assert min(counts) > 0
        assert {part["server"]["source"] for part in parts.values()} == {"metrics"}
        assert point["split"]["told_by"] == "timings"
    assert all(address in " ".join(printed.split()) for address in addresses)
    assert "The part of each server" in page.render([kinds.section(content)])


def test_statistics_say_what_each_server_did_where_no_metrics_are_named(run, servers):
    addresses = [server.address for server in servers[:2]]
    content, _ = run("load", [",".join(addresses)], *SHORT, "--concurrency", 4)
    (point,) = content["points"]
    parts = check_parts(point, addresses)
    for part in (*parts.values(), point):
        assert part["server"]["source"] == "statistics"
        assert part["server"]["batch_rows"] >= 1
    assert point["server"]["answered"] == sum(p["server"]["answered"] for p in parts.values())


def test_a_load_of_one_server_has_no_parts(run, servers):
    content, printed = run("load", [servers[0].address], *SHORT, "--concurrency", 2)
    (point,) = content["points"]
    assert (point["replicas"], point["server"]) == ([], None)
    assert "what each server did" not in printed


def test_wrong_labels_are_those_of_the_server_that_gave_them(run, serve, servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    export(folder, "linear_argmax", -from_seed(CLASSES, FEATURES, 0), "float32", 0)
    wrong = serve(folder).address
    right = servers[0].address
    # The first one does not decide what is right.
    content, _ = run("load", [wrong, right], *SHORT, "--concurrency", 4, status=1)
    (point,) = content["points"]
    of = {part["address"]: part["wrong_labels"] for part in point["replicas"]}
    assert of[right] == 0
    assert of[wrong] == point["wrong_labels"] > 0


@pytest.mark.parametrize("mode", ["unary", "stream"])
def test_one_of_three_that_is_killed_costs_a_load_no_request(
    run, launch, models, call, eventually, mode
):
    processes = [launch(models, "--log-level", "warning") for _ in range(SERVERS)]
    addresses = [process.address for process in processes]
    callers = [call(address) for address in addresses]

    def answers(those):
        before = [answered(caller) for caller in those]
        eventually(
            lambda: all(
                answered(caller) > count + 20 for caller, count in zip(those, before, strict=True)
            ),
            "each of them answers",
        )

    def kill():
        answers(callers)
        # Until it has requests: those with the fewest get the next.
        processes[1].freeze()
        answers([callers[0], callers[2]])
        processes[1].stop(signal.SIGKILL)

    # Windows without an end: the load ends when three of them agree, or with so many requests.
    windows = ["--warm-up-s", 0.1, "--window-s", 0.5, "--max-windows", 12, "--timeout-s", 30]
    windows += ["--window-requests", 500, "--classes", CLASSES]
    with futures.ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        content, printed = run("load", addresses, *windows, "--modes", mode, "--concurrency", 12)
        killed.result()
    (point,) = content["points"]
    assert (point["errors"], point["wrong_labels"]) == ({}, 0)
    parts = {part["address"]: part for part in point["replicas"]}
    assert [parts[address]["serving"] for address in addresses] == [True, False, True]
    assert [parts[address]["failed"] for address in addresses] == [0, 0, 0]
    assert parts[addresses[1]]["resent"] > 0
    assert "NO" in printed


def test_a_sweep_of_several_servers_has_the_part_of_each(run, servers):
    addresses = [server.address for server in servers]
    options = ["--modes", "local,unary,stream", "--batch-sizes", "1,4", "--examples", 24]
    content, printed = run("sweep", addresses, *SIZE, *options, "--threads", 1)
    for point in content["points"]:
        assert (point["errors"], point["wrong_labels"]) == (0, 0)
        if point["mode"] == "local":
            assert point["replicas"] == []
            continue
        parts = check_parts(point, addresses)
        assert sum(part["rows"] for part in parts.values()) == point["rows"]
        if point["mode"] == "stream":
            batches = 24 // point["batch_size"]
            assert [p["requests"] for p in parts.values()] == [batches // SERVERS] * SERVERS
        assert point["server"]["answered"] == sum(p["server"]["answered"] for p in parts.values())
    assert all(address in " ".join(printed.split()) for address in addresses)
    assert "The part of each server" in page.render([kinds.section(content)])


def test_a_sweep_names_the_server_with_other_weights(serve, servers, tmp_path, capsys):
    export(tmp_path / "m", "linear_argmax", from_seed(CLASSES, FEATURES, 7), "float32", 0)
    other = serve(tmp_path / "m").address
    words = ["sweep", "--address", f"{servers[0].address},{other}", *SIZE, "--out", tmp_path / "o"]
    words += ["--modes", "unary", "--batch-sizes", "1", "--examples", 4]
    assert main([str(word) for word in words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert f"{other}: the server's model has other weights" in line


def test_an_slo_of_several_servers_searches_over_all_of_them(run, servers, monkeypatch):
    monkeypatch.setattr("measure.core.confidence.CONFIDENCE", 0.5)
    addresses = [server.address for server in servers]
    options = ["--start", 100, "--most", 100, "--arrivals", "constant", "--p99-ms", 20_000]
    content, _ = run("slo", addresses, *SHORT, *options)
    assert content["found"]["met"] == 100
    for point in content["points"]:
        check_parts(point, addresses)
