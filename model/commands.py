"""The commands of the linear model: options in, results out."""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from command_line import extras, terminal
from command_line.pairs import pairs
from command_line.parser import DONE, WRONG
from model import files
from model.errors import ModelError
from model.export import export as export_linear
from model.inspect import contents, page
from model.inspect import text as inspection_text
from model.inspect.text import NAME_WIDTH
from model.verify import Verification
from model.verify import verify as verify_graph
from model.weights import CLASSES, FEATURES, SEED, exported, from_file, from_seed, sha256
from protos.quantize import WIRE_DTYPES


def export(args: argparse.Namespace) -> int:
    """Write a model into a repository."""
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
    path = export_linear(args.out, args.name, w, dtype, seed, wire=args.wire, scale=args.wire_scale)
    print(_exported(path, w, args.wire))
    return DONE


def _export_estimator(args: argparse.Namespace) -> int:
    for option in ("classes", "features", "seed", "weights", "tensor"):
        value = getattr(args, option)
        if value is not None:
            raise ModelError(f"got --{option} {value} with --from, expected one of them")
    # Only --from needs scikit-learn, and only `export` joblib.
    estimators = extras.imported("model.from_sklearn.estimators", "sklearn", "--from")
    estimator = estimators.load(args.estimator)
    exporter = extras.imported("model.from_sklearn.export", "sklearn", "--from")
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


def verify(args: argparse.Namespace) -> int:
    """Run a model against the float64 reference. Exit code 1: it is wrong."""
    result = verify_graph(args.path, args.examples, args.seed)
    print("\n".join(pairs(_report(result), terminal.results().width, name_width=NAME_WIDTH)))
    return DONE if result.ok else WRONG


def inspect(args: argparse.Namespace) -> int:
    """Show an ONNX file."""
    inspection = contents.inspect(args.path)
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
