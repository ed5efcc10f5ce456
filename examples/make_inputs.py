"""Write a model, examples for it, and the label of each, for the example clients.

Run it in the repository's root: `python -m examples.make_inputs --out .examples`. The labels come
from the float64 reference. Near ties are left out, so that every client can compare each label with
the file.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from command_line.parser import Parser
from command_line.paths import path
from model.examples import BLOCK_ROWS, standard_normal
from model.export import export
from model.reference import expect
from model.weights import from_seed

MODEL = "linear_argmax"
EXAMPLES, CLASSES, FEATURES = 256, 64, 262_144
_WEIGHTS_SEED, _EXAMPLES_SEED = 0, 1


@dataclass(frozen=True, slots=True)
class Inputs:
    """Paths of the model repository, the float32 rows, and their int64 labels."""

    models: Path
    rows: Path
    labels: Path


def make_inputs(out: Path, examples: int, classes: int, features: int) -> Inputs:
    """Write `out`/models, `out`/inputs.f32, `out`/labels.i64, raw and little-endian.

    Raises:
        ModelError: a size below 1.
        OSError: a file cannot be written.
    """
    inputs = Inputs(out / "models", out / "inputs.f32", out / "labels.i64")
    weights = from_seed(classes, features, _WEIGHTS_SEED)
    export(inputs.models, MODEL, weights, "float32", _WEIGHTS_SEED)
    with inputs.rows.open("wb") as rows, inputs.labels.open("wb") as labels:
        first_row, wanted = 0, examples
        while wanted:
            x = standard_normal(BLOCK_ROWS, features, _EXAMPLES_SEED, "float32", first_row)
            expected = expect(weights, x, "float32")
            clear = np.flatnonzero(~expected.near_ties)[:wanted]
            rows.write(x[clear].astype("<f4", copy=False).data)
            labels.write(expected.labels[clear].astype("<i8", copy=False).data)
            first_row += BLOCK_ROWS
            wanted -= len(clear)
    return inputs


def main(argv: Sequence[str] | None = None) -> None:
    """Write what the command line asks for."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="where to")
    add_sizes(parser)
    args = parser.parse_args(argv)
    inputs = make_inputs(args.out, args.examples, args.classes, args.features)
    print(inputs.models, inputs.rows, inputs.labels, sep="\n")


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the options that `make_inputs` takes its sizes from."""
    for name, default in (("examples", EXAMPLES), ("classes", CLASSES), ("features", FEATURES)):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help="(default: %(default)s)"
        )


if __name__ == "__main__":
    main()
