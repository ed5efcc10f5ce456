"""Counts of every model version that ever served, over all its loads.

A reload makes a new model, whose statistics begin anew; requests of the one before may still
finish, and count there. Monitoring wants counts that never go back while the process lives.
"""

import threading
import weakref
from dataclasses import dataclass, field

from server.batching.statistics import Counts, Statistics
from server.loaded_model.model import Model

Version = tuple[str, str]  # of a model: its name and version


@dataclass(slots=True)
class VersionTotals:
    """What one version did since the process began, and what it does now.

    `waiting`: requests in its queues now. `load_s`: how long its last load took.
    """

    counts: Counts = field(default_factory=Counts)
    waiting: int = 0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Load:
    """One loaded model: its counts live on when it is gone."""

    version: Version
    counts: Counts
    lock: threading.Lock
    statistics: weakref.ref[Statistics]
    model: weakref.ref[Model]


class Totals:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: list[_Load] = []
        # Of models that are gone, with which nothing can be counted any more.
        self._gone: dict[Version, Counts] = {}
        self._load_s: dict[Version, float] = {}

    def add(self, model: Model, load_s: float) -> None:
        """Count what a model does that is about to serve, and that took `load_s` to load."""
        statistics = model.statistics
        version = (model.name, model.version)
        load = _Load(
            version,
            statistics.counts,
            statistics.lock,
            weakref.ref(statistics),
            weakref.ref(model),
        )
        with self._lock:
            self._load_s[version] = load_s
            self._loads.append(load)
            self._fold_locked()

    def read(self) -> dict[Version, VersionTotals]:
        """Every version that ever served."""
        found: dict[Version, VersionTotals] = {}
        with self._lock:
            self._fold_locked()
            for version, load_s in self._load_s.items():
                totals = found[version] = VersionTotals(load_s=load_s)
                if version in self._gone:
                    totals.counts.merge(self._gone[version])
            for load in self._loads:
                totals = found[load.version]
                with load.lock:
                    totals.counts.merge(load.counts)
                model = load.model()
                if model is not None:
                    totals.waiting += model.waiting
        return found

    def _fold_locked(self) -> None:
        """Add up the counts of models that are gone: each reload leaves one."""
        kept = []
        for load in self._loads:
            if load.statistics() is not None:
                kept.append(load)
            else:
                self._gone.setdefault(load.version, Counts()).merge(load.counts)
        self._loads = kept
