import pytest

from client.errors import UsageError
from measure.servers.server_use import Reading, ServerMetrics, ServerProcess, server_use

SECOND_NS = 10**9


def series(**counters):
    """Counters of two models, the second of which is not under load."""
    made = {}
    for name, value in counters.items():
        for model, factor in (("m", 1), ("other", 1000)):
            made[f"nv_inference_{name}", (("model", model), ("version", "1"))] = value * factor
    return made


def use(before, after):
    first = Reading(0, 1.0, 500, before)
    last = Reading(2 * SECOND_NS, 4.0, 400, after)
    return server_use("metrics", first, last, {"m"})


def test_differences_of_counters_become_what_the_server_did_to_the_models_under_load():
    names = ("request_success", "request_failure", "exec_count", "count", "queue_duration_us")
    before = series(**dict.fromkeys(names, 10))
    after = series(**dict(zip(names, (110, 13, 35, 210, 5010), strict=True)))
    after["argmax_refused_total", (("code", "UNAVAILABLE"),)] = 4.0
    after["argmax_refused_total", (("code", "NOT_FOUND"),)] = 1.0
    found = use(before, after)
    assert (found.seconds, found.cpu_s, found.cores, found.rss_bytes) == (2.0, 3.0, 1.5, 500)
    assert (found.answered, found.failed, found.refused) == (100, 3, 5)
    assert found.batch_rows == 200 / 25
    assert found.queue_ns == 5000 * 1000 / 100
    assert found.counters['nv_inference_count{model="m",version="1"}'] == 200
    assert found.counters['argmax_refused_total{code="UNAVAILABLE"}'] == 4


def test_what_a_server_does_not_count_is_unknown_and_not_nothing():
    found = use({}, {})
    assert (found.answered, found.refused, found.batch_rows, found.queue_ns) == (None,) * 4
    assert found.counters == {}
    idle = series(exec_count=5, count=5, request_success=5, queue_duration_us=5)
    found = use(idle, idle)
    assert (found.answered, found.batch_rows, found.queue_ns) == (0, None, None)


def test_without_both_readings_nothing_is_known():
    reading = Reading(5, None, None, {})
    for pair in ((None, reading), (reading, None), (reading, reading)):
        assert server_use("metrics", *pair, {"m"}) is None


def test_a_process_that_is_gone_gives_no_reading(launch, graphs):
    graphs.add_steps("gone")
    server = launch(graphs.folder, "--log-level", "warning")
    source = ServerProcess(server.popen.pid)
    reading = source.read()
    assert reading.cpu_s > 0
    assert reading.rss_bytes > 2**20
    server.stop()
    assert source.read() is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/metrics", "metrics", "ftp://a/b"])
def test_a_url_without_metrics_is_refused_at_once(url):
    with pytest.raises(UsageError) as caught:
        ServerMetrics(url)
    assert f"--server-metrics {url}: got " in str(caught.value)
    assert "expected metrics in Prometheus's text format" in str(caught.value)
