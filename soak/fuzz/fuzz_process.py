"""Fuzz in child processes, since an input may end or hang one: JSON lines over its output.

A module that runs as a child, `python -m MODULE SEED SECONDS COUNT`, makes its inputs from SEED, so
that a failure can be repeated.
"""

import faulthandler
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import psutil

from command_line.parser import positionals
from measure.core.processes import child
from soak.clients import at_once
from soak.tally import Tally

PROCESSES = 2
_BETWEEN_REPORTS = 2000
# A batch of inputs takes a second at most; later the child writes its stacks and ends.
_HANG_S = 60.0
# What allocators keep of large inputs after the first batches.
_MOST_GROWTH_BYTES = 64 * 2**20
# The input, and what went wrong.
Failure = tuple[str, str]
Trial = Callable[[random.Random, int], Failure | None]


def run_children(tally: Tally, module: str) -> None:
    """Count the inputs that children of `module` survived, until the tally's limits."""
    at_once([partial(_follow, tally, module, tally.seed + n) for n in range(PROCESSES)])


def _follow(tally: Tally, module: str, seed: int) -> None:
    """Count the results of one child until it ends."""
    share = tally.take(tally.target // PROCESSES)
    command = [sys.executable, "-m", module, str(seed), str(tally.left_s), str(share)]
    finished = 0
    sizes = []
    with child(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            report = json.loads(line)
            tally.add(report["done"])
            finished += report["done"] + len(report["failures"])
            sizes.append(report["resident_bytes"])
            for failure in report["failures"]:
                tally.fail(f"seed {seed}: {failure['input']}", failure["failure"])
        code = process.wait()
    if code != 0:
        tally.fail(f"seed {seed}, after {finished} inputs", f"the process ended with {code}")
    # The first batches fill caches.
    settled = sizes[len(sizes) // 10 :]
    if settled and settled[-1] - settled[0] > _MOST_GROWTH_BYTES:
        grown = f"resident memory grew from {settled[0]} to {settled[-1]} bytes"
        tally.fail(f"seed {seed}, {finished} inputs", grown)
    tally.give_up(share - finished)


def child_main(module: str, title: str | None, trial: Trial) -> int:
    """Run trials, numbered from 0, until the time or the count is over."""
    seed, seconds, count = positionals(module, title, "seed", "seconds", "count")
    generator = random.Random(int(seed))
    end_s, most = time.monotonic() + float(seconds), int(count)
    process = psutil.Process()
    executed = 0
    while executed < most and time.monotonic() < end_s:
        faulthandler.dump_traceback_later(_HANG_S, exit=True)
        batch = range(executed, min(executed + _BETWEEN_REPORTS, most))
        outcomes = [trial(generator, number) for number in batch]
        executed += len(batch)
        failures = [
            {"input": outcome[0], "failure": outcome[1]}
            for outcome in outcomes
            if outcome is not None
        ]
        report = {
            "done": len(batch) - len(failures),
            "failures": failures,
            "resident_bytes": process.memory_info().rss,
        }
        print(json.dumps(report), flush=True)
    faulthandler.cancel_dump_traceback_later()
    return 0
