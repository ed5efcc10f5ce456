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
from model import extras, files, inspection_page, inspection_text, precision
from model.errors import ModelError
from model.export import export
from model.inspection import inspect
from model.inspection_text import NAME_WIDTH
from model.verify import Verification, verify
from model.weights import exported, from_file, from_seed, sha256
from protos.quantize import DEFAULT_SCALE, WIRE_DTYPES

PROGRAM = "argmax-model"
CLASSES, FEATURES, SEED = 64, 262_144, 0


class Parser(PlainParser):
    """A parser whose errors are those of the rest of the program: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as a ModelError."""
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
        description="Make, check or show a model as ONNX.",
        epilog=exit_codes("a model was found wrong"),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    make = commands.add_parser(
        "export", help="write a model into a repository", epilog=exit_codes(None)
    )
    make.set_defaults(command=_export)
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
    check.set_defaults(command=_verify)
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
    show.set_defaults(command=_inspect)
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


def _export(args: argparse.Namespace) -> int:
    if args.estimator is not None:
        return _export_estimator(args)
    dtype = args.dtype or "float32"
    if args.weights is None:
        seed = SEED if args.seed is None else args.seed
        if args.tensor is not None:
            raise ModelError(f"--tensor {args.tensor} came without --weights; wanted both")
        weights: NDArray[np.number] = from_seed(
            args.classes or CLASSES, args.features or FEATURES, seed
        )
    else:
        seed = None
        weights = from_file(args.weights, args.tensor)
        if args.seed is not None:
            raise ModelError(f"--seed {args.seed} came with --weights; wanted one of them")
        for option, wanted, got in zip(
            ("--classes", "--features"), (args.classes, args.features), weights.shape, strict=True
        ):
            if wanted not in (None, got):
                raise ModelError(f"{args.weights} has {got} for {option}; wanted {wanted}")
    if args.least_agreement is not None:
        raise ModelError(f"--least-agreement {args.least_agreement} came without --from")
    w = exported(weights, dtype)
    path = export(args.out, args.name, w, dtype, seed, wire=args.wire, scale=args.wire_scale)
    print(_exported(path, w, args.wire))
    return DONE


def _export_estimator(args: argparse.Namespace) -> int:
    for option in ("classes", "features", "seed", "weights", "tensor"):
        value = getattr(args, option)
        if value is not None:
            raise ModelError(f"--{option} {value} came with --from; wanted one of them")
    # Only --from needs scikit-learn, and only `export` joblib.
    estimators = extras.imported("model.estimators", "sklearn")
    estimator = estimators.load(args.estimator)
    exporter = extras.imported("model.estimator_export", "sklearn")
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
    found = verify(args.path, args.examples, args.seed)
    print("\n".join(pairs(_report(found), terminal.results().width, name_width=NAME_WIDTH)))
    return DONE if found.ok else WRONG


def _inspect(args: argparse.Namespace) -> int:
    found = inspect(args.path)
    if args.html is not None:
        files.replace(args.html, inspection_page.render(found).encode())
    print(inspection_text.text(found, terminal.results().width))
    return DONE


def _report(found: Verification) -> list[tuple[str, str]]:
    said = {None: "not recorded", True: "ok", False: "MISMATCH"}
    wire: list[tuple[str, str]] = []
    if found.wire in WIRE_DTYPES:
        of = "" if found.wire_scale is None else f" times {found.wire_scale:g}"
        wire = [
            ("wire", f"{found.wire}{of}: agreement is with the examples before narrowing"),
            ("wire: told", said[found.wire_ok]),
        ]
    return [
        ("model", f"{found.path}"),
        ("examples", f"{found.examples}"),
        *wire,
        ("agreement", f"{found.agreement:.2%}"),
        ("near ties", f"{found.near_ties}"),
        ("wrong labels", f"{found.wrong_labels}"),
        ("W: sha256", said[found.sha_ok]),
        ("W: seed", said[found.seed_ok]),
        ("verdict", "ok" if found.ok else "WRONG"),
    ]


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


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or "out of memory"


if __name__ == "__main__":
    sys.exit(main())
