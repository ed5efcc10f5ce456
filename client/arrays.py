"""Convert callers' data to numpy arrays of a model's dtype, or say why that would be wrong.

Data frames, tensors and matrices of other libraries are recognized by their attributes, so none of
those libraries is imported.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from client.errors import UsageError
from protos.datatypes import BFLOAT16, TEXT_KINDS
from protos.errors import InvalidMessage
from protos.tensors import element_bytes, index_of


class SupportsArrayInterface(Protocol):
    """An object with numpy's `__array_interface__`."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class SupportsDLPack(Protocol):
    """An object with the DLPack protocol."""

    def __dlpack__(self, *, stream: None = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, int]: ...


# Accepted in place of an array: numpy's own, nested lists, data frames and series, tensors of other
# libraries. mypy infers a list of objects for integers mixed with floats.
Rows: TypeAlias = ArrayLike | Sequence[Any] | SupportsArrayInterface | SupportsDLPack

_NUMBERS = (int, float, np.bool_, np.integer, np.floating)
_REFUSED_KINDS = {
    "c": "send real and imaginary parts as separate columns",
    "m": "convert it to numbers first",
    "M": "convert it to numbers first",
}
_SPARSE_REASON = "sending it would fill in every zero: convert it explicitly, with"


def as_array(value: Rows, what: str) -> NDArray[Any]:
    """Array of `value`, without a copy if it is one; else UsageError, which names `what`.

    Sparse and masked arrays are rejected, because their missing elements are not values that the
    caller chose.
    """
    for part in _parts(value):
        _refuse_gaps(part, what)
    try:
        array: NDArray[Any] = np.from_dlpack(value) if _only_dlpack(value) else np.asarray(value)  # type: ignore[arg-type]
        if array.dtype.kind in "SU" and isinstance(value, list | tuple):
            # numpy would make texts of [1, "a"], and strip trailing zeros of bytes.
            array = np.asarray(value, np.object_)
    except MemoryError:
        raise
    except Exception as error:  # `__array__` of another library raises what it likes
        raise UsageError(f"{what} is not an array: {error}") from None
    if array.dtype == np.object_ and array.ndim == 0 and not isinstance(array[()], str | bytes):
        raise UsageError(
            f"{what} has type {type(value).__name__}; expected an array, nested lists, a data "
            "frame or a tensor"
        )
    if array.dtype.names is not None:
        raise UsageError(
            f"{what} is a structured array with the fields {', '.join(array.dtype.names)}; "
            "send each field as an input, or all as columns "
            "(numpy.lib.recfunctions.structured_to_unstructured)"
        )
    reason = _REFUSED_KINDS.get(array.dtype.kind)
    if reason is not None:
        raise UsageError(f"{what} has dtype {array.dtype}, which models cannot take: {reason}")
    return array


def cast(array: NDArray[Any], dtype: np.dtype[Any], what: str, first_row: int = 0) -> NDArray[Any]:
    """`array` as `dtype`, itself if it has that already; UsageError, which names `what`.

    Numbers may lose precision, never their size: floats are rounded to narrower ones, integers to
    floats, and what would overflow is an error that names its element. Integers become narrower
    ones where all fit. Floats do not become integers, numbers not booleans, and neither text.
    `first_row` is the number of the first row, for messages about an array that is cut.
    """
    if array.dtype == dtype:
        return array
    if dtype == np.object_:
        if array.dtype.kind in TEXT_KINDS:
            return array
        raise _no_text(array, what)
    if array.dtype == np.object_:
        array = numbers(array, dtype, what, first_row)
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        return _cast_integers(array, dtype, what, first_row)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise UsageError(f"{what} has dtype {array.dtype}; the model takes {dtype}")
    try:
        with np.errstate(over="raise", under="ignore"):
            result = array.astype(dtype, copy=False)
    except FloatingPointError:
        with np.errstate(over="ignore", under="ignore"):
            result = array.astype(dtype)
        raise _overflow(array, result, dtype, what, first_row) from None
    # bfloat16's conversions do not set the processor's overflow flag.
    if dtype == BFLOAT16 and (np.isinf(result) & np.isfinite(array)).any():
        raise _overflow(array, result, dtype, what, first_row)
    return result


def numbers(
    array: NDArray[Any], dtype: np.dtype[Any], what: str, first_row: int = 0
) -> NDArray[Any]:
    """Numbers of an object array, as of data frames with mixed columns; UsageError otherwise."""
    for at, value in enumerate(array.reshape(-1)):
        if not isinstance(value, _NUMBERS):
            raise UsageError(
                f"{what}: {element(array, at, first_row)} is {value!r:.60} of type "
                f"{type(value).__name__}; the model takes {dtype}"
            )
    converted: NDArray[Any] = np.array(array.tolist()).reshape(array.shape)
    return converted.astype(np.float64) if converted.dtype == np.object_ else converted


def check_text(array: NDArray[Any], what: str) -> None:
    """Raise UsageError, which names `what` and the element, unless all are text or bytes."""
    if array.dtype.kind == "S":
        return
    if array.dtype != np.object_ and array.dtype.kind not in TEXT_KINDS:
        raise _no_text(array, what)
    try:
        for at, value in enumerate(array.reshape(-1)):
            element_bytes(value, what, array, at)
    except InvalidMessage as error:
        raise UsageError(str(error)) from None


def element(array: NDArray[Any], at: int, first_row: int = 0) -> str:
    """Name of element number `at`, with its index in an array of which this one is a part."""
    index = index_of(at, array.shape)
    if index:
        index[0] += first_row
    return f"element {index}"


def _no_text(array: NDArray[Any], what: str) -> UsageError:
    return UsageError(f"{what} has dtype {array.dtype}; the model takes text or bytes")


def _cast_integers(
    array: NDArray[Any], dtype: np.dtype[Any], what: str, first_row: int
) -> NDArray[Any]:
    if not np.can_cast(array.dtype, dtype, "safe") and array.size:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if int(array.min()) < least or int(array.max()) > most:
            outside = (not least <= int(value) <= most for value in array.reshape(-1))
            at = next(at for at, is_outside in enumerate(outside) if is_outside)
            raise UsageError(
                f"{what}: {element(array, at, first_row)} is {array.reshape(-1)[at]}; "
                f"the model takes {dtype}, {least} to {most}"
            )
    return array.astype(dtype, copy=False)


def _overflow(
    array: NDArray[Any], result: NDArray[Any], dtype: np.dtype[Any], what: str, first_row: int
) -> UsageError:
    with np.errstate(invalid="ignore"):
        at = int(np.flatnonzero(np.isinf(result) & np.isfinite(array))[0])
    return UsageError(
        f"{what}: {element(array, at, first_row)} is {array.reshape(-1)[at]}, "
        f"which {dtype} cannot hold; the model takes {dtype}"
    )


def _parts(value: object) -> Iterator[object]:
    """`value`, and the elements of lists that are not plain numbers or text."""
    yield value
    if isinstance(value, list | tuple):
        for part in value:
            if not isinstance(part, int | float | str | bytes):
                yield from _parts(part)


def _refuse_gaps(value: Any, what: str) -> None:
    if isinstance(value, np.ma.MaskedArray):
        raise UsageError(
            f"{what} is a masked array; its masked elements have no value: fill them with "
            ".filled(VALUE)"
        )
    if isinstance(value, np.ndarray | np.generic | int | float | str | bytes):
        return
    name = f"{type(value).__module__.partition('.')[0]} {type(value).__name__}"
    # Matrices of scipy, and similar ones.
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise UsageError(f"{what} is sparse ({name}); {_SPARSE_REASON} .toarray()")
    # Tensors of torch; other layouts than strided are the sparse ones.
    if str(getattr(value, "layout", "")).startswith("torch.sparse"):
        raise UsageError(f"{what} is sparse ({name}); {_SPARSE_REASON} .to_dense()")
    # A data frame has `dtypes`, one a column; so has a series, which makes it a single one.
    dtypes = getattr(value, "dtypes", None)
    columns = dtypes if isinstance(dtypes, Iterable) else [getattr(value, "dtype", None)]
    if any(str(dtype).startswith("Sparse[") for dtype in columns):
        raise UsageError(f"{what} is sparse ({name}); {_SPARSE_REASON} .sparse.to_dense()")


def _only_dlpack(value: object) -> bool:
    others = ("__array__", "__array_interface__", "__array_struct__")
    return hasattr(value, "__dlpack__") and not any(hasattr(value, name) for name in others)
