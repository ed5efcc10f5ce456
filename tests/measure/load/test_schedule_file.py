import json

import pytest

from client.errors import UsageError
from measure.engine.schedule import Kind
from measure.load import schedule_file

DEFAULTS = ("m", 3, 1.0)


@pytest.fixture
def read(tmp_path):
    """Read a schedule of some text or bytes."""

    def read_text(text, *defaults):
        path = tmp_path / "trace.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return schedule_file.read(path, *(defaults or DEFAULTS))

    return read_text


def requests(schedule):
    return [
        (at_ns, *(getattr(schedule.kinds[kind], name) for name in ("model", "rows")))
        for at_ns, kind in zip(schedule.at_ns, schedule.kind_of, strict=True)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "at_s,rows,model\n0.5,2,m\n0,,\n1.25,1,other\n",
        "model, rows ,at_s\r\nm,2,0.5\r\n,,0\r\n\r\nother,1,1.25\r\n",
        '{"at_s": 0.5, "rows": 2, "model": "m"}\n\n{"at_s": 0}\n'
        '{"at_s": 1.25, "rows": 1, "model": "other"}',
        "at_s,rows,model\n0.5,2,m\n0,,\n1.25,1,other\n".encode("utf-16"),
    ],
    ids=["csv", "columns in any order", "lines of JSON", "UTF-16"],
)
def test_requests_are_read_in_the_order_in_which_they_are_due(read, text):
    described, schedule = read(text)
    second_ns = 10**9
    wanted = [(0, "m", 3), (second_ns // 2, "m", 2), (5 * second_ns // 4, "other", 1)]
    assert requests(schedule) == wanted
    assert (described.requests, described.rows, described.seconds) == (3, 6, 1.25)
    assert described.models == ("m", "other")
    assert described.rate_per_s == pytest.approx(3 / 1.25)
    assert described.text == "trace.csv"


def test_times_are_divided_by_the_speed(read):
    described, schedule = read("at_s\n1\n4\n", "m", 1, 4.0)
    assert schedule.at_ns == [10**9 // 4, 10**9]
    assert (described.seconds, described.text) == (1.0, "trace.csv x4")


def test_processes_get_requests_in_turn(read):
    _, schedule = read("at_s,rows\n" + "".join(f"{n},{n % 2 + 1}\n" for n in range(7)))
    parts = schedule.among(3)
    assert [len(part.at_ns) for part in parts] == [3, 2, 2]
    assert sorted(request for part in parts for request in requests(part)) == requests(schedule)
    assert parts[0].kinds == schedule.kinds == [Kind("m", 1), Kind("m", 2)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "line 1: got no column at_s, expected at_s and"),
        ("at_s,rows\n", "got no request, expected at least one"),
        ("rows\n1\n", "line 1: got no column at_s"),
        ("at_s,row\n1,1\n", "line 1: got the column 'row', expected at_s and"),
        ("at_s,at_s\n1,1\n", "line 1: got the column 'at_s'"),
        ("at_s\n0\nx\n", "line 3: at_s: got 'x', expected seconds since the start"),
        ("at_s\n-1\n", "line 2: at_s: got '-1', expected seconds"),
        ("at_s\nnan\n", "line 2: at_s: got 'nan', expected seconds"),
        ("at_s\n1700000000\n", "line 2: at_s: got '1700000000', expected seconds since the start"),
        ("at_s,rows\n,1\n", "line 2: at_s: got '', expected seconds"),
        ("at_s,rows\n1,0\n", "line 2: rows: got '0', expected an integer of at least 1"),
        ("at_s,rows\n1,1.5\n", "line 2: rows: got '1.5', expected an integer"),
        ("at_s,rows\n0,1\n1\n", "line 3: got 1 values, expected 2"),
        ("at_s,rows\n1,2,3,4\n", "line 2: got 4 values, expected 2"),
        ('at_s\n"1" 2\n', "line 2: not CSV:"),
        ('{"at_s": 0}\n{"at_s": }\n', "line 2: not JSON: Expecting value"),
        ('{"at_s": 0}\n[1]\n', "line 2: got '[1]', expected an object"),
        ('{"at_s": "soon"}\n', "line 1: at_s: got 'soon', expected seconds"),
        ('{"at_s": true}\n', "line 1: at_s: got True, expected seconds"),
        ('{"at_s": 0, "rows": 2.5}\n', "line 1: rows: got 2.5, expected an integer"),
        ('{"at_s": 0, "model": 5}\n', "line 1: model: got 5, expected the name of a model"),
        ('{"at": 0}\n', "line 1: got the column 'at', expected at_s"),
        ("at_s,model\n1,b\n2,c\n", "got requests for b, c only, expected some for --model m"),
        (b"at_s\n\xff\n", "is not text: byte 5 is 0xff"),
    ],
)
def test_a_bad_file_is_one_line_with_the_place_and_what_was_expected(read, tmp_path, text, wanted):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert str(caught.value).startswith(str(tmp_path / "trace.csv"))
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.csv: No such file"):
        schedule_file.read(tmp_path / "gone.csv", *DEFAULTS)


def test_a_long_value_is_shown_in_part(read):
    with pytest.raises(UsageError) as caught:
        read("at_s\n" + "9" * 5000 + "\n")
    assert len(str(caught.value)) < 400


def test_a_schedule_of_a_hundred_thousand_lines_is_whole(read):
    lines = "\n".join(json.dumps({"at_s": n / 1000}) for n in range(100_000))
    described, schedule = read(lines)
    assert described.requests == len(schedule.at_ns) == 100_000
    assert schedule.at_ns[-1] == pytest.approx(99.999e9, abs=1)
