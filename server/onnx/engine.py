"""One ONNX Runtime session on one execution provider."""

import ctypes
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from command_line.onnx_runtime import ort
from protos.datatypes import BFLOAT16
from server.errors import InvalidInput, OutOfResources, StartError
from server.onnx import beside, graph_file, provider_library, session_options
from server.onnx.execution_provider import GPU, ExecutionProvider
from server.onnx.graph_file import Graph
from server.onnx.session_settings import SEQUENTIAL, SessionSettings

Run = Callable[[Sequence[str], Mapping[str, NDArray[Any]]], list[NDArray[Any]]]

_CPU = ExecutionProvider()
_USUAL = SessionSettings()
_ONNX_BFLOAT16 = 16  # of TensorProto.DataType
# In errors of ONNX Runtime, which have no class of their own for it.
_NO_MEMORY = re.compile(r"bad_alloc|bad allocation|Failed to allocate memory|out of memory")
_DTYPES: Mapping[str, Any] = {
    "tensor(bool)": "?",
    "tensor(uint8)": "u1",
    "tensor(uint16)": "u2",
    "tensor(uint32)": "u4",
    "tensor(uint64)": "u8",
    "tensor(int8)": "i1",
    "tensor(int16)": "i2",
    "tensor(int32)": "i4",
    "tensor(int64)": "i8",
    "tensor(float16)": "f2",
    "tensor(float)": "f4",
    "tensor(double)": "f8",
    "tensor(bfloat16)": BFLOAT16,
    "tensor(string)": "O",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model; None in the shape stands for any size.

    `axes`: the names that the graph gives to its axes, "" for one without.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    axes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, free dimensions counted as 1."""
        return int(np.prod([size or 1 for size in self.shape[1:]])) * self.dtype.itemsize


class Engine:
    """A loaded graph; `run` is safe to call from several threads, until `close`."""

    def __init__(
        self,
        path: Path,
        threads: int,
        chosen: ExecutionProvider = _CPU,
        repository: Path | None = None,
        *,
        graph: Graph | None = None,
        deterministic: bool = False,
        settings: SessionSettings = _USUAL,
        alone: bool = True,
    ) -> None:
        """Load `path`; StartError names the file that cannot be loaded, or the missing provider.

        `threads`: how many one execution uses. `repository`: folder in which links may lead to
        weights of the graph, None: only the graph's own. `graph`: what was found in the file, None:
        it is read here. `provider` names the providers that run the graph: the chosen one, then any
        to which ONNX Runtime assigned nodes.
        `deterministic`: no kernels whose results differ from run to run, where there are others.
        `alone`: `run` is called by one thread at a time.
        """
        options = session_options.of_session(settings, threads)
        options.use_deterministic_compute = deterministic
        # Its own log lines would mix with the structured ones; errors are raised as exceptions.
        options.log_severity_level = 4
        self.on_gpu = chosen.name in GPU
        self.threads = threads
        known = graph or graph_file.read(path, repository or path.parent)
        if known.content is not None:
            options.add_session_config_entry(graph_file.EXTERNAL_FOLDER, known.root)
        try:
            self._session = provider_library.session(
                known.content or path, options, chosen, threads
            )
            self.inputs = _specs(self._session.get_inputs())
            self.outputs = _specs(self._session.get_outputs())
            self.optional_inputs = _optional(self._session.get_overridable_initializers())
            self.metadata = _metadata(self._session)
            how = session_options.of_run(settings)
            self._run = way_to_run(self._session, self._dtypes(), how, on_gpu=self.on_gpu)
            self._run_beside = self._run
            # Several at a time would share the one thread of the session.
            if alone and chosen == _CPU and settings.execution_mode == SEQUENTIAL:
                self._run_beside = self._way_beside(how) or self._run
        except StartError as error:
            raise StartError(f"{path}: {error}") from None
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StartError(f"{path}: ONNX Runtime cannot load it: {reason}") from None
        used = provider_library.used_providers(self._session, chosen.name)
        self.provider = ", ".join(used)

    @property
    def batches(self) -> bool:
        """Whether every input and output leads with a batch axis of any size."""
        return all(spec.shape and spec.shape[0] is None for spec in (*self.inputs, *self.outputs))

    def run(
        self,
        outputs: Sequence[str],
        inputs: Mapping[str, NDArray[Any]],
        *,
        receiving: bool = False,
    ) -> list[NDArray[Any]]:
        """Run the graph once; return the named outputs, in order.

        Arrays must be C-contiguous and aligned. `receiving`: more rows arrive meanwhile, which
        takes a core. InvalidInput if the graph itself rejects the arrays.
        """
        large = receiving and sum(x.nbytes for x in inputs.values()) >= beside.LEAST_BYTES
        run = self._run_beside if large else self._run
        try:
            result: list[NDArray[Any]] = run(outputs, inputs)
        except Exception as error:
            if _NO_MEMORY.search(str(error)) is not None:
                raise OutOfResources("ONNX Runtime has no memory for the execution") from None
            # Errors that only the graph can detect, such as shapes that do not fit each other.
            if type(error).__name__ in ("InvalidArgument", "RuntimeException", "Fail"):
                shapes = ", ".join(f"{name!r} {list(data.shape)}" for name, data in inputs.items())
                raise InvalidInput(
                    "the model cannot be run on these inputs: their shapes or values do not fit "
                    f"the graph; the shapes are {shapes}"
                ) from error
            raise
        return result

    @property
    def session_options(self) -> ort.SessionOptions:
        """Options of the session as ONNX Runtime has them."""
        return self._session.get_session_options()

    def close(self) -> None:
        """Release the weights, even if the engine is still referenced."""
        del self._session, self._run, self._run_beside

    def _way_beside(self, how: ort.RunOptions | None) -> Run | None:
        """The way to run while more is received; None where that is the usual one."""
        if self.threads != beside.THREADS or any(
            dtype.hasobject or dtype == BFLOAT16 for dtype in self._dtypes()
        ):
            return None
        if any(each.dtype.itemsize < beside.LEAST_ITEM_BYTES for each in self.inputs):
            return None
        return functools.partial(beside.run, self._session, how=how)

    def _dtypes(self) -> set[np.dtype[Any]]:
        dtypes = {spec.dtype for spec in (*self.inputs, *self.outputs)}
        if BFLOAT16 in dtypes and any(spec.dtype.hasobject for spec in self.inputs):
            raise StartError("string inputs together with bfloat16 tensors are not supported")
        return dtypes


def _metadata(session: ort.InferenceSession) -> Mapping[str, str]:
    try:
        found: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError:
        raise StartError("its metadata are not UTF-8") from None
    return found


def _optional(initializers: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Constants of the graph that a request may replace."""
    return _specs([value for value in initializers if value.type in _DTYPES])


def _hint(value: Any) -> str:
    # skl2onnx appends ZipMap to a classifier by default.
    if value.type.startswith("seq(map("):
        return "; convert with options={'zipmap': False}, so that skl2onnx leaves out ZipMap"
    return ""


def _specs(values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    specs = []
    for value in values:
        code = _DTYPES.get(value.type)
        if code is None:
            raise StartError(
                f"{value.name!r} has type {value.type}, which is not supported{_hint(value)}"
            )
        shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in value.shape)
        axes = tuple(size if isinstance(size, str) else "" for size in value.shape)
        specs.append(TensorSpec(value.name, np.dtype(code), shape, axes))
    return tuple(specs)


def way_to_run(
    session: ort.InferenceSession,
    dtypes: set[np.dtype[Any]],
    how: ort.RunOptions | None = None,
    *,
    on_gpu: bool,
) -> Run:
    """Named outputs of a graph, from inputs by name.

    `dtypes`: those of its inputs and outputs. `how`: options of each run, None: the usual ones.
    """
    if BFLOAT16 in dtypes:
        return functools.partial(_run_values, session, how=how)
    if on_gpu and not any(dtype.hasobject for dtype in dtypes):
        return functools.partial(run_bound, session, how=how)
    run: Run = session.run if how is None else functools.partial(session.run, run_options=how)
    return run


def run_bound(
    session: ort.InferenceSession,
    outputs: Sequence[str],
    inputs: Mapping[str, NDArray[Any]],
    how: ort.RunOptions | None = None,
) -> list[NDArray[Any]]:
    """Run through IO binding: an input is copied to the device once, when it is bound, and from
    page-locked memory by the device itself."""
    binding = session.io_binding()
    for name, data in inputs.items():
        binding.bind_cpu_input(name, data)
    for name in outputs:
        binding.bind_output(name)
    try:
        session.run_with_iobinding(binding, how)
    except RuntimeError:
        # After any failure an unbound run distinguishes bad inputs from a broken device.
        unbound: list[NDArray[Any]] = session.run(outputs, inputs)
        return unbound
    arrays: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
    return arrays


def _run_values(
    session: ort.InferenceSession,
    outputs: Sequence[str],
    inputs: Mapping[str, NDArray[Any]],
    how: ort.RunOptions | None = None,
) -> list[NDArray[Any]]:
    """Run with OrtValues: as numpy arrays ONNX Runtime takes and returns no bfloat16."""
    values = {name: _value(data) for name, data in inputs.items()}
    return [_array(value) for value in session.run_with_ort_values(outputs, values, how)]


def _value(data: NDArray[Any]) -> Any:
    if data.dtype != BFLOAT16:
        return ort.OrtValue.ortvalue_from_numpy(data)
    bits = data.view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _array(value: Any) -> NDArray[Any]:
    if value.data_type() != "tensor(bfloat16)":
        array: NDArray[Any] = value.numpy()
        return array
    shape = value.shape()
    data = ctypes.string_at(value.data_ptr(), math.prod(shape) * BFLOAT16.itemsize)
    return np.frombuffer(data, BFLOAT16).reshape(shape)
