"""The command line of the linear model."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from command_line import extras
from command_line.guard import guarded
from command_line.parser import REFUSED, asks_for_help, exit_codes
from command_line.parser import Parser as PlainParser
from command_line.paths import path as a_path
from model import precision
from model.errors import ModelError
from model.weights import CLASSES, FEATURES, SEED
from protos.quantize import DEFAULT_SCALE, WIRE_DTYPES

PROGRAM = "argmax-model"


class Parser(PlainParser):
    """A parser whose errors are those of the rest of the program: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as a ModelError."""
        raise ModelError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: a model is wrong; 2: it cannot be run; 130: interrupted."""
    given = sys.argv[1:] if argv is None else list(argv)

    def run() -> int:
        # --help is answered where nothing else can be.
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
        description="Make, check or show a model as ONNX.",
        epilog=exit_codes("a model was found wrong"),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    make = commands.add_parser(
        "export", help="write a model into a repository", epilog=exit_codes(None)
    )
    make.add_argument("--out", type=a_path, required=True, metavar="DIR", help="the repository")
    make.add_argument("--name", default="linear_argmax", help="its folder (default: %(default)s)")
    # None tells "not given" from "given as the default", which W from a file may contradict.
    make.add_argument(
        "--classes", type=_at_least(1), metavar="C", help=f"rows of W (default: {CLASSES})"
    )
    make.add_argument(
        "--features", type=_at_least(1), metavar="D", help=f"columns of W (default: {FEATURES})"
    )
    make.add_argument(
        "--seed",
        type=_at_least(0),
        metavar="N",
        help=f"seed of a standard normal W (default: {SEED})",
    )
    make.add_argument(
        "--dtype",
        choices=precision.NAMES,
        help="what the model computes in (default: float32), float64 with --from, as estimators do",
    )
    make.add_argument(
        "--wire",
        choices=("float32", *WIRE_DTYPES),
        help="what a float32 model takes, to be widened inside (default: its own dtype)",
    )
    make.add_argument(
        "--wire-scale",
        type=float,
        metavar="S",
        help=f"what int8 counts (default: {DEFAULT_SCALE}, for standard normal examples)",
    )
    make.add_argument(
        "--weights",
        type=a_path,
        metavar="FILE",
        help="take W [classes, features] from this .npy, .npz or .safetensors file "
        "(default: from the seed)",
    )
    make.add_argument(
        "--tensor",
        metavar="NAME",
        help="which tensor of --weights is W (default: the only one, or W, weights or coef_)",
    )
    make.add_argument(
        "--from",
        dest="estimator",
        type=a_path,
        metavar="FILE",
        help="take a linear classifier of scikit-learn, also behind scalers in a pipeline or found "
        "by a search, from this file saved by joblib. WARNING: loading it runs the code it "
        "contains; use it only for files that you trust",
    )

    make.add_argument(
        "--least-agreement",
        type=_fraction,
        metavar="P",
        help="of the examples, for how many a graph must give what the estimator of --from "
        "predicts, as a fraction (default: 0.9)",
    )

    check = commands.add_parser(
        "verify",
        help="run a model against the float64 reference",
        epilog=exit_codes("a label or the weights are wrong"),
    )
    check.add_argument(
        "path",
        type=a_path,
        metavar="DIR",
        help="a repository of one model, a model, or a .onnx file",
    )
    check.add_argument(
        "--examples",
        type=_at_least(1),
        default=256,
        metavar="N",
        help="rows to compare (default: %(default)s)",
    )
    check.add_argument(
        "--seed",
        type=_at_least(0),
        default=1,
        metavar="N",
        help="seed of the examples (default: %(default)s)",
    )

    show = commands.add_parser(
        "inspect", help="say what any ONNX file holds", epilog=exit_codes(None)
    )
    show.add_argument(
        "path", type=a_path, metavar="PATH", help="a .onnx file, a model, a repository of one model"
    )
    show.add_argument(
        "--html",
        type=a_path,
        metavar="FILE",
        help="write it as one HTML page as well, with a picture of the graph",
    )
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    """Return a parser of integers from least on."""

    def parse(text: str) -> int:
        wanted = f"wanted an integer of {least} or more"
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no integer; {wanted}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is too small; {wanted}")
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
