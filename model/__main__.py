"""The command line of the linear model."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from command_line import terminal
from command_line.interruption import Interrupted, interruptible
from command_line.pairs import pairs
from command_line.parser import DONE, REFUSED, WRONG, exit_codes
from command_line.parser import Parser as PlainParser
from command_line.paths import path as a_path
from model import extras, files, precision
from model.errors import ModelError
from model.export import export
from model.inspect import page
from model.inspect import text as inspection_text
from model.inspect.contents import inspect
from model.inspect.text import NAME_WIDTH
from model.verify import Verification, verify
from model.weights import exported, from_file, from_seed, sha256
from protos.quantize import DEFAULT_SCALE, WIRE_DTYPES

PROGRAM = "argmax-model"
CLASSES, FEATURES, SEED = 64, 262_144, 0


class Parser(PlainParser):
    """A parser that raises ModelError, which becomes one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's error as a ModelError."""
        raise ModelError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: a model is wrong; 2: it cannot be run; 130: interrupted."""
    with interruptible():
        try:
            args = _parser().parse_args(argv)
            command: Callable[[argparse.Namespace], int] = args.command
            return command(args)
        except (ModelError, OSError, MemoryError) as error:
            return _complain(f"error: {_text(error)}", REFUSED)
        except Interrupted as interrupted:
            return _complain(str(interrupted), interrupted.exit_code)


def _complain(text: str, code: int) -> int:
    terminal.complain(PROGRAM, text)
    return code


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Export, verify or inspect an ONNX model.",
        epilog=exit_codes("a model is wrong"),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    make = commands.add_parser(
        "export", help="write a model into a repository", epilog=exit_codes(None)
    )
    make.set_defaults(command=_export)
    _add_export_options(make)

    check = commands.add_parser(
        "verify",
        help="compare a model with the float64 reference",
        epilog=exit_codes("a label or the weights are wrong"),
    )
    check.set_defaults(command=_verify)
    check.add_argument(
        "path",
        type=a_path,
        metavar="DIR",
        help="repository of one model, model folder, or .onnx file",
    )
    check.add_argument(
        "--examples",
        type=_at_least(1),
        default=256,
        metavar="N",
        help="number of examples to compare (default: %(default)s)",
    )
    check.add_argument(
        "--seed",
        type=_at_least(0),
        default=1,
        metavar="N",
        help="seed of the examples (default: %(default)s)",
    )

    show = commands.add_parser(
        "inspect", help="show the content of any ONNX file", epilog=exit_codes(None)
    )
    show.set_defaults(command=_inspect)
    show.add_argument(
        "path",
        type=a_path,
        metavar="PATH",
        help=".onnx file, model folder, or repository of one model",
    )
    show.add_argument(
        "--html",
        type=a_path,
        metavar="FILE",
        help="also write one HTML page, with a picture of the graph",
    )
    return parser


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    target = parser.add_argument_group("repository")
    target.add_argument("--out", type=a_path, required=True, metavar="DIR", help="the repository")
    target.add_argument(
        "--name", default="linear_argmax", help="name of the model (default: %(default)s)"
    )

    drawn = parser.add_argument_group("random weights")
    # None means "not given"; an explicit default could contradict W from a file.
    drawn.add_argument(
        "--classes", type=_at_least(1), metavar="C", help=f"rows of W (default: {CLASSES})"
    )
    drawn.add_argument(
        "--features", type=_at_least(1), metavar="D", help=f"columns of W (default: {FEATURES})"
    )
    drawn.add_argument(
        "--seed",
        type=_at_least(0),
        metavar="N",
        help=f"seed of a standard normal W (default: {SEED})",
    )

    loaded = parser.add_argument_group("weights from a file")
    loaded.add_argument(
        "--weights",
        type=a_path,
        metavar="FILE",
        help=".npy, .npz or .safetensors file with W [classes, features] (default: W from --seed)",
    )
    loaded.add_argument(
        "--tensor",
        metavar="NAME",
        help="name of W in --weights (default: the only array, or W, weights or coef_)",
    )

    trained = parser.add_argument_group("scikit-learn estimator")
    trained.add_argument(
        "--from",
        dest="estimator",
        type=a_path,
        metavar="FILE",
        help="file saved by joblib with a linear classifier, which may be in a pipeline after "
        "scalers, or in a search. WARNING: loading the file runs the code in it; use only files "
        "that you trust",
    )
    trained.add_argument(
        "--least-agreement",
        type=_fraction,
        metavar="P",
        help="least fraction of the examples for which the graph must predict the same as the "
        "estimator of --from (default: 0.9)",
    )

    types = parser.add_argument_group("data types")
    types.add_argument(
        "--dtype",
        choices=precision.NAMES,
        help="dtype of the computation (default: float32; float64 with --from, as in estimators)",
    )
    types.add_argument(
        "--wire",
        choices=("float32", *WIRE_DTYPES),
        help="input dtype of a float32 model, which widens it (default: float32)",
    )
    types.add_argument(
        "--wire-scale",
        type=float,
        metavar="S",
        help=f"value of one int8 unit (default: {DEFAULT_SCALE}, for standard normal examples)",
    )


def _export(args: argparse.Namespace) -> int:
    if args.estimator is not None:
        return _export_estimator(args)
    dtype = args.dtype or "float32"
    if args.weights is None:
        seed = SEED if args.seed is None else args.seed
        if args.tensor is not None:
            raise ModelError(f"got --tensor {args.tensor} without --weights, expected both")
        weights: NDArray[np.number] = from_seed(
            args.classes or CLASSES, args.features or FEATURES, seed
        )
    else:
        seed = None
        weights = from_file(args.weights, args.tensor)
        if args.seed is not None:
            raise ModelError(f"got --seed {args.seed} with --weights, expected one of them")
        for option, expected, got in zip(
            ("--classes", "--features"), (args.classes, args.features), weights.shape, strict=True
        ):
            if expected not in (None, got):
                raise ModelError(f"{args.weights} has {got} for {option}, expected {expected}")
    if args.least_agreement is not None:
        raise ModelError(
            f"got --least-agreement {args.least_agreement} without --from, expected both"
        )
    w = exported(weights, dtype)
    path = export(args.out, args.name, w, dtype, seed, wire=args.wire, scale=args.wire_scale)
    print(_exported(path, w, args.wire))
    return DONE


def _export_estimator(args: argparse.Namespace) -> int:
    for option in ("classes", "features", "seed", "weights", "tensor"):
        value = getattr(args, option)
        if value is not None:
            raise ModelError(f"got --{option} {value} with --from, expected one of them")
    # Only --from needs scikit-learn, and only `export` joblib.
    estimators = extras.imported("model.from_sklearn.estimators", "sklearn")
    estimator = estimators.load(args.estimator)
    exporter = extras.imported("model.from_sklearn.export", "sklearn")
    least = args.least_agreement
    made = exporter.export_estimator(
        args.out,
        args.name,
        estimator,
        args.dtype or "float64",
        wire=args.wire,
        scale=args.wire_scale,
        least_agreement=exporter.LEAST_AGREEMENT if least is None else least,
    )
    print(_exported(made.path, made.w, args.wire))
    print(
        f"agrees with {type(estimator).__name__}.predict on {made.same} of {made.examples} examples"
    )
    return DONE


def _exported(path: Path, w: NDArray[np.floating], wire: str | None) -> str:
    mib = w.nbytes / 2**20
    taken = f" from {wire}" if wire in WIRE_DTYPES else ""
    return f"{path}  {list(w.shape)} {w.dtype.name}{taken}  {mib:.1f} MiB  sha256 {sha256(w)[:12]}"


def _verify(args: argparse.Namespace) -> int:
    result = verify(args.path, args.examples, args.seed)
    print("\n".join(pairs(_report(result), terminal.results().width, name_width=NAME_WIDTH)))
    return DONE if result.ok else WRONG


def _inspect(args: argparse.Namespace) -> int:
    inspection = inspect(args.path)
    if args.html is not None:
        files.replace(args.html, page.render(inspection).encode())
    print(inspection_text.text(inspection, terminal.results().width))
    return DONE


def _report(result: Verification) -> list[tuple[str, str]]:
    states = {None: "not recorded", True: "ok", False: "MISMATCH"}
    wire: list[tuple[str, str]] = []
    if result.wire in WIRE_DTYPES:
        of = "" if result.wire_scale is None else f" times {result.wire_scale:g}"
        wire = [
            ("wire", f"{result.wire}{of}: agreement is with the examples before narrowing"),
            ("wire: metadata", states[result.wire_ok]),
        ]
    return [
        ("model", f"{result.path}"),
        ("examples", f"{result.examples}"),
        *wire,
        ("agreement", f"{result.agreement:.2%}"),
        ("near ties", f"{result.near_ties}"),
        ("wrong labels", f"{result.wrong_labels}"),
        ("W: sha256", states[result.sha_ok]),
        ("W: seed", states[result.seed_ok]),
        ("verdict", "ok" if result.ok else "WRONG"),
    ]


def _at_least(least: int) -> Callable[[str], int]:
    """Return a parser of integers that are at least `least`."""

    def parse(text: str) -> int:
        expected = f"expected an integer of {least} or more"
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"got {text!r}, {expected}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"got {number}, {expected}")
        return number

    return parse


def _fraction(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 0 to 1")
    return number


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or "out of memory"


if __name__ == "__main__":
    sys.exit(main())
