"""Command line of the soak: `python -m soak`."""

import sys
from collections.abc import Sequence

from command_line import extras
from command_line.guard import guarded


def main(argv: Sequence[str] | None = None) -> int:
    """Run and write. 0: nothing failed, however far it came; 1: something did; 2: it could not."""

    def run() -> int:
        code: int = extras.imported("soak.command", "dev", "this command").main(argv)
        return code

    return guarded("soak", run, {})


if __name__ == "__main__":
    sys.exit(main())
