"""Test the promises of the service for a given time: `python -m soak`."""

import sys
from collections.abc import Sequence

from command_line import extras
from command_line.guard import guarded


def main(argv: Sequence[str] | None = None) -> int:
    """Run and write the record. 0: nothing failed; 1: something failed; 2: it could not run."""

    def run() -> int:
        code: int = extras.imported("soak.command", "dev", "this command").main(argv)
        return code

    return guarded("soak", run, {})


if __name__ == "__main__":
    sys.exit(main())
