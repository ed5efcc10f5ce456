"""Build the linear model as an ONNX graph that lacks only the numbers of W."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.errors import ModelError
from protos.quantize import DEFAULT_SCALE, wire_scale

# The oldest pair in which ArgMax takes doubles and selects the winner of ties: ORT 1.7 reads it.
OPSET = 13
IR_VERSION = 7

ELEMENT_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
WEIGHTS, BIAS, SCALE = "W", "b", "wire_scale"
WIRE_TYPES = {"float16": TensorProto.FLOAT16, "int8": TensorProto.INT8}


@dataclass(frozen=True, slots=True)
class Wire:
    """Input dtype of a graph if narrower than that of the computation; int8 has a scale."""

    dtype: str
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the tensors in a linear graph."""

    x: str = "x"
    wide: str = "wide"
    weights: str = WEIGHTS
    product: str = "product"
    bias: str = BIAS
    scale: str = SCALE
    scores: str = "scores"
    label: str = "label"


def checked_wire(dtype: str | None, scale: float | None, computed: str) -> Wire | None:
    """Check the input dtype of a graph; None if it is that of the computation.

    Raises:
        ModelError: a wire or scale that a model of this dtype cannot have.
    """
    if scale is not None and dtype != "int8":
        raise ModelError(f"got a scale of {scale} with wire {dtype or computed}, expected int8")
    if dtype is None:
        return None
    if computed != "float32" or dtype not in ("float32", *WIRE_TYPES):
        raise ModelError(
            f"wire is {dtype} of a {computed} model, "
            f"expected float32, {' or '.join(WIRE_TYPES)} of a float32 model"
        )
    if dtype == "int8":
        try:
            return Wire(dtype, wire_scale(DEFAULT_SCALE if scale is None else scale))
        except ValueError as error:
            raise ModelError(str(error)) from None
    return None if dtype == computed else Wire(dtype)


def build(classes: int, features: int, dtype: str, taken: Wire | None) -> onnx.ModelProto:
    """Build `x` to `label` int64 [batch] and `scores` dtype [batch, classes], without a bias.

    W is an initializer of [features, classes], the layout for MatMul, that has no data yet.
    """
    names, element = Names(), ELEMENT_TYPES[dtype]
    graph = helper.make_graph(
        nodes(names, taken, biased=False),
        "linear_argmax",
        inputs=[
            helper.make_tensor_value_info(
                names.x, WIRE_TYPES[taken.dtype] if taken else element, ["batch", features]
            )
        ],
        outputs=[
            helper.make_tensor_value_info(names.label, TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info(names.scores, element, ["batch", classes]),
        ],
        initializer=[
            *small_tensors(names, taken, None),
            TensorProto(name=names.weights, dims=(features, classes), data_type=element),
        ],
    )
    return helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )


def nodes(
    names: Names, taken: Wire | None, *, biased: bool, last_of_ties: bool = False
) -> Sequence[onnx.NodeProto]:
    """Make the operators: one that widens `x` if it is narrow, MatMul, Add for a bias, ArgMax.

    Of equal scores the first wins, or the last if the model says so.
    """
    wide = names.wide if taken else names.x
    product = names.product if biased else names.scores
    made = [_widening(names, taken)] if taken else []
    made.append(helper.make_node("MatMul", [wide, names.weights], [product], name=product))
    if biased:
        made.append(
            helper.make_node("Add", [product, names.bias], [names.scores], name=names.scores)
        )
    return [
        *made,
        helper.make_node(
            "ArgMax",
            [names.scores],
            [names.label],
            name=names.label,
            axis=1,
            keepdims=0,
            select_last_index=int(last_of_ties),
        ),
    ]


def small_tensors(
    names: Names, taken: Wire | None, bias: NDArray[np.floating] | None
) -> list[onnx.TensorProto]:
    """Make the initializers beside W: the scale of int8, the bias [classes]."""
    made = []
    if taken and taken.scale is not None:
        made.append(numpy_helper.from_array(np.array(taken.scale, "<f4"), names.scale))
    if bias is not None:
        made.append(numpy_helper.from_array(bias, names.bias))
    return made


def scale_text(scale: float) -> str:
    """Write a scale so that it reads back as the same float32."""
    return str(np.float32(scale))


def _widening(names: Names, taken: Wire) -> onnx.NodeProto:
    """Build the node that makes float32 `wide` of `x`, before a MatMul whose W stays constant.

    Processor time of one execution by its ratio to float32 (medians of two runs; 32 rows,
    64 x 262,144, ONNX Runtime 1.32, 2 threads that do not spin): Cast from float16 1.10 and 1.19,
    DequantizeLinear 1.10 and 1.09, with a zero point 1.15 and 1.12, Cast from int8 with the scale
    in a Mul behind MatMul 1.19 and 1.11, with the scale in W 1.09 and 1.17. The int8 forms do not
    differ beyond the noise; DequantizeLinear is never behind, and what it makes of int8 is, bit
    by bit, what protos.quantize.from_wire makes of it.
    """
    inputs, outputs = [names.x], [names.wide]
    if taken.dtype == "int8":
        return helper.make_node(
            "DequantizeLinear", [*inputs, names.scale], outputs, name=names.wide
        )
    return helper.make_node("Cast", inputs, outputs, name=names.wide, to=TensorProto.FLOAT)
