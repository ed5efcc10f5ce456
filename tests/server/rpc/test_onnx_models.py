"""Models that know nothing of this service: node tests of the onnx package, with known answers."""

import importlib
import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases

from server.app.config import Config
from server.app.server import Server
from server.errors import StartError

# Cases by the module of onnx.backend.test.case.node that makes them.
CASES = {
    "abs": ["test_abs"],
    "add": ["test_add", "test_add_bcast", "test_add_uint8"],
    "argmax": ["test_argmax_no_keepdims_random", "test_argmax_negative_axis_keepdims_random"],
    "bitshift": [
        "test_bitshift_left_uint8",
        "test_bitshift_right_uint32",
        "test_bitshift_right_uint64",
    ],
    "bitwiseand": ["test_bitwise_and_i16_3d", "test_bitwise_and_ui64_bcast_3v1d"],
    "cast": [
        "test_cast_FLOAT_to_BFLOAT16",
        "test_cast_BFLOAT16_to_FLOAT",
        "test_cast_FLOAT16_to_DOUBLE",
        "test_cast_DOUBLE_to_FLOAT16",
    ],
    "clip": ["test_clip"],
    "compress": ["test_compress_0"],
    "concat": ["test_concat_3d_axis_1"],
    "constant": ["test_constant"],
    "constantofshape": ["test_constantofshape_int_shape_zero", "test_constantofshape_float_ones"],
    "conv": ["test_basic_conv_with_padding"],
    "cumsum": ["test_cumsum_2d_axis_0"],
    "dropout": ["test_dropout_default_mask"],
    "dynamicquantizelinear": ["test_dynamicquantizelinear"],
    "equal": ["test_equal", "test_equal_string"],
    "expand": ["test_expand_dim_changed"],
    "eyelike": ["test_eyelike_with_dtype"],
    "gather": ["test_gather_negative_indices"],
    "gemm": ["test_gemm_default_scalar_bias"],
    "gru": ["test_gru_seq_length"],
    "identity": ["test_identity"],
    "isnan": ["test_isnan_float16"],
    "layernormalization": ["test_layer_normalization_3d_axis1_epsilon"],
    "loop": ["test_loop11"],
    "lstm": ["test_lstm_with_peepholes"],
    "matmul": ["test_matmul_1d_1d", "test_matmul_4d"],
    "matmulinteger": ["test_matmulinteger"],
    "max": ["test_max_float64", "test_max_int8"],
    "maxpool": ["test_maxpool_with_argmax_2d_precomputed_pads"],
    "nonzero": ["test_nonzero_example"],
    "onehot": ["test_onehot_without_axis"],
    "rangeop": ["test_range_int32_type_negative_delta"],
    "reducesum": ["test_reduce_sum_empty_set", "test_reduce_sum_empty_set_non_reduced_axis_zero"],
    "reshape": ["test_reshape_allowzero_reordered"],
    "scan": ["test_scan9_sum"],
    "sub": ["test_sub_uint16"],
    "shape": ["test_shape", "test_shape_start_greater_than_end"],
    "size": ["test_size"],
    "softmax": ["test_softmax_axis_2", "test_softmax_large_number"],
    "split": ["test_split_zero_size_splits_opset18", "test_split_variable_parts_2d_opset18"],
    "string_concat": ["test_string_concat_utf8", "test_string_concat_zero_dimensional"],
    "string_split": ["test_string_split_maxsplit"],
    "tfidfvectorizer": ["test_tfidfvectorizer_tf_batch_onlybigrams_skip0"],
    "topk": ["test_top_k"],
    "trilu": ["test_tril_zero"],
    "unique": ["test_unique_sorted_without_axis"],
    "where": ["test_where_long_example"],
    "xor": ["test_xor3d", "test_xor_bcast4v4d"],
}
NAMES = [name for names in CASES.values() for name in names]
# Those that compute each row by itself, so that their first axis may be a batch.
ROW_WISE = [
    "test_abs",
    "test_add",
    "test_xor3d",
    "test_argmax_negative_axis_keepdims_random",
    "test_bitwise_and_i16_3d",
    "test_cast_FLOAT_to_BFLOAT16",
    "test_cast_BFLOAT16_to_FLOAT",
    "test_cast_DOUBLE_to_FLOAT16",
    "test_dropout_default_mask",
    "test_equal_string",
    "test_softmax_axis_2",
    "test_string_concat_utf8",
    "test_tfidfvectorizer_tf_batch_onlybigrams_skip0",
]


@pytest.fixture(scope="module")
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the overflows that some cases are about
        for module in CASES:
            importlib.import_module(f"{node_cases.__name__}.{module}")
    # Its public function makes the cases of all modules, which takes seconds.
    return {case.name: case for case in node_cases._NodeTestCases}


@pytest.fixture(scope="module")
def caller(cases, serve, call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    for name in NAMES:
        save(folder, name, cases[name].model)
    for name in ROW_WISE:
        save(folder, f"{name}_by_row", with_free_rows(cases[name].model))
    return call(serve(folder, threads=1).address)


def save(folder, name, model):
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def with_free_rows(model):
    """The same graph with a first axis of any size."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for value in (*changed.graph.input, *changed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "rows"
    return changed


def data_of(case):
    """Inputs by name, and outputs by name."""
    inputs, outputs = case.data_sets[0]
    graph = case.model.graph
    return (
        {value.name: as_array(data) for value, data in zip(graph.input, inputs, strict=True)},
        {value.name: as_array(data) for value, data in zip(graph.output, outputs, strict=True)},
    )


def as_array(data):
    return numpy_helper.to_array(data) if isinstance(data, onnx.TensorProto) else np.asarray(data)


def check(case, response, wanted):
    assert [tensor.name for tensor in response.outputs] == list(wanted)
    for tensor in response.outputs:
        right = wanted[tensor.name]
        assert tensor.shape == right.shape
        if right.dtype.kind in "OU":
            words = [word.decode() for word in tensor.data.reshape(-1)]
            assert words == right.reshape(-1).tolist()
            continue
        assert tensor.data.dtype == right.dtype
        np.testing.assert_allclose(
            np.asarray(tensor.data, np.float64),
            np.asarray(right, np.float64),
            rtol=case.rtol,
            atol=case.atol,
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_the_known_one(caller, cases, name):
    inputs, wanted = data_of(cases[name])
    check(cases[name], caller.infer(caller.message(name, **inputs)), wanted)


@pytest.mark.parametrize("name", ROW_WISE)
def test_rows_are_answered_alone_and_in_batches(caller, cases, name):
    inputs, wanted = data_of(cases[name])
    model = f"{name}_by_row"
    assert caller.control("ModelConfig", name=model).config.max_batch_size > 0
    rows = len(next(iter(inputs.values())))
    assert rows > 1
    for parts in ([slice(0, rows)], [slice(row, row + 1) for row in range(rows)]):
        messages = [
            caller.message(model, **{name: data[part] for name, data in inputs.items()})
            for part in parts
        ]
        for part, (text, response) in zip(parts, caller.stream(messages), strict=True):
            assert text == ""
            check(cases[name], response, {name: data[part] for name, data in wanted.items()})


def test_datatypes_ranks_and_counts_are_covered(cases):
    """What the selection above is meant to hold."""
    tensors, counts = [], set()
    for name in NAMES:
        inputs, outputs = data_of(cases[name])
        tensors += [*inputs.values(), *outputs.values()]
        counts.add((len(inputs), len(outputs)))
    assert len(NAMES) >= 40
    kinds = {"string" if data.dtype.kind in "OU" else data.dtype.name for data in tensors}
    integers = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    floats = {"float16", "bfloat16", "float32", "float64"}
    assert kinds == {"bool", "string", *integers, *floats}
    assert {data.ndim for data in tensors} >= {0, 1, 2, 3, 4}
    assert any(data.size == 0 for data in tensors)
    assert {0, 1, 2, 3} <= {given for given, _ in counts}
    assert {1, 2, 3, 4} <= {answered for _, answered in counts}


@pytest.mark.parametrize("name", ["test_identity_sequence", "test_loop13_seq"])
def test_sequences_are_refused_when_the_server_starts(cases, tmp_path, name):
    save(tmp_path, name, cases[name].model)
    with pytest.raises(
        StartError, match=rf"{name}.*seq\(tensor\(float\)\), which is not supported"
    ):
        Server(Config(models=tmp_path, address="127.0.0.1:0"))
