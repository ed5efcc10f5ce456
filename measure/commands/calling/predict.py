"""The command `predict`: outputs of a served model for rows in .npy files."""

import argparse
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.client import Client
from client.errors import UsageError
from command_line import paths
from command_line.parser import DONE, add_option, exit_codes
from measure.core import options
from measure.core.arguments import milliseconds, seconds


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.epilog = exit_codes("the request failed")
    parser.set_defaults(command=_predict)
    options.add_address(parser, "server", required=True)
    options.add_credentials(parser)
    options.add_balancing(parser)
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="[NAME=]X.npy",
        help="rows to predict; with the input's name, and repeated, for a model of several inputs",
    )
    parser.add_argument(
        "--output",
        action="append",
        metavar="NAME",
        help="output to return; may be repeated (default: label, or the model's only output)",
    )
    parser.add_argument(
        "--names",
        action="store_true",
        help="write the names of the classes, for a model with labels, in place of the output",
    )
    add_option(parser, "--model", str, "linear_argmax", None, "name of the model")
    text = "file for the result (default: stdout): .npy for one output, .npz for several"
    add_option(parser, "--out", paths.path, None, "FILE", text)
    text = "time limit of the call, in seconds (default: none)"
    add_option(parser, "--deadline-s", seconds, None, "S", text, former="--deadline")
    text = (
        "send a request without an answer after this time to a second server too, in milliseconds "
        "(default: never)"
    )
    add_option(parser, "--hedge-ms", milliseconds, None, "MS", text)


def _predict(args: argparse.Namespace) -> int:
    names: list[str] = args.output or []
    if len(set(names)) < len(names):
        raise UsageError(f"--output names {', '.join(names)}; expected each once")
    if len(names) > 1 and (args.out is None or args.out.suffix == ".npy"):
        raise UsageError(f"--output names {len(names)} outputs; expected --out FILE.npz for them")
    if len(names) > 1 and args.names:
        raise UsageError(f"--output names {len(names)} outputs; expected one with --names")
    given = _inputs(args.input)
    balancing = options.balancing(args)
    with Client(
        args.address,
        args.model,
        deadline_s=args.deadline_s,
        hedge_after_s=args.hedge_ms,
        balance=balancing.policy,
        resolving=balancing.resolving,
        credentials=options.credential_files(args).read(),
    ) as client:
        x = given.get("", given)
        if args.names:
            found = {"names": client.predict(x, names[0] if names else None, names=True)}
        elif len(names) > 1:
            found = client.predict_outputs(x, names)
        else:
            name = names[0] if names else client.default_output()
            found = {name: client.predict(x, name)}
    if args.out is None:
        (rows,) = found.values()
        _show(rows)
    else:
        _write(args.out, found)
    return DONE


def _inputs(words: Sequence[str]) -> Mapping[str, NDArray[Any]]:
    """Arrays by input name; of a model of one input, its array under an empty name."""
    given: dict[str, NDArray[Any]] = {}
    for word in words:
        name, equals, path = word.partition("=")
        # A file with the sign in its name must be given with a folder.
        if not equals or "/" in name:
            name, path = "", word
        elif not name:
            raise UsageError(f"--input {word!r} has no name before the =; expected NAME=X.npy")
        if name in given:
            raise UsageError(
                f"--input names {name!r} twice; expected each input once"
                if name
                else "got --input twice without a name, expected NAME=X.npy for several inputs"
            )
        hint = paths.uri_hint(path)
        if hint is not None:
            raise UsageError(f"--input got {word!r}, expected {hint}")
        given[name] = _read(Path(path))
    if "" in given and len(given) > 1:
        raise UsageError("got --input with and without a name, expected NAME=X.npy for each")
    return given


def _read(path: Path) -> NDArray[Any]:
    try:
        # Unlike np.load, this reads no archives and no pickles.
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path} is no .npy file of numbers or text: {error}") from None


def _show(rows: NDArray[Any]) -> None:
    """Print a line for each row; of several values, with spaces between."""
    count = len(rows) if rows.ndim else 1
    for row in rows.reshape(count, math.prod(rows.shape[1:])):
        print(*(_text(value) for value in row.tolist()))


def _text(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _write(path: Path, found: Mapping[str, NDArray[Any]]) -> None:
    """Write a .npy file of one output, a .npz file where the name says so."""
    writable = {name: _without_objects(rows) for name, rows in found.items()}
    with path.open("wb") as file:
        if len(found) > 1 or path.suffix == ".npz":
            # np.savez takes no output whose name is that of an argument of its own.
            with zipfile.ZipFile(file, "w") as archive:
                for name, rows in writable.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, rows, allow_pickle=False)
        else:
            (rows,) = writable.values()
            np.save(file, rows, allow_pickle=False)


def _without_objects(rows: NDArray[Any]) -> NDArray[Any]:
    """Text as numpy keeps it without pickles: of fixed width."""
    if rows.dtype != np.object_:
        return rows
    try:
        return np.array([_strict(value) for value in rows.reshape(-1)]).reshape(rows.shape)
    except UnicodeDecodeError:
        return np.array(rows.tolist(), np.bytes_)


def _strict(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
