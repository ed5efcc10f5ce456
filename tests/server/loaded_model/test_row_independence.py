"""What a server batches, and that no answer depends on what else it was asked."""

import logging
import re

import grpc
import numpy as np
import onnx
import pytest
from conftest import ROWS_MAY_MIX
from onnx import helper
from onnx.reference import ReferenceEvaluator
from row_graphs import INDEPENDENT, MIXING, OWN_AXES_IN, OWN_AXES_OUT

from protos.codec import decode_response
from server.loaded_model.row_probe import probe, same
from server.onnx.engine import Engine

CLIENTS, DRAWN = 60, 4
UNBATCHED = {
    f"{kind}: {name}": case
    for kind, cases in (("mixing", MIXING), ("in", OWN_AXES_IN), ("out", OWN_AXES_OUT))
    for name, case in cases.items()
}
BATCHED = {f"apart: {name}": case for name, case in INDEPENDENT.items()}
ALL = UNBATCHED | BATCHED
NEG = helper.make_node("Neg", ["x"], ["y"])
SOFTMAX = MIXING["softmax"]

Code = grpc.StatusCode


def folder_name(name):
    return re.sub(r"\W+", "_", name)


def add(graphs, name, case, config=None):
    path = graphs.add(folder_name(name), case.nodes, case.inputs, case.outputs, case.constants)
    if config is not None:
        (path.parents[1] / "config.pbtxt").write_text(config)
    return path


@pytest.fixture(scope="module")
def models(graphs):
    """Every case, and where its graph is."""
    return {name: add(graphs, name, case) for name, case in ALL.items()}


@pytest.fixture(scope="module")
def caller(serve, call, graphs, models):
    # Requests that may share an execution wait for one another.
    return call(serve(graphs.folder, queue_delay_us=20_000, max_waiting=CLIENTS).address)


@pytest.fixture(scope="module")
def explicit(serve, call, tmp_path_factory):
    """A caller of a server that loads what is written into its folder, and that folder."""
    folder = tmp_path_factory.mktemp("explicit")
    return call(serve(folder, model_control="explicit").address), folder


@pytest.fixture
def configured(explicit, graphs, request):
    """Load a case by a configuration; what ModelConfig says of it."""
    caller, graphs.folder = explicit
    name = folder_name(request.node.name)

    def load(case, config=""):
        if not (graphs.folder / name).exists():
            add(graphs, name, case)
        (graphs.folder / name / "config.pbtxt").write_text(config)
        caller.control("RepositoryModelLoad", model_name=name)
        return caller.control("ModelConfig", name=name).config

    return load


def answers(call):
    """Outputs of one call by name, texts as strings."""
    text = np.vectorize(bytes.decode, otypes=[object])
    return {
        tensor.name: text(tensor.data) if tensor.data.dtype.hasobject else tensor.data
        for tensor in call.outputs
    }


def assert_right(got, wanted, name):
    assert got.shape == wanted.shape, name
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=name)
    else:
        np.testing.assert_array_equal(got, wanted, err_msg=name)


@pytest.mark.parametrize("name", ALL)
def test_clients_at_once_each_get_the_answer_of_the_reference(caller, models, name):
    case, model = ALL[name], folder_name(name)
    rng = np.random.default_rng(0)
    # Only requests of one shape beside the rows can share an execution.
    drawn = [case.draw(rng, tokens=3, length=4) for _ in range(DRAWN)]
    reference = ReferenceEvaluator(onnx.load(models[name]))
    wanted = [
        dict(zip(reference.output_names, reference.run(None, inputs), strict=True))
        for inputs in drawn
    ]
    messages = [caller.message(model, **inputs) for inputs in drawn]
    before = caller.statistics(model).execution_count
    calls = [caller.infer_later(messages[number % DRAWN]) for number in range(CLIENTS)]
    for number, pending in enumerate(calls):
        got = answers(decode_response(pending.result()))
        for output, right in wanted[number % DRAWN].items():
            assert_right(got[output], np.asarray(right), output)
    executions = caller.statistics(model).execution_count - before
    assert executions == CLIENTS if name in UNBATCHED else executions < CLIENTS


def test_the_kinds_are_covered():
    assert min(map(len, (MIXING, OWN_AXES_IN, OWN_AXES_OUT))) >= 8
    assert len(INDEPENDENT) >= 10


@pytest.mark.parametrize("name", UNBATCHED)
def test_a_model_that_may_mix_rows_says_why_it_is_not_batched(caller, name):
    told = caller.control("ModelConfig", name=folder_name(name)).config
    assert told.max_batch_size == 0
    assert not told.HasField("dynamic_batching")
    assert told.parameters["batching"].string_value.startswith("off: ")


@pytest.mark.parametrize("name", BATCHED)
def test_a_model_that_keeps_rows_apart_is_batched(caller, name):
    told = caller.control("ModelConfig", name=folder_name(name)).config
    assert told.max_batch_size == 1024
    assert told.parameters["batching"].string_value == "on"


@pytest.mark.parametrize("case", MIXING.values(), ids=MIXING)
def test_a_written_batch_size_that_rows_contradict_is_refused(configured, case):
    with pytest.raises(grpc.RpcError) as caught:
        configured(case, "max_batch_size: 8")
    assert caught.value.code() is Code.INVALID_ARGUMENT
    text = caught.value.details()
    assert "max_batch_size is 8, but rows are not independent: " in text
    assert "rows_may_mix" in text
    assert "max_batch_size: 0" in text


def test_the_refusal_names_the_output(configured):
    with pytest.raises(grpc.RpcError, match="output 'y' of a row changes with the other rows"):
        configured(SOFTMAX, "max_batch_size: 8")


@pytest.mark.parametrize(("name", "shape"), [("two rows an example", [14, 2]), ("twice", [14, 2])])
def test_outputs_with_another_number_of_rows_contradict_a_batch_size_too(configured, name, shape):
    with pytest.raises(grpc.RpcError) as caught:
        configured(OWN_AXES_OUT[name], "max_batch_size: 8")
    assert f"output 'y' has shape {shape} for 7 rows" in caught.value.details()


@pytest.mark.parametrize(("size", "most"), [("max_batch_size: 8", 8), ("", 1024)])
def test_rows_may_mix_where_that_is_meant(configured, size, most):
    assert configured(SOFTMAX, f"{size} {ROWS_MAY_MIX}").max_batch_size == most


def test_what_rows_may_do_is_true_or_false(configured):
    assert configured(SOFTMAX, ROWS_MAY_MIX.replace("true", "false")).max_batch_size == 0
    with pytest.raises(grpc.RpcError) as caught:
        configured(SOFTMAX, ROWS_MAY_MIX.replace("true", "yes"))
    assert "rows_may_mix is 'yes'; expected 'true' or 'false'" in caught.value.details()


def test_a_written_batch_size_counts_where_rows_do_not_contradict_it(configured, explicit):
    # That the count it adds and takes away is nothing is more than can be proved.
    case = MIXING["divided by the number of rows"]
    undone = helper.make_node("Mul", ["part", "number"], ["y"])
    divided = helper.make_node("Div", ["x", "number"], ["part"])
    both = type(case)(
        [*case.nodes[:-1], divided, undone], case.inputs, case.outputs, case.constants
    )
    assert configured(both).parameters["batching"].string_value.startswith("off: operator Div")
    told = configured(both, "max_batch_size: 8")
    assert (told.max_batch_size, told.parameters["batching"].string_value) == (8, "on")


@pytest.mark.parametrize("config", ["max_batch_size: 0", "dynamic_batching { }"])
def test_a_doubtful_model_can_be_configured_all_the_same(configured, config):
    told = configured(SOFTMAX, config)
    assert told.max_batch_size == 0
    assert not told.HasField("dynamic_batching")


def test_one_log_line_names_the_reason_and_the_setting(configured, caplog):
    with caplog.at_level(logging.WARNING):
        configured(SOFTMAX)
    (record,) = caplog.records
    assert "operator Softmax 'y' works along the axis" in record.reason
    assert "max_batch_size" in record.setting


@pytest.mark.parametrize("config", ["max_batch_size: 0", 'input { name: "x" dims: [-1, 3] }'])
def test_nothing_is_logged_where_the_configuration_decides(configured, caplog, config):
    with caplog.at_level(logging.WARNING):
        configured(SOFTMAX, config)
    assert caplog.records == []


def test_the_process_that_tries_a_model_decides_for_the_server(launch, graphs, call, tmp_path):
    graphs.folder = tmp_path
    add(graphs, "mixing", SOFTMAX)
    add(graphs, "apart", INDEPENDENT["two layers"])
    process = launch(tmp_path, validation=True)
    caller = call(process.address)
    sizes = {
        name: caller.control("ModelConfig", name=name).config.max_batch_size
        for name in ("mixing", "apart")
    }
    assert sizes == {"mixing": 0, "apart": 1024}
    (line,) = [line for line in process.said() if "rows may not be independent" in line]
    assert "Softmax" in line


def test_shapes_that_do_not_fit_each_other_are_invalid_argument(caller):
    a, b = np.ones((2, 3), np.float32), np.ones((4, 5), np.float32)
    message = caller.message(folder_name("in: product"), x=a, b=b)
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(message)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert "'x' [2, 3], 'b' [4, 5]" in caught.value.details()


# Names of first axes.

NAMES = [
    (["n", 2], ["n", 2], True),
    (["n", 2], ["m", 2], False),
    (["n", "n"], ["n", "n"], False),
    ([None, 2], ["n", 2], True),
    (["unk__3", 2], ["unk__4", 2], True),
    (["batch", 2], ["Neg_y_dim_0", 2], True),
]


@pytest.mark.parametrize(("taken", "given", "batched"), NAMES)
def test_first_axes_are_one_batch_axis_unless_their_names_differ(configured, taken, given, batched):
    case = type(SOFTMAX)([NEG], {"x": ("float32", taken)}, {"y": ("float32", given)}, {})
    told = configured(case)
    assert (told.max_batch_size > 0) is batched
    assert ("axis" in told.parameters["batching"].string_value) is not batched


# What the probe sees.


def engine(graphs, tmp_path, case):
    graphs.folder = tmp_path
    return Engine(add(graphs, "model", case), 1)


def test_a_probe_stays_below_the_most_rows_and_exceeds_a_group(graphs, tmp_path, monkeypatch):
    tried = engine(graphs, tmp_path, INDEPENDENT["two layers"])
    sizes = []
    run = tried.run
    monkeypatch.setattr(
        tried, "run", lambda names, rows: sizes.append(len(rows["x"])) or run(names, rows)
    )
    assert probe(tried, 1024, 64).change == ""
    assert {1, 2, 3, 7, 65} <= set(sizes)
    sizes.clear()
    assert probe(tried, 5, 64).change == ""
    assert max(sizes) == 5
    sizes.clear()
    probe(tried, 1, 64)
    assert sizes == []


def test_what_differs_from_run_to_run_shows_nothing(graphs, tmp_path):
    nodes = [
        helper.make_node("RandomUniformLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    shape = ("float32", ["n", 3])
    found = probe(
        engine(graphs, tmp_path, type(SOFTMAX)(nodes, {"x": shape}, {"y": shape}, {})), 8, 4
    )
    assert "when run again" in found.unclear
    assert found.change == ""


@pytest.mark.parametrize(
    ("operator", "constant"),
    [("Gather", np.ones(1, np.int64)), ("Div", np.array([8], np.int64))],
)
def test_integers_that_a_graph_does_not_refuse_are_found(graphs, tmp_path, operator, constant):
    values = ("int64", ["n"])
    case = type(SOFTMAX)(
        [helper.make_node(operator, ["constant", "x"], ["y"])],
        {"x": values},
        {"y": values},
        {"constant": constant},
    )
    found = probe(engine(graphs, tmp_path, case), 8, 4)
    assert (found.change, found.unclear) == ("", "")


def test_rounding_is_no_difference_and_other_values_are():
    one = np.array([1, np.nan, np.inf, 0], np.float32)
    assert same(one, one * np.float32(1.00001), 1e-4)
    assert not same(one, np.array([1, 0, np.inf, 0], np.float32), 1e-4)
    assert not same(one, np.array([1, np.nan, np.inf, 1e-3], np.float32), 1e-4)
    assert not same(np.array([1]), np.array([2]), 1)
