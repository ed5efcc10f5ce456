import json
import socket

import in_process
import pytest
import report_records

from client.errors import UsageError
from measure.__main__ import main
from measure.limits import ceiling, memory, sockets, wire
from measure.limits.peaks import COPY, GEMM, PCIE, READ, TCP, UNIX
from measure.limits.placement import CLIENT, intensity, place
from measure.limits.subject import Rate, Subject, Work, subject

GIB = 2**30
# A MiB a row, 64 MiB of weights, two operations a weight.
WORK = Work(row_bytes=2**20, weight_bytes=2**26, flop_per_row=2**25)


def placed(mode="stream", rows=64.0, rate=100.0, unix=False, provider=None, **best):
    one = Rate("a point", mode, rate, rows, provider)
    what = Subject(WORK, (one,), unix, 2**18, "float32", "float32")
    (found,) = place(what, report_records.roofs(**best), {})
    return found


def test_an_execution_reads_its_rows_and_the_weights_once():
    assert intensity(WORK, 1) == pytest.approx(32 / 65)
    assert intensity(WORK, 64) == pytest.approx(32 * 64 / 128)


def test_each_roof_alone_allows_so_many_rows():
    found = placed(rows=64)
    assert found.ceilings == pytest.approx(
        {
            GEMM: 100e9 / 2**25,
            READ: 10 * GIB / (2**20 * 2),
            COPY: 8 * GIB / 2**20,
            TCP: 3 * GIB / 2**20,
        }
    )
    assert found.binding == GEMM
    assert found.share == pytest.approx(100 / (100e9 / 2**25))


def test_one_row_at_a_time_is_bound_by_reading_the_weights():
    found = placed(rows=1)
    assert found.binding == READ
    assert found.ceilings[READ] == pytest.approx(10 * GIB / (65 * 2**20))


def test_what_binds_follows_the_roofs():
    assert placed(gemm=1e6, **{READ: 1e6}).binding == TCP
    assert placed(unix=True, gemm=1e6, **{READ: 1e6}).binding == UNIX
    assert placed(gemm=1e6, **{READ: 1e6, COPY: 1.0}).binding == COPY


@pytest.mark.parametrize("mode", ["local", "shm"])
def test_what_sends_no_rows_has_no_wire_above_it(mode):
    assert set(placed(mode).ceilings) == {GEMM, READ}


def test_a_gpu_is_behind_its_own_wire():
    assert PCIE not in placed(provider="CPUExecutionProvider").ceilings


def test_rates_are_read_from_every_kind_of_result():
    sweep = subject(report_records.sweep())
    assert sweep.work == Work(4096, 64 * 4096, 2 * 64 * 1024)
    assert [rate.label for rate in sweep.rates][:2] == [
        "local, batch size 1",
        "local, batch size 16",
    ]
    assert {rate.execution_rows for rate in sweep.rates} == {4.0}
    assert len(subject(report_records.compare()).rates) == 8
    assert subject(report_records.load()).rates[0].rows_per_s == 200
    narrow = subject(report_records.sweep(wire="int8"))
    assert narrow.work == Work(1024, 64 * 4096, 2 * 64 * 1024)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (report_records.limits, "expected one of"),
        (lambda: report_records.load() | {"unchecked_because": "no hash"}, "no hash"),
        (lambda: report_records.sweep() | {"settings": {}}, "lacks"),
    ],
)
def test_what_cannot_be_placed_is_refused(content, said):
    with pytest.raises(UsageError, match=said):
        subject(content())


def test_memory_is_read_and_copied_at_some_rate():
    assert len(memory.read_gib_per_s(2, 2)) == 2
    warm, fresh = memory.memcpy_gib_per_s(1)
    assert min(*warm, *fresh) > 0


@pytest.mark.parametrize("unix", [False, True])
def test_a_socket_has_a_rate(unix):
    assert min(wire.gib_per_s(1, unix=unix)) > 0


def test_the_client_has_a_ceiling_with_a_server_that_computes_nothing():
    asked = [("unary", 1), ("stream", 1), ("stream", 4), ("local", 1), ("shm", 1)]
    found = ceiling.rows_per_s(asked, 256, "float32", "float32", rounds=1)
    assert set(found) == {("unary", 1), ("stream", 1), ("stream", 4)}
    assert min(found.values()) > 0
    narrow = ceiling.rows_per_s([("stream", 2)], 256, "float32", "int8", rounds=1)
    assert narrow["stream", 2] > 0
    assert ceiling.rows_per_s([("local", 1)], 256, "float32", "float32", rounds=1) == {}


def test_a_client_that_is_slow_itself_binds():
    one = Rate("a point", "unary", 90.0, 64.0, None, batch_size=4)
    what = Subject(WORK, (one,), False, 2**18, "float32", "float32")
    (found,) = place(what, report_records.roofs(), {("unary", 4): 100.0, ("unary", 8): 1.0})
    assert (found.binding, found.share) == (CLIENT, pytest.approx(0.9))


def test_receiving_stops_where_the_other_side_goes_away():
    with (
        sockets.listen("127.0.0.1:0") as listener,
        sockets.connect(sockets.address_of(listener)) as connection,
    ):
        listener.accept()[0].close()
        assert sockets.receive(connection, memoryview(bytearray(4))) is False
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_sweep_is_placed_under_the_roofs(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps(report_records.sweep()))
    words = ["limits", "--rounds", "1", "--result", tmp_path, "--out", tmp_path / "out"]
    done = in_process.run(main, *words)
    assert done.returncode == 0, done.stderr
    assert "not where the result was measured: cpu_model: A chip and " in done.stdout
    content = json.loads((tmp_path / "out" / "limits.json").read_text())
    names = {roof["name"] for roof in content["roofs"]}
    assert {GEMM, READ, COPY, TCP, UNIX} <= names
    assert (PCIE in names) != (PCIE in content["skipped"])
    assert next(point["rate"]["label"] for point in content["points"]) == "local, batch size 1"
    for point in content["points"]:
        assert ("client" in point["ceilings"]) == (point["rate"]["mode"] != "local")
        assert point["binding"] in point["ceilings"]
        assert point["share"] > 0
    assert (tmp_path / "out" / "limits.png").stat().st_size > 10_000
