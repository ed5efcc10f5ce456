"""The parts of a soak: the unit that each counts, its target, its share of the time."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from command_line import extras
from soak import leaks
from soak.known_answers import FULL_SIZE, SMALL
from soak.tally import Tally


@dataclass(frozen=True, slots=True)
class Part:
    """One promise, tested `target` times.

    `share`: its part of the remaining time, in proportion to the shares of the remaining parts;
    about the time for `target` on two busy cores, in units of 10 s. `module` of `soak` is imported
    when it runs, because some need packages of the extra [dev].
    """

    counts: str
    target: int
    share: int
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> Callable[[Tally, Path], None]:
        """Run the test of the promise. MissingExtra says how to install a missing package."""
        module = f"soak.{self.module}"
        found = extras.imported(module, "dev", module)
        return functools.partial(found.run, **self.options)


PARTS: Mapping[str, Part] = {
    "answers": Part(
        "requests, 64 x 256, answered correctly",
        1_000_000,
        70,
        "answers",
        {"experiment": SMALL, "most_rows": 4},
    ),
    "full-size": Part(
        "requests, 64 x 262,144, answered correctly",
        20_000,
        8,
        "answers",
        {"experiment": FULL_SIZE, "most_rows": 2},
    ),
    "terminations": Part(
        "SIGTERMs under load, nothing accepted failed", 200, 38, "signals.terminations"
    ),
    "kills": Part("SIGKILLs under load, no client saw a failure", 100, 37, "signals.kills"),
    "limits": Part(
        "servers with a random resource limit that SIGTERM ended in time", 200, 90, "signals.limits"
    ),
    "swaps": Part("hot swaps, no request failed or mixed", 500, 110, "hot_swap"),
    "leaks": Part(
        "requests, equally many of each kind, that leaked nothing",
        len(leaks.KINDS) * leaks.REQUESTS,
        25,
        "leaks",
    ),
    "memory": Part(
        "rounds of attacks on memory, within the bounds of the options, others served",
        500,
        12,
        "memory.bounded",
    ),
    "codec": Part(
        "damaged messages decoded or rejected like protobuf", 10_000_000, 14, "fuzz.codec_fuzz"
    ),
    "rpc": Part("damaged calls that got a proper status", 100_000, 15, "fuzz.rpc_fuzz"),
    "frames": Part(
        "connections with damaged HTTP/2 frames, closed, others served",
        20_000,
        4,
        "fuzz.frames_fuzz",
    ),
    "transport": Part(
        "damaged conversations of some 20 frames that ended their connection and calls",
        1_000_000,
        40,
        "fuzz.transport_fuzz",
    ),
    "headers": Part(
        "damaged header blocks read like hpack alone", 10_000_000, 35, "fuzz.headers_fuzz"
    ),
    "files": Part("damaged ONNX files rejected or served", 2_000, 100, "fuzz.files_fuzz"),
    "sequences": Part(
        "random sequences of 25 calls with the results that the state predicts",
        2_000,
        38,
        "fuzz.sequences",
    ),
}
