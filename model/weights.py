"""Make or load the weights W of a linear model."""

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from command_line import extras
from model import lfs_pointer
from model.errors import ModelError
from model.precision import precision

# Names under which W is usually saved; scikit-learn calls it coef_.
ARCHIVE_NAMES = ("W", "weights", "coef_")
# W of an export that is given neither a size nor a file.
CLASSES, FEATURES, SEED = 64, 262_144, 0


def from_seed(classes: int, features: int, seed: int) -> NDArray[np.float64]:
    """Draw W from the standard normal distribution: float64 [classes, features].

    W is exactly ``numpy.random.default_rng(seed).standard_normal((classes, features))``; test
    examples use spawned streams, which are independent of this one (see model.examples).

    Raises:
        ModelError: classes or features below 1, more than memory can address, a negative seed.
    """
    if classes < 1 or features < 1:
        raise ModelError(
            f"W has {classes} classes of {features} features, expected at least 1 of each"
        )
    if seed < 0:
        raise ModelError(f"seed is {seed}, expected 0 or more")
    try:
        return np.random.default_rng(seed).standard_normal((classes, features))
    except (ValueError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"W of [{classes}, {features}] does not fit in memory, expected a smaller one"
        ) from error


def from_file(path: str | Path, name: str | None = None) -> NDArray[np.number]:
    """Load W from a .npy, .npz or .safetensors file: [classes, features] in the file's dtype.

    bfloat16, which numpy lacks, becomes float32. A file of several arrays holds `name`, or without
    one exactly one of those named W, weights or coef_.

    Raises:
        ModelError: not such a file, no such array, or an array that `check` rejects.
        OSError: the file cannot be read.
    """
    lfs_pointer.refuse(Path(path))
    safe = Path(path).suffix == ".safetensors"
    loaded = _from_safetensors(path, name) if safe else _from_numpy(path, name)
    try:
        return check(loaded)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _from_numpy(path: str | Path, name: str | None) -> NDArray[np.generic]:
    try:
        with Path(path).open("rb") as stream:
            # Pickles run code when they are loaded, which nobody expects of weights.
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                with loaded as archive:
                    loaded = archive[_chosen(path, archive.files, name)]
            elif name is not None:
                raise ModelError(f"{path} holds one array without a name, expected {name!r}")
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(
            f"{path} cannot be read as numbers ({error}), expected a .npy or .npz file of numbers"
        ) from error
    if not isinstance(loaded, np.ndarray):
        raise ModelError(f"{path} holds something other than an array, expected numpy arrays")
    return loaded


def _from_safetensors(path: str | Path, name: str | None) -> NDArray[np.generic]:
    try:
        safetensors = extras.imported("safetensors", "safetensors", f"{path}")
    except extras.MissingExtra as error:
        raise ModelError(str(error)) from error
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            loaded: NDArray[np.generic] = file.get_tensor(_chosen(path, list(file.keys()), name))
    except (safetensors.SafetensorError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be read as numbers ({error}), expected a .safetensors file of numbers"
        ) from error
    return loaded.astype(np.float32) if loaded.dtype.name == "bfloat16" else loaded


def check(weights: NDArray[np.generic]) -> NDArray[np.number]:
    """Return weights unchanged if they are [classes, features] of finite real numbers.

    Raises:
        ModelError: another number of axes, an empty axis, a dtype that is not real, NaN, infinity.
    """
    if weights.ndim != 2:
        raise ModelError(f"W has shape {list(weights.shape)}, expected [classes, features]")
    if 0 in weights.shape:
        raise ModelError(
            f"W has shape {list(weights.shape)}, expected at least 1 class of at least 1 feature"
        )
    if weights.dtype.kind not in "iuf":
        raise ModelError(f"W has dtype {weights.dtype}, expected real numbers")
    numbers = cast(NDArray[np.number], weights)
    wrong = numbers.size - int(np.count_nonzero(np.isfinite(numbers)))
    if wrong:
        raise ModelError(f"W has {wrong} NaN or infinite numbers, expected finite ones only")
    return numbers


def exported(weights: NDArray[np.generic], dtype: DTypeLike) -> NDArray[np.floating]:
    """Return W as it is exported: [classes, features], dtype, little-endian, C-contiguous.

    Raises:
        ModelError: dtype is not float32 or float64, `check` refuses W, or W overflows in dtype.
    """
    target = precision(dtype)
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(check(weights), dtype=target)
    if rounded.dtype != weights.dtype and not np.isfinite(rounded).all():
        raise ModelError(f"W has numbers too large for {target.name}, expected smaller ones")
    return rounded


def sha256(weights: NDArray[np.floating]) -> str:
    """Hash the C-contiguous little-endian bytes of W [classes, features], 64 hex digits.

    The digest depends on the dtype, so W must have the dtype that is exported.

    Raises:
        ModelError: W is not float32 or float64.
    """
    data = np.ascontiguousarray(weights, dtype=precision(weights.dtype))
    return hashlib.sha256(data.data).hexdigest()


def _chosen(path: str | Path, names: list[str], name: str | None) -> str:
    """Return the name of the array that holds W."""
    known = [known for known in ARCHIVE_NAMES if known in names]
    if name is None and len(names) == 1:
        return names[0]
    if name is None and len(known) == 1:
        return known[0]
    if name in names:
        return name
    expected = f"one array, or exactly one named {' or '.join(ARCHIVE_NAMES)}"
    raise ModelError(
        f"{path} holds the arrays {names or 'none'}, expected "
        + (f"{name!r} among them" if name is not None else f"{expected}, or --tensor to name it")
    )
