import csv
import json
import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from measure.core.record import (
    RecordError,
    dumps,
    read,
    recorded,
    write_bytes_atomically,
    write_text_atomically,
)
from measure.core.stages import Sample, Stages
from measure.sweep import record
from measure.sweep.summary import summarise

KEYS = [
    "mode",
    "batch_size",
    "latency_ns",
    "first_prediction_ns",
    "throughput_per_s",
    "wrong_labels",
    "near_ties",
    "errors",
]


def point(mode="unary", samples=5, **fields):
    stages = Stages(1, 2, 3, 4, 2.0, "CPUExecutionProvider")
    return summarise(
        mode, 2, [Sample(mode, 2, 0, 50, 100, 2, stages=stages, **fields)] * samples, 2**30
    )


def points():
    return [point(), point("stream"), point(error="UNAVAILABLE"), point(samples=0)]


def through_text(points):
    return json.loads(dumps(record.to_json({"seed": 0}, {"cores": 2}, points)))


def test_a_record_reads_back_as_it_was():
    assert read(through_text(points()), record.SweepRecord).points == points()


def test_a_record_has_the_promised_keys():
    written = through_text(points())
    assert written["schema"] == "argmax-serving/sweep/1"
    assert set(written) == {"schema", "environment", "settings", "points", "findings"}
    for each in written["points"]:
        assert list(each)[: len(KEYS)] == KEYS
        for name in ("latency_ns", "first_prediction_ns"):
            assert list(each[name]) == ["min", "p50", "p90", "max", "samples"]


def test_a_number_that_is_not_finite_becomes_null():
    written = record.to_json({"a": math.nan, "b": [math.inf], "c": {"d": -math.inf}}, {}, [])
    assert written["settings"] == {"a": None, "b": [None], "c": {"d": None}}
    assert "NaN" not in dumps(written)


def test_a_path_among_the_settings_does_not_lose_the_record():
    assert "results" in dumps(record.to_json({"out": Path("results")}, {}, []))


def test_failures_are_recorded_as_findings():
    levels = [finding["level"] for finding in through_text([point(wrong_labels=1)])["findings"]]
    assert levels == ["fail"]


def test_another_schema_is_refused():
    written = through_text(points()) | {"schema": "argmax-serving/sweep/2"}
    with pytest.raises(RecordError, match=r"sweep/2.*reads.*sweep/1"):
        read(written, record.SweepRecord)


@pytest.mark.parametrize("key", ["schema", "environment", "settings", "points"])
def test_a_missing_key_is_named(key):
    written = through_text(points())
    del written[key]
    with pytest.raises(RecordError, match=f"lacks '{key}'"):
        read(written, record.SweepRecord)


@pytest.mark.parametrize("key", [*KEYS, "stages", "error_kinds", "agreement"])
def test_a_missing_key_of_a_point_is_named_with_its_place(key):
    written = through_text(points())
    del written["points"][1][key]
    with pytest.raises(RecordError, match=rf"points\[1\] lacks '{key}'"):
        read(written, record.SweepRecord)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": 3},
        {"batch_size": "2"},
        {"errors": None},
        {"errors": True},
        {"latency_ns": [1]},
        {"latency_ns": {"min": None, "p50": 1, "p90": 1, "max": 1, "samples": 1}},
        {"error_kinds": {"x": "y"}},
        {"stages": {}},
    ],
)
def test_a_wrong_type_in_a_point_is_refused(change):
    written = through_text(points())
    written["points"][0] |= change
    with pytest.raises(RecordError, match=r"points\[0\]"):
        read(written, record.SweepRecord)


@pytest.mark.parametrize("value", [None, [], "text", {"points": 1}])
def test_what_is_no_record_is_refused(value):
    with pytest.raises(RecordError):
        read(value, record.SweepRecord)


def test_an_error_text_may_be_any_text():
    kinds = [point(error=text) for text in ("stages", "mode", "", "é\n")]
    assert read(through_text(kinds), record.SweepRecord).points == kinds


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "sweep.json"
    path.write_text("old")
    write_text_atomically(path, "new é")
    assert path.read_text(encoding="utf-8") == "new é"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch, broken):
    def fail(*_):
        raise OSError("disk full")

    path = tmp_path / "sweep.json"
    path.write_text("old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="disk full"):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_is_as_readable_as_any_other(tmp_path):
    write_bytes_atomically(tmp_path / "ours", b"")
    (tmp_path / "any").write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "any")]
    assert modes[0] == modes[1]


def test_text_that_is_not_unicode_can_still_be_written(tmp_path):
    write_text_atomically(tmp_path / "page", "a \udcff b")
    assert (tmp_path / "page").read_bytes() == rb"a \udcff b"


def test_csv_has_one_row_per_point_under_flat_columns(tmp_path):
    record.write_csv(tmp_path / "sweep.csv", points())
    with (tmp_path / "sweep.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["mode"] for row in read] == ["unary", "stream", "unary", "unary"]
    assert read[0]["latency_p50_ns"] == "100"
    assert read[0]["first_prediction_p90_ns"] == "50"
    assert read[0]["latency_samples"] == "5"
    assert read[0]["stages_compute_ns"] == "4.0"
    assert read[0]["stages_server_receive_ns"] == ""
    assert read[1]["stages_other_ns"] == ""
    assert read[3]["latency_p50_ns"] == ""
    assert read[3]["stages_compute_ns"] == ""


@dataclass(frozen=True)
class Part:
    DERIVED: ClassVar = ("double",)

    rows: int
    share: float | None = None
    loop: Literal["open", "closed"] = "open"

    @property
    def double(self):
        return 2 * self.rows


@dataclass(frozen=True)
class Whole:
    SCHEMA: ClassVar = "one/1"

    parts: tuple[Part, ...]
    counts: dict[str, int] = field(default_factory=dict)


def test_a_record_has_the_fields_of_its_class_in_order_then_what_is_derived():
    whole = Whole((Part(3, math.inf),), {"a": 1})
    written = json.loads(dumps(recorded("one/1", parts=whole.parts, counts=whole.counts)))
    assert list(written) == ["schema", "parts", "counts"]
    (part,) = written["parts"]
    assert list(part.items()) == [("rows", 3), ("share", None), ("loop", "open"), ("double", 6)]
    assert read(written, Whole) == Whole((Part(3),), {"a": 1})


def test_keys_of_a_newer_version_are_ignored():
    part = {"rows": 3, "new": [1], "double": 7}
    assert read({"schema": "one/1", "parts": [part], "new": 1}, Whole) == Whole((Part(3),))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "other/1"}, "the record's schema is 'other/1'; this version reads 'one/1'"),
        ({"schema": 3}, "schema: got int, expected str"),
        ({"parts": 3}, "parts: got int, expected array"),
        ({"parts": [{"rows": 1}, 3]}, "parts[1]: got int, expected object"),
        ({"parts": [{"rows": 1}, {}]}, "parts[1] lacks 'rows'"),
        ({"parts": [{"rows": "1"}]}, "parts[0].rows: got str, expected int"),
        ({"parts": [{"rows": True}]}, "parts[0].rows: got bool, expected int"),
        ({"parts": [{"rows": 1.5}]}, "parts[0].rows: got float, expected int"),
        (
            {"parts": [{"rows": 1, "share": []}]},
            "parts[0].share: got array, expected float or null",
        ),
        (
            {"parts": [{"rows": 1, "loop": "a\n - at `$.b`"}]},
            r"parts[0].loop: Invalid enum value 'a\n - at `$.b`'",
        ),
        ({"counts": {"a b": "c"}}, "counts[...]: got str, expected int"),
    ],
)
def test_what_cannot_be_read_of_a_record_is_said_with_its_place(change, said):
    with pytest.raises(RecordError) as raised:
        read({"schema": "one/1", "parts": []} | change, Whole)
    assert str(raised.value) == said
