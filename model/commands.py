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
    path = export_linear(args.out, args.name, w, dtype, seed, wire=args.wire, scale=args.wire_scale)
    print(_exported(path, w, args.wire))
    return DONE


def _export_estimator(args: argparse.Namespace) -> int:
    for option in ("classes", "features", "seed", "weights", "tensor"):
        value = getattr(args, option)
        if value is not None:
            raise ModelError(f"--{option} {value} came with --from; wanted one of them")
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
    found = verify_graph(args.path, args.examples, args.seed)
    print("\n".join(pairs(_report(found), terminal.results().width, name_width=NAME_WIDTH)))
    return DONE if found.ok else WRONG


def inspect(args: argparse.Namespace) -> int:
    """Show an ONNX file."""
    found = contents.inspect(args.path)
    if args.html is not None:
        files.replace(args.html, page.render(found).encode())
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
