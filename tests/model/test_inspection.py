import html
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model.__main__ import main
from model.errors import ModelError
from model.export import export
from model.inspect import page as inspection_page
from model.inspect import picture
from model.inspect.contents import inspect
from model.inspect.text import size, text
from model.weights import from_seed

W = from_seed(3, 40, 0)
WIDE = 200


def section(said, name):
    """Return the lines of a section of the text, split into words."""
    lines = said.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name} "))
    rest = [lines[start]]
    for line in lines[start + 1 :]:
        if not line.startswith(" "):
            break
        rest.append(line)
    return [line[14:].split() for line in rest]


def test_an_exported_model_is_described(tmp_path):
    path = export(tmp_path, "m", W, "float32", 5, wire="int8")
    said = text(inspect(tmp_path), WIDE)
    assert section(said, "model") == [[str(path)]]
    assert section(said, "size") == [size(path.stat().st_size).split()]
    assert section(said, "opset") == [["ai.onnx", "13,", "IR", "7"]]
    assert section(said, "inputs") == [["x", "int8", "[batch,", "40]"]]
    assert section(said, "outputs") == [
        ["label", "int64", "[batch]"],
        ["scores", "float32", "[batch,", "3]"],
    ]
    assert section(said, "operators") == [
        ["DequantizeLinear", "1"],
        ["MatMul", "1"],
        ["ArgMax", "1"],
    ]
    assert section(said, "initializers") == [
        ["wire_scale", "float32", "[]", "4", "bytes"],
        ["W", "float32", "[40,", "3]", "480", "bytes"],
    ]
    assert ["seed", "5"] in section(said, "metadata")


def test_external_data_is_measured_but_not_read(tmp_path):
    path = export(tmp_path, "m", W, "float64", inline_limit_bytes=0)
    (data,) = path.parent.glob("*.data")
    data.unlink()
    found = inspect(path)
    assert found.external_bytes == W.nbytes
    assert [tensor.file for tensor in found.initializers] == [data.name]
    assert f"{size(path.stat().st_size)}, and 960 bytes beside it" in text(found, WIDE)
    assert f"960 bytes  in {data.name}" in text(found, WIDE)


def test_subgraphs_domains_strings_and_old_initializers_are_counted(graphs):
    graphs.add_steps()
    found = inspect(graphs.folder / "steps")
    assert found.operators == {"Add": 2, "ReduceMax": 1, "Loop": 1, "Identity": 1, "Sub": 1}
    names = onnx.numpy_helper.from_array(np.array(["ä", "b"], object), "names")
    graph = helper.make_graph(
        [helper.make_node("Odd", ["x", "names"], ["y"], domain="own")],
        "old",
        [
            helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [None, 2]),
            helper.make_tensor_value_info("names", TensorProto.STRING, [2]),
        ],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
        [names],
    )
    path = graphs.folder / "old.onnx"
    onnx.save(helper.make_model(graph, ir_version=3), path)
    found = inspect(path)
    assert found.operators == {"own.Odd": 1}
    assert [(value.name, value.dtype, value.shape) for value in found.inputs] == [
        ("x", "bfloat16", "[?, 2]")
    ]
    assert [(value.name, value.dtype) for value in found.outputs] == [("y", "sequence")]
    assert [(t.name, t.dtype, t.size_bytes) for t in found.initializers] == [("names", "string", 3)]


def test_it_is_said_whether_requests_would_share_executions(tmp_path, graphs):
    export(tmp_path, "m", W, "float32")
    assert section(text(inspect(tmp_path), WIDE), "batching") == [["on"]]
    row = ("float32", ["batch", 2])
    for name, node, taken, given, reason in (
        (
            "sum",
            helper.make_node("Softmax", ["x"], ["y"], axis=0),
            row,
            row,
            "Softmax 'y' works along",
        ),
        ("fixed", helper.make_node("Neg", ["x"], ["y"]), ("float32", [2, 2]), row, "no first axis"),
        ("own", helper.make_node("Neg", ["x"], ["y"]), row, ("float32", ["n", 2]), "named 'batch'"),
    ):
        path = graphs.add(name, [node], {"x": taken}, {"y": given})
        found = inspect(path)
        assert reason in found.unbatched
        assert f"off: {found.unbatched}" in text(found, WIDE)
        assert f"off: {found.unbatched}" in html.unescape(inspection_page.render(found))


def test_long_metadata_are_cut_in_the_text(tmp_path):
    path = export(tmp_path, "m", W, "float32")
    model = onnx.load(path)
    helper.set_model_props(model, {"labels": "a" * 5000, "lines": "one\ntwo"})
    onnx.save(model, path)
    metadata = section(text(inspect(path), WIDE), "metadata")
    assert metadata[0] == ["labels", "a" * 100 + "...", "(5000", "characters)"]
    assert metadata[1] == ["lines", "one", "two"]
    assert "a" * 5000 in inspection_page.render(inspect(path))


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x07"])
def test_what_is_no_graph_is_refused(tmp_path, capsys, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert main(["inspect", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"argmax-model: error: .*m\.onnx .*expected an ONNX graph\n", err)


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (2**26, "64.0 MiB"),
        (3 << 40, "3072.0 GiB"),
    ],
)
def test_sizes_are_in_the_unit_that_suits_them(size_bytes, said):
    assert size(size_bytes) == said


# The page.


class Seen(HTMLParser):
    """What a page shows and loads."""

    def __init__(self, page):
        super().__init__()
        self.words, self.loads, self.boxes, self.paths = [], [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.loads += [given[name] for name in ("src", "href") if name in given]
        if tag == "rect":
            self.boxes.append({name: float(given[name]) for name in ("x", "y", "width", "height")})
        if tag == "path" and "marker-end" in given:
            self.paths += 1

    def handle_data(self, data):
        if data.strip():
            self.words.append(data.strip())


def test_the_command_writes_a_page_that_needs_nothing_else(tmp_path, capsys):
    export(tmp_path, "m", W, "float32", 5)
    page = tmp_path / "page.html"
    assert main(["inspect", str(tmp_path / "m"), "--html", str(page)]) == 0
    assert "ArgMax" in capsys.readouterr().out
    seen = Seen(page.read_text())
    assert seen.loads == ["data:,"]
    assert "url(#tip)" in page.read_text()
    for word in (
        "MatMul",
        "ArgMax",
        "W [40, 3]",
        "float32 [batch, 40]",
        "int64 [batch]",
        "seed",
        "5",
    ):
        assert word in seen.words
    assert (len(seen.boxes), seen.paths) == (5, 4)


def test_names_in_a_graph_are_only_text_on_the_page(tmp_path):
    path = export(tmp_path, "m", W, "float32")
    model = onnx.load(path)
    model.graph.name = "<script>alert(1)</script>"
    onnx.save(model, path)
    assert "<script" not in inspection_page.render(inspect(path))


def shortcuts(folder, steps):
    """A chain in which every second operator also gets what the one before gave."""
    nodes, last = [], "x"
    for i in range(steps):
        nodes += [
            helper.make_node("Relu", [last], [f"r{i}"]),
            helper.make_node("Neg", [f"r{i}"], [f"n{i}"]),
            helper.make_node("Add", [f"n{i}", last], [f"a{i}"]),
        ]
        last = f"a{i}"
    graph = helper.make_graph(
        nodes,
        "shortcuts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [
            helper.make_tensor_value_info("a0", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, 2]),
        ],
    )
    path = folder / "shortcuts.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    return inspect(path)


def test_boxes_do_not_overlap_and_edges_go_down_past_them(tmp_path):
    drawn = picture.picture(shortcuts(tmp_path, 5))
    assert len(drawn.boxes) == 1 + 15 + 2
    assert len(drawn.edges) == 20 + 2
    for i, a in enumerate(drawn.boxes):
        assert a.x >= 0
        assert a.y >= 0
        assert a.x + a.width <= drawn.width
        assert a.y + a.height <= drawn.height
        for b in drawn.boxes[i + 1 :]:
            apart = (
                a.x + a.width <= b.x
                or b.x + b.width <= a.x
                or a.y + a.height <= b.y
                or b.y + b.height <= a.y
            )
            assert apart
    for edge in drawn.edges:
        for (x, y), (to_x, to_y) in pairwise(edge.points):
            assert y < to_y
            beside = [b for b in drawn.boxes if b.y < to_y and y < b.y + b.height]
            # Past a layer an edge goes straight down; between two there is nothing to meet.
            assert not beside or x == to_x
            assert not [b for b in beside if b.x <= x <= b.x + b.width]


def test_a_graph_beyond_the_limit_is_not_drawn(tmp_path):
    found = shortcuts(tmp_path, picture.MOST_OPERATORS // 3 + 1)
    assert picture.picture(found) is None
    assert "too large to draw" in inspection_page.render(found)


def test_a_graph_that_runs_in_a_circle_is_refused(tmp_path):
    found = shortcuts(tmp_path, 2)
    found.graph.node[0].input[0] = "a1"
    with pytest.raises(ModelError, match="has a cycle"):
        picture.picture(found)
