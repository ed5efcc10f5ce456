"""Read the fenced code blocks of a Markdown page."""

import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

RUN = ("sh", "python")
"""Languages of blocks that are commands or Python: they run, or say why not."""

SHOWN = ("text", "protobuf", "json", "go", "java", "ts", "cpp")
"""Languages of blocks that show something: output, configuration, excerpts of examples/."""

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)")
_MARK = re.compile(r"\s*<!-- not run: *(?P<reason>.*?) *-->\s*")


class BadBlock(Exception):
    """A block that cannot be read; the text begins with the page and the line."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it begins (the line of its fence, from 1) and what it holds."""

    page: str
    line: int
    language: str
    source: str
    reason: str | None
    """Why it does not run, as its mark says; None without a mark."""

    @property
    def where(self) -> str:
        """Page and line, as editors and terminals link them."""
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> list[Block]:
    """Return the fenced blocks of the Markdown `text`, in order.

    Raises BadBlock for a fence without a language or without an end, for a language that is
    neither run nor shown, and for a mark without a reason or above a block that is only shown.
    """
    found = []
    lines = text.splitlines()
    numbers = iter(range(len(lines)))
    for opening in numbers:
        fence = _FENCE.fullmatch(lines[opening])
        if fence is None:
            continue
        where = f"{page}:{opening + 1}"
        closing = re.compile(rf" *{re.escape(fence['fence'])}+ *")
        content = []
        for number in numbers:
            if closing.fullmatch(lines[number]):
                break
            content.append(lines[number])
        else:
            raise BadBlock(f"{where}: the block has no closing fence")
        source = textwrap.dedent("\n".join(content)) + "\n"
        block = Block(page, opening + 1, fence["info"].strip(), source, _mark(lines, opening))
        _check(block)
        found.append(block)
    return found


def _mark(lines: list[str], opening: int) -> str | None:
    above = lines[opening - 1] if opening else ""
    mark = _MARK.fullmatch(above)
    return mark["reason"] if mark else None


def _check(block: Block) -> None:
    known = ", ".join(RUN + SHOWN)
    if block.language not in RUN + SHOWN:
        raise BadBlock(f"{block.where}: got language {block.language!r}, expected one of {known}")
    if block.reason is None:
        return
    if not block.reason:
        raise BadBlock(f"{block.where}: the mark `not run` has no reason")
    if block.language in SHOWN:
        raise BadBlock(f"{block.where}: a block of {block.language} never runs, so needs no mark")


def commands(source: str) -> Iterator[str]:
    """Split the source of a `sh` block into complete commands, without comment lines.

    A command ends with the first line at which bash finds it complete, so that quotes, loops and
    continued lines stay together. A last one that never completes comes as it is.
    """
    pending = ""
    for line in source.splitlines(keepends=True):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        pending += line
        if line.rstrip("\n").endswith("\\"):
            continue
        complete = subprocess.run(
            ["bash", "-n"], input=pending, text=True, capture_output=True, check=False
        )
        if complete.returncode == 0:
            yield pending.strip()
            pending = ""
    if pending:
        yield pending.strip()
