"""Find files that look like a model but lie in the wrong place, and say what to do."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from server.repository.names import VERSION, printable

_MOST_NAMED = 5
_ONNX = ".onnx"
_OTHER_FORMATS = {
    ".engine": "a TensorRT engine",
    ".h5": "a Keras model",
    ".joblib": "a pickle",
    ".keras": "a Keras model",
    ".pb": "a TensorFlow graph",
    ".pickle": "a pickle",
    ".pkl": "a pickle",
    ".plan": "a TensorRT engine",
    ".pt": "a PyTorch model",
    ".pth": "a PyTorch model",
    ".safetensors": "weights without a graph",
    ".tflite": "a TensorFlow Lite model",
}
# A version number in another form: 01, v1, V2, version-3, 1.0.
_LIKE_A_VERSION = re.compile(r"(?:v|ver|version)?[-_.]?0*(0|[1-9][0-9]{0,18})(?:\.0)*", re.I)


def in_version(folder: Path, graph: str) -> str:
    """The model files in a version's folder that lacks the graph, as text after a colon."""
    names = _models(folder)
    if not names:
        return f"got no {graph} in it"
    text = f"got {_described(names)}, expected {graph}"
    if _formats(names) == {_ONNX}:
        return f"{text}; rename it, or set default_model_filename in config.pbtxt"
    if _ONNX in _formats(names):
        return f"{text}; rename the .onnx file, or set default_model_filename in config.pbtxt"
    return f"{text}; convert it to ONNX"


def in_model(folder: Path, graph: str) -> list[str]:
    """Model files in a model's folder outside of its versions."""
    return list(_in_model(folder, graph))[:_MOST_NAMED]


def in_repository(repository: Path, known: Collection[str], graph: str) -> list[str]:
    """Model files in the repository outside of models; `known`: folders not to be looked into."""
    files = [
        f"{name} is in the repository itself; expected NAME/VERSION/{graph}"
        for name in _models(repository)
    ]
    for folder in _folders(repository):
        if folder.name not in known and _is_below(repository, folder):
            files += in_model(folder, graph)
    return files[:_MOST_NAMED]


def _in_model(folder: Path, graph: str) -> Iterator[str]:
    for name in _models(folder):
        yield f"{folder.name}/{name} is in no version; move it to {folder.name}/1/{graph}"
    for version in _folders(folder):
        if VERSION.fullmatch(version.name) or not _is_below(folder.parent, version):
            continue
        inside = _models(version)
        if inside:
            number = _LIKE_A_VERSION.fullmatch(version.name)
            name = f"{folder.name}/{printable(version.name)}/{inside[0]}"
            what = f"{name} is in a folder that is no version"
            advice = "rename it to " + number[1] if number else "expected an integer such as 1"
            yield f"{what}; {advice}"


def _models(folder: Path) -> list[str]:
    """Names of files that hold a model of any format."""
    return [
        printable(entry.name)
        for entry in _entries(folder)
        if _format(entry.name) in (_ONNX, *_OTHER_FORMATS) and os.path.isfile(entry)
    ]


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if os.path.isdir(entry)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError:  # an unreadable folder: no names to report
        return []


def _is_below(repository: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(repository))


def _format(name: str) -> str:
    return Path(name).suffix.lower()


def _formats(names: list[str]) -> set[str]:
    return {_format(name) for name in names}


def _described(names: list[str]) -> str:
    kinds = ((name, _OTHER_FORMATS.get(_format(name))) for name in names[:_MOST_NAMED])
    return ", ".join(f"{name} ({kind})" if kind else name for name, kind in kinds)
