import json

import report_records

from client.__main__ import main


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


def test_what_is_no_result_is_one_line(tmp_path, capsys):
    out = ["--out", str(tmp_path / "page.html")]
    assert main(["report", str(tmp_path), *out]) == 2
    assert "no result that can be used" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none.json"), *out]) == 2
    assert "none.json" in capsys.readouterr().err
    write(tmp_path, report_records.sweep() | {"points": 3}, "sweep.json")
    assert main(["report", str(tmp_path), *out]) == 2
    assert "sweep.json: points is int; it must be a list" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
