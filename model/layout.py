"""The path of a model in a repository laid out as NAME/VERSION/model.onnx."""

import re
from pathlib import Path

from model.errors import ModelError

FILE_NAME = "model.onnx"
NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
# Triton ignores version folders that start with a zero.
VERSION = re.compile(r"[1-9][0-9]*")


def graph_path(repository: Path, name: str, version: int) -> Path:
    """Return the path of a graph, which need not exist.

    Raises:
        ModelError: a name that is no plain folder name, a version below 1.
    """
    if not NAME.fullmatch(name) or not name.strip("."):
        raise ModelError(
            f"name is {name!r}, expected 1 to 200 of A-Z a-z 0-9 _ . - that are not all dots"
        )
    if version < 1:
        raise ModelError(f"version is {version}, expected 1 or more")
    return repository / name / str(version) / FILE_NAME


def find(path: Path) -> Path:
    """Return the graph that a path names.

    The path is a .onnx file, a version folder, a model folder (its highest version counts), or
    a repository of exactly one model.

    Raises:
        ModelError: the path is none of these, or does not exist.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(f"{path} does not exist, expected a .onnx file or a model repository")
    graph = _in_folder(path)
    if graph:
        return graph
    models = {folder.name: _in_folder(folder) for folder in sorted(path.iterdir())}
    graphs = {name: graph for name, graph in models.items() if graph}
    if len(graphs) != 1:
        raise ModelError(
            f"{path} holds {', '.join(graphs) or 'no model'}, "
            f"expected exactly one NAME/VERSION/{FILE_NAME}, or the path of one model"
        )
    return next(iter(graphs.values()))


def _in_folder(folder: Path) -> Path | None:
    """Return the graph of a version folder or of the highest version in a model folder."""
    if (folder / FILE_NAME).is_file():
        return folder / FILE_NAME
    if not folder.is_dir():
        return None
    versions = [
        int(version.name)
        for version in folder.iterdir()
        if VERSION.fullmatch(version.name) and (version / FILE_NAME).is_file()
    ]
    return folder / str(max(versions)) / FILE_NAME if versions else None
