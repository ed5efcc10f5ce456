"""The life of one model: load new versions beside those that serve, swap, release the old.

The serving versions are one mapping that is replaced as a whole, so a reader, without a lock, sees
all of the old or all of the new.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from command_line import shortage
from protos import malloc
from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError, ModelNotFound, ModelUnavailable, StartError
from server.loaded_model import model_config, row_independence
from server.loaded_model.labels import Labels
from server.loaded_model.model import Model, ModelLimits
from server.loaded_model.model_config import GRAPH
from server.repository import configuration
from server.repository.configuration import Configuration
from server.repository.folder import Fingerprint, ModelFolder
from server.repository.preflight import model_files
from server.repository.preflight.trials import InServer, Preflight, Trial
from server.repository.retirement import Retirement
from server.repository.totals import Totals
from server.repository.versions_failed import VersionsFailed

_log = logging.getLogger(__name__)

READY, LOADING, UNLOADING, UNAVAILABLE = "READY", "LOADING", "UNLOADING", "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class VersionState:
    """State of one version of a model, and the reason for it."""

    name: str
    version: str
    state: str
    reason: str = ""


class Lifecycle:
    """The versions of one model."""

    def __init__(
        self,
        folder: ModelFolder,
        limits: ModelLimits,
        preflight: Preflight | InServer,
        totals: Totals,
    ) -> None:
        """`preflight` reads the files of the model, and tries versions before they are loaded."""
        self.name = folder.name
        self._folder = folder
        self._limits = limits
        self._preflight = preflight
        self._totals = totals
        # Highest version first.
        self.serving: Mapping[str, Model] = {}
        # The files that a version was loaded from.
        self._sources: dict[Model, tuple[Fingerprint, Fingerprint]] = {}
        self._seen: tuple[object, ...] = ()
        self._loading: Collection[str] = ()
        # Of every version, and of those whose queue still runs empty.
        self._retirements: dict[Model, Retirement] = {}
        self._retiring: dict[Model, Retirement] = {}
        # The file that holds a graph.
        self._graph = GRAPH
        # Why the last load failed, or else why no version serves; by version, if it got that far.
        self.failure = ""
        self._reasons: Mapping[str, str] = {}
        self._absence = "not loaded"
        # One change at a time; readers of the serving versions do not take it.
        self._changing = threading.Lock()

    @property
    def changed(self) -> bool:
        """Whether the files have changed since they were last loaded, or tried."""
        return self._folder.fingerprint() != self._seen

    def get(self, version: str) -> Model:
        """The version that serves, digits without leading zeros; "" stands for the highest.

        ModelUnavailable if it does not serve now; ModelNotFound if there is none.
        """
        serving = self.serving
        model = serving.get(version) if version else next(iter(serving.values()), None)
        if model is not None:
            return model
        if not serving or version in self._loading:
            reason = "being loaded" if self._loading else self.failure or self._absence
            raise ModelUnavailable(f"model {self.name!r} is not ready: {reason}")
        raise ModelNotFound(
            f"model {self.name!r} has no version {version} loaded; it has {', '.join(serving)}"
        )

    def load(self, override: str | None = None, *, keep_unchanged: bool = False) -> None:
        """Serve the folder's versions, by its configuration or by `override`, which is JSON.

        All versions or none: StartError when one cannot be loaded; the old versions keep serving.
        `keep_unchanged`: versions whose files have not changed are not reloaded.
        """
        with self._changing:
            # Otherwise versions that still finish their queues could pile up, with their weights.
            for retirement in list(self._retiring.values()):
                retirement.wait()
            old = self.serving
            # How long each took to load, in seconds.
            made: dict[Model, float] = {}
            try:
                with self._preflight.trial() as trial:
                    new = self._load(trial, override, made, old if keep_unchanged else {})
            except Exception as error:
                self._reasons = (
                    error.reasons(self._folder.shown) if isinstance(error, VersionsFailed) else {}
                )
                self.failure = (
                    self._folder.shown(str(error))
                    if isinstance(error, StartError)
                    else "internal error"
                )
                self._retire(made)
                raise
            finally:
                self._loading = ()
            for model, load_s in made.items():
                self._totals.add(model, load_s)
            self.serving, self.failure, self._reasons = new, "", {}
            self._retire(model for model in old.values() if model not in new.values())

    def unload(self) -> None:
        """Stop serving every version; return when accepted requests are answered."""
        with self._changing:
            old, self.serving = self.serving, {}
            self.failure, self._reasons, self._absence = "", {}, "unloaded"
            self._retire(old.values())
            retirements = list(self._retiring.values())
        for retirement in retirements:
            retirement.wait()

    def states(self) -> list[VersionState]:
        """Every version that serves, is being loaded or unloaded, or has a folder; lowest first."""
        serving, loading = self.serving, self._loading
        retiring = {model.version for model in list(self._retiring)}
        try:
            folders = {str(version) for version in self._folder.version_folders()}
        except LoadError:
            folders = set()
        versions = sorted({*serving, *loading, *retiring, *folders}, key=int)
        states = []
        for version in versions:
            if version in serving:
                state, reason = READY, self._reasons.get(version, self.failure)
            elif version in loading:
                state, reason = LOADING, ""
            elif version in retiring:
                state, reason = UNLOADING, ""
            else:
                state, reason = UNAVAILABLE, self._why_absent(version)
            states.append(VersionState(self.name, version, state, reason))
        if states:
            return states
        return [VersionState(self.name, "", UNAVAILABLE, self.failure or self._absence)]

    def _load(
        self,
        trial: Trial | InServer,
        override: str | None,
        made: dict[Model, float],
        old: Mapping[str, Model],
    ) -> dict[str, Model]:
        # Taken before anything is read, so that a change in between is seen later, not missed.
        self._seen = self._folder.fingerprint()
        own_files = self._folder.own_files()
        configured = configuration.read(trial, self._folder, override)
        config = configured.config
        self._graph = config.default_model_filename or GRAPH
        numbers = self._wanted(config)
        labels = configuration.labels(trial, self._folder, config)
        self._loading = {str(number) for number in numbers} - self.serving.keys()
        new: dict[str, Model] = {}
        failed: dict[str, StartError] = {}
        for number in numbers:
            version = str(number)
            try:
                source = own_files, self._folder.version_files(number)
                model = old.get(version)
                if model is None or self._sources[model] != source:
                    began_s = time.monotonic()
                    model = self._load_version(trial, number, configured, labels, source[1])
                    made[model] = time.monotonic() - began_s
                    self._sources[model] = source
                new[version] = model
            # The other versions are tried too, so that each has its own reason.
            except StartError as error:
                failed[version] = error
            except Exception as error:
                short = shortage.described(error)
                if short is None:
                    raise
                failed[version] = StartError(f"{self._folder.graph(number, self._graph)}: {short}")
        if failed:
            raise VersionsFailed(failed, [str(number) for number in numbers])
        return new

    def _wanted(self, config: ModelConfig) -> list[int]:
        """The versions to serve, highest first; LoadError if there is none."""
        graph = self._graph
        present = self._folder.versions(graph)
        misplaced = self._folder.misplaced(graph)
        for what in misplaced:
            _log.warning("model file is not used", extra={"model": self.name, "file": what})
        wanted = model_config.wanted_versions(config, present)
        if wanted:
            return wanted
        if present:
            why = f"{graph} is in {present}, of which the version policy takes none"
        else:
            empty = (self._folder.missing(n, graph) for n in self._folder.version_folders())
            hints = "; ".join([*empty, *misplaced])
            why = hints or f"expected {self.name}/VERSION/{graph}"
        raise LoadError(f"model {self.name!r} has no version to serve: {why}")

    def _load_version(
        self,
        trial: Trial | InServer,
        number: int,
        configured: Configuration,
        labels: Labels,
        files: Fingerprint,
    ) -> Model:
        """Load one version; StartError also if its files change meanwhile."""
        version = str(number)
        path = self._folder.graph(number, self._graph)
        limits, reason, graph = self._limits, "", None
        config = configured.config
        with model_files.naming(configured.source):
            tried = trial.version(self.name, version, path, config, limits)
        if tried is not None:
            if self._folder.version_files(number) != files:
                raise LoadError(f"{path.parent} changed while it was loaded")
            # Measured by running the graph, which only that process should do.
            limits = replace(
                limits,
                group_rows=tried.group_rows,
                argmax_labels=tried.argmax_labels,
                unbatched=tried.unbatched,
            )
            reason, graph = tried.group_reason, tried.graph
        retirement = Retirement()
        try:
            with model_files.naming(configured.source):
                model = Model(self.name, version, path, config, limits, labels, graph)
        except BaseException:
            retirement.begin(None)
            raise
        self._retirements[model] = retirement
        extra = {
            "model": self.name,
            "version": number,
            "group_rows": model.batching.group_rows,
            "group_rows_because": reason or model.group_reason,
        }
        _log.info("model loaded", extra=extra)
        _log_doubt(model)
        return model

    def _why_absent(self, version: str) -> str:
        if version in self._reasons:
            return self._reasons[version]
        # A failure without a version concerns all of them.
        if self.failure and not self._reasons:
            return self.failure
        missing = self._folder.missing(int(version), self._graph)
        if missing:
            return self._folder.shown(missing)
        return "not of the version policy" if self.serving or self._reasons else self._absence

    def _retire(self, models: Iterable[Model]) -> None:
        """Close models when their queues have run empty, without waiting for that."""
        for model in models:
            retirement = self._retirements.pop(model)
            self._retiring[model] = retirement
            retirement.begin(partial(self._close, model))

    def _close(self, model: Model) -> None:
        model.close()
        self._sources.pop(model, None)
        del self._retiring[model]
        # The allocator keeps freed memory for later messages, but weights are not needed again.
        malloc.give_back()


def _log_doubt(model: Model) -> None:
    if row_independence.found_in_doubt(model.unbatched):
        _log.warning(
            "each request runs alone: rows may not be independent",
            extra={
                "model": model.name,
                "version": model.version,
                "reason": model.unbatched,
                "setting": "max_batch_size in config.pbtxt: most rows of a batch, or 0",
            },
        )
