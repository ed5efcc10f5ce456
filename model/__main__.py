"""The command line of the linear model."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from command_line import extras
from command_line.guard import guarded
from command_line.parser import REFUSED, add_option, asks_for_help, exit_codes
from command_line.parser import Parser as PlainParser
from command_line.paths import path as a_path
from model import precision
from model.errors import ModelError
from model.weights import CLASSES, FEATURES, SEED
from protos.quantize import DEFAULT_SCALE, WIRE_DTYPES

PROGRAM = "argmax-model"


class Parser(PlainParser):
    """A parser that raises ModelError, which becomes one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's error as a ModelError."""
        raise ModelError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: a model is wrong; 2: cannot run; 130: interrupted."""
    given = sys.argv[1:] if argv is None else list(argv)

    def run() -> int:
        # --help works even where no command can run.
        if not asks_for_help(given):
            _commands()
        args = _parser().parse_args(given)
        command: Callable[[argparse.Namespace], int] = getattr(_commands(), args.command)
        return command(args)

    return guarded(PROGRAM, run, {ModelError: REFUSED})


def _commands() -> Any:
    return extras.imported("model.commands", "server", "this command")


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Export, verify or inspect an ONNX model.",
        epilog=exit_codes("a model is wrong"),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    make = commands.add_parser(
        "export", help="write a model into a repository", epilog=exit_codes(None)
    )
    _add_export_options(make)

    check = commands.add_parser(
        "verify",
        help="compare a model with the float64 reference",
        epilog=exit_codes("a label or the weights are wrong"),
    )
    check.add_argument(
        "path",
        type=a_path,
        metavar="DIR",
        help="repository of one model, model folder, or .onnx file",
    )
    text = "number of examples to compare"
    add_option(check, "--examples", _at_least(1), 256, "N", text)
    add_option(check, "--seed", _at_least(0), 1, "N", "seed of the examples")

    show = commands.add_parser(
        "inspect", help="show the content of any ONNX file", epilog=exit_codes(None)
    )
    show.add_argument(
        "path",
        type=a_path,
        metavar="PATH",
        help=".onnx file, model folder, or repository of one model",
    )
    text = "also write one HTML page, with a picture of the graph"
    add_option(show, "--html", a_path, None, "FILE", text)
    return parser


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    target = parser.add_argument_group("repository")
    target.add_argument("--out", type=a_path, required=True, metavar="DIR", help="the repository")
    add_option(target, "--name", str, "linear_argmax", None, "name of the model")

    drawn = parser.add_argument_group("random weights")
    # None means "not given"; an explicit default could contradict W from a file.
    text = f"rows of W (default: {CLASSES})"
    add_option(drawn, "--classes", _at_least(1), None, "C", text)
    text = f"columns of W (default: {FEATURES})"
    add_option(drawn, "--features", _at_least(1), None, "D", text)
    text = f"seed of a standard normal W (default: {SEED})"
    add_option(drawn, "--seed", _at_least(0), None, "N", text)

    loaded = parser.add_argument_group("weights from a file")
    text = ".npy, .npz or .safetensors file with W [classes, features] (default: W from --seed)"
    add_option(loaded, "--weights", a_path, None, "FILE", text)
    text = "name of W in --weights (default: the only array, or W, weights or coef_)"
    add_option(loaded, "--tensor", str, None, "NAME", text)

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
    text = (
        "least fraction of the examples for which the graph must predict the same as the "
        "estimator of --from (default: 0.9)"
    )
    add_option(trained, "--least-agreement", _fraction, None, "P", text)

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
    text = f"value of one int8 unit (default: {DEFAULT_SCALE}, for standard normal examples)"
    add_option(types, "--wire-scale", float, None, "S", text)


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


if __name__ == "__main__":
    sys.exit(main())
