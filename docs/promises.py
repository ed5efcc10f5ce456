"""Write the tables of promises in the pages of this folder from promises.toml.

python docs/promises.py [--check]: with --check it writes nothing and ends with 1 when a page
is not what it would write.
"""

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
BEGIN, END = "<!-- promises: begin, made from promises.toml -->", "<!-- promises: end -->"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables, or check them. 0: done, or as they should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    stale = []
    for name, table in tomllib.loads((FOLDER / "promises.toml").read_text("utf-8")).items():
        page = FOLDER / f"{name}.md"
        text = page.read_text("utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        done = "\n".join((before + BEGIN, *_rows(table), END + after))
        if done != text:
            stale.append(page.name)
            if not args.check:
                page.write_text(done, "utf-8")
    if args.check and stale:
        print(f"{', '.join(stale)}: not what docs/promises.py writes", file=sys.stderr)
        return 1
    return 0


def _rows(table: Mapping[str, Any]) -> list[str]:
    columns = table["columns"]
    head = [*columns, "tests"]
    rows = [
        " | ".join((*(row[column] for column in columns), _tests(row["tests"])))
        for row in table["rows"]
    ]
    return [f"| {row} |" for row in (" | ".join(head), " | ".join("---" for _ in head), *rows)]


def _tests(names: Sequence[str]) -> str:
    """Tests by their files, which are below tests/."""
    files = groupby((name.split("::") for name in names), key=lambda parts: parts[0])
    return "; ".join(
        f"[{file}](../tests/{file}): {', '.join(f'`{test}`' for _, test in tests)}"
        for file, tests in files
    )


if __name__ == "__main__":
    sys.exit(main())
