import grpc
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from client.shared_memory import SharedArray
from model.export import export
from model.weights import from_seed
from protos.codec import InferRequest, encode_request
from server.batching import nan_check
from server.errors import InvalidInput

CLASSES, FEATURES, GROUP_ROWS = 4, 8, 4
BAD_VALUES = (np.nan, np.inf, -np.inf)
FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)

Code = grpc.StatusCode


def refusal(data, first_row=0):
    """The text that a tensor is refused with, '' where it is taken."""
    try:
        nan_check.check("x", data, first_row)
    except InvalidInput as error:
        return str(error)
    return ""


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", BAD_VALUES)
def test_the_rows_that_are_not_finite_are_named(dtype, value):
    data = np.ones((6, 3, 2), dtype)
    data[1, 2, 1] = data[4, 0, 0] = value
    assert refusal(data).startswith("rows 1, 4 of input 'x' have NaN or infinite values")
    assert refusal(data, 100).startswith("rows 101, 104 of")


def test_of_many_rows_the_first_are_named():
    assert "rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 90 more of" in refusal(np.full(100, np.nan))


@pytest.mark.parametrize("dtype", FLOATS)
def test_finite_values_whose_sum_is_not_are_taken(dtype):
    assert refusal(np.full((3, 4), ml_dtypes.finfo(dtype).max, dtype)) == ""


@pytest.mark.parametrize("data", [np.ones(3, bool), np.ones((2, 2), int), np.array(["a", b"b"])])
def test_other_datatypes_are_always_finite(data):
    assert refusal(data) == ""


def test_a_scalar_is_a_row():
    assert refusal(np.float32(1).reshape(())) == ""
    assert "rows 0 of" in refusal(np.float32(np.nan).reshape(()))


@given(npst.arrays(np.float32, npst.array_shapes(max_dims=3), elements=st.floats(width=32)))
def test_a_tensor_is_refused_exactly_when_it_holds_a_value_that_is_not_finite(data):
    assert bool(refusal(data)) == (not np.isfinite(data).all())


# The policy, in a server.


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def callers(serve, call, models):
    """A caller for each policy."""
    return {
        policy: call(serve(models, group_rows=GROUP_ROWS, non_finite=policy).address)
        for policy in ("pass", "reject")
    }


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(1).standard_normal((GROUP_ROWS, FEATURES), np.float32)


def scores(answer):
    (tensor,) = answer.outputs
    return tensor.data


@pytest.mark.parametrize("value", BAD_VALUES)
def test_by_default_such_rows_are_computed_and_touch_no_other(callers, rows, value):
    caller = callers["pass"]
    clean = scores(caller.infer(caller.message("linear", outputs=["scores"], x=rows)))
    dirty_rows = rows.copy()
    dirty_rows[2, 3] = value
    message = caller.message("linear", outputs=["scores"], x=dirty_rows)
    dirty = scores(caller.infer(message))
    assert not np.isfinite(dirty[2]).any()
    others = [0, 1, 3]
    assert dirty[others].tobytes() == clean[others].tobytes()


@pytest.mark.parametrize("policy", ["pass", "reject"])
def test_rows_of_other_requests_in_the_batch_are_unchanged(callers, rows, policy):
    caller = callers[policy]
    clean = scores(caller.infer(caller.message("linear", outputs=["scores"], x=rows)))
    dirty_rows = rows.copy()
    dirty_rows[1] = np.nan
    # What is said to be followed waits for the others, so that all share a batch.
    messages = [
        caller.message(
            "linear",
            outputs=["scores"],
            id=str(number),
            parameters={"more_follows": number < GROUP_ROWS - 1},
            x=dirty_rows[number : number + 1],
        )
        for number in range(GROUP_ROWS)
    ]
    for number, (text, answer) in enumerate(caller.stream(messages)):
        if number != 1:
            assert text == ""
            np.testing.assert_allclose(scores(answer), clean[number : number + 1], rtol=1e-5)
        elif policy == "reject":
            assert text.startswith("rows 0 of input 'x' have NaN")
        else:
            assert np.isnan(scores(answer)).all()


def test_a_request_that_is_refused_runs_nothing(callers, rows):
    caller = callers["reject"]
    before = caller.statistics("linear").inference_count
    bad = rows.copy()
    bad[3, 0] = np.inf
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(caller.message("linear", x=bad))
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert caught.value.details().startswith("rows 3 of input 'x'")
    assert caller.statistics("linear").inference_count == before


@pytest.mark.parametrize("rows_each", [1, 3 * GROUP_ROWS])
def test_rows_in_shared_memory_are_refused_too(callers, rows_each):
    caller = callers["reject"]
    with SharedArray((rows_each, FEATURES), np.float32) as shared:
        shared.array[...] = 1
        shared.array[-1, 2] = np.nan
        caller.control(
            "SystemSharedMemoryRegister",
            name=shared.key,
            key=shared.key,
            byte_size=shared.byte_size,
        )
        message = encode_request(
            InferRequest(model_name="linear", inputs=(shared.rows("x", 0, rows_each),))
        )
        with pytest.raises(grpc.RpcError) as caught:
            caller.infer(message)
        shared.array[-1, 2] = 1
        answer = caller.infer(message)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert f"rows {rows_each - 1} of input 'x'" in caught.value.details()
    assert len(answer.outputs[0].data) == rows_each
