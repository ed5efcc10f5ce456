import json

import pytest
import report_records

from measure.__main__ import main


def write(folder, content, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def test_a_page_of_all_results_below_some_folders(tmp_path, capsys):
    for kind, make in report_records.EVERY.items():
        write(tmp_path / "results" / kind, make(), f"{kind}.json")
    write(tmp_path / "results" / "other", {"schema": "argmax-serving/other/1"}, "other.json")
    (tmp_path / "results" / "broken.json").write_text("{")
    out = tmp_path / "new" / "page.html"
    assert main(["report", str(tmp_path / "results"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    html = out.read_text()
    assert html.count('<section class="result"') == len(report_records.EVERY)


def test_results_of_one_kind_are_told_apart_by_their_folders(tmp_path):
    for name in ("before", "after"):
        write(tmp_path / name, report_records.sweep(), "sweep.json")
    out = tmp_path / "page.html"
    places = [str(tmp_path / "before"), str(tmp_path / "after" / "sweep.json")]
    assert main(["report", *places, "--out", str(out)]) == 0
    for name in ("before", "after"):
        assert f"<h2>Batch size sweep: {tmp_path / name}</h2>" in out.read_text()


def refused(capsys, *words):
    """Run a command that is refused; its one line."""
    assert main(list(map(str, words))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("argmax-client: error: ").rstrip()


def text(content):
    return json.dumps(content).encode()


SWEEP = report_records.sweep()
BAD = {
    "empty": (b" \n", "is empty; expected JSON"),
    "truncated": (text(SWEEP)[:900], "is truncated: its JSON is not complete at the end, line 1"),
    "truncated in a word": (b'{"a": tr', "is truncated: its JSON is not complete at the end"),
    "not JSON": (b'{"a" 1}', "is not JSON: line 1, column 6: Expecting ':' delimiter"),
    "two values": (b"{} {}", "is not JSON: line 1, column 4: Extra data"),
    "a number too long": (b'{"a": ' + b"1" * 5000 + b"}", "is not JSON: Exceeds the limit"),
    "nested without end": (b"[" * 100_000, "is no result: its JSON is nested too deeply"),
    "not text": (b"\x89PNG\r\n", "is not JSON: byte 0 is 0x89; expected UTF-8"),
    "a list": (b"[1]", "is JSON of another kind: got a list, expected an object"),
    "without a schema": (b"{}", "is JSON of another kind: got no schema, expected one of argmax-"),
    "of another program": (text({"schema": 3}), "of another kind: got the schema 3, expected one"),
    "newer": (
        text(SWEEP | {"schema": "argmax-serving/sweep/20"}),
        "has the schema argmax-serving/sweep/20; this version reads argmax-serving/sweep/1: "
        "the file is newer; update argmax-serving",
    ),
    "older": (
        text(SWEEP | {"schema": "argmax-serving/sweep/0"}),
        "the file is older; measure it again",
    ),
    "of no use here": (
        text({"schema": "argmax-serving/soak/1"}),
        "has the schema argmax-serving/soak/1, which is not used here; expected one of argmax-",
    ),
    "without settings": (
        text({key: value for key, value in SWEEP.items() if key != "settings"}),
        ": the record lacks 'settings'",
    ),
    "a wrong type": (text(SWEEP | {"points": 3}), ": points: got int, expected array"),
    "a wrong type inside": (text(SWEEP | {"points": [3]}), ": points[0]: got int, expected object"),
}


@pytest.mark.parametrize("command", ["report", "diff"])
@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_among_good_ones_is_named_with_the_reason(
    tmp_path, capsys, command, content, reason
):
    write(tmp_path, SWEEP, "good.json")
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    out = ["--out", tmp_path / "page.html"] if command == "report" else []
    said = refused(capsys, command, tmp_path / "good.json", bad, *out)
    assert said.startswith(str(bad))
    assert reason in said
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("command", ["report", "diff"])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("gone.json", "gone.json: No such file or directory"),
        ("empty", "empty: no result that can be used: the folder holds no .json file"),
        ("others", "others: no result that can be used: "),
        ("good.json/below", "below: Not a directory"),
    ],
)
def test_a_bad_place_among_good_ones_is_named(tmp_path, capsys, command, place, reason):
    write(tmp_path, SWEEP, "good.json")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "others", {"name": "package"}, "package.json")
    out = ["--out", tmp_path / "page.html"] if command == "report" else []
    said = refused(capsys, command, tmp_path / "good.json", tmp_path / place, *out)
    assert reason in said


def test_a_folder_of_bad_files_says_of_some_what_is_wrong(tmp_path, capsys):
    for number in range(5):
        (tmp_path / f"{number}.json").write_text("{")
    said = refused(capsys, "report", tmp_path, "--out", tmp_path / "page.html")
    assert said.count("is truncated") == 3
    assert said.endswith("; and 2 more")


def test_results_in_a_folder_that_cannot_be_read_are_warned_of(tmp_path, capsys):
    write(tmp_path / "a", SWEEP, "good.json")
    write(tmp_path / "a", SWEEP | {"schema": "argmax-serving/sweep/2"}, "newer.json")
    write(tmp_path / "a", {"name": "package"}, "package.json")
    (tmp_path / "a" / "cut.json").write_bytes(text(SWEEP)[:900])
    out = tmp_path / "page.html"
    assert main(["report", str(tmp_path), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    cut, newer = said.err.splitlines()
    assert cut.startswith(f"warning: {tmp_path / 'a' / 'cut.json'} is truncated")
    assert newer.startswith(f"warning: {tmp_path / 'a' / 'newer.json'} has the schema")
    assert main(["diff", str(tmp_path), str(tmp_path)]) == 0
    assert capsys.readouterr().err.count("; it is not compared\n") == 4


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_results_that_an_editor_saved_anew_are_read(tmp_path, capsys, encoding):
    path = tmp_path / "sweep.json"
    path.write_bytes(json.dumps(SWEEP, indent=1).replace("\n", "\r\n").encode(encoding))
    assert main(["report", str(path), "--out", str(tmp_path / "page.html")]) == 0
    assert main(["diff", str(path), str(path)]) == 0
    assert capsys.readouterr().err == ""


# Plans, comparisons and loads take longer to draw.
@pytest.mark.parametrize("kind", ["limits", "aa", "overload"])
@pytest.mark.parametrize("value", [None, "text", [3], {"a": []}, -1])
def test_no_value_of_a_record_ends_a_report_with_a_traceback(tmp_path, capsys, kind, value):
    content = report_records.EVERY[kind]()
    path, out = tmp_path / "bad.json", tmp_path / "page.html"
    for key in content.keys() - {"schema"}:
        path.write_bytes(text(content | {key: value}))
        if main(["report", str(path), "--out", str(out)]) == 2:
            err = capsys.readouterr().err
            assert err.startswith(f"argmax-client: error: {path}")
            assert err.count("\n") == 1
        capsys.readouterr()
