"""Take one model through its life: load versions beside those that serve, swap, let go of the old.

What serves is one mapping that is replaced as a whole, so whoever looks at it, without a lock, sees
all of the old or all of the new.
"""

import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from protos import buffers
from protos.model_config_pb2 import ModelConfig
from server import external_data, model_config, row_independence
from server.errors import LoadError, ModelNotFound, ModelUnavailable, StartError
from server.model import Model, ModelLimits
from server.model_folder import CONFIG, GRAPH, Fingerprint, ModelFolder
from server.validation import Validation

_log = logging.getLogger(__name__)

READY, LOADING, UNLOADING, UNAVAILABLE = "READY", "LOADING", "UNLOADING", "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class VersionState:
    """Where one version of a model is in its life, and why."""

    name: str
    version: str
    state: str
    reason: str = ""


class Lifecycle:
    """The versions of one model."""

    def __init__(
        self, folder: ModelFolder, limits: ModelLimits, validation: Validation | None
    ) -> None:
        """`validation`: what tries a version before it is loaded here, None: nothing does."""
        self.name = folder.name
        self._folder = folder
        self._limits = limits
        self._validation = validation
        # Highest version first.
        self.serving: Mapping[str, Model] = {}
        # The files that a version was made of.
        self._sources: dict[Model, tuple[Fingerprint, Fingerprint]] = {}
        self._seen: tuple[object, ...] = ()
        self._loading: Collection[str] = ()
        self._retiring: dict[Model, threading.Thread] = {}
        # Why the last load failed, or else why nothing serves.
        self.failure = ""
        self._absence = "not loaded"
        # One change at a time; what serves is read without it.
        self._changing = threading.Lock()

    @property
    def changed(self) -> bool:
        """Whether the files are others than when they were last loaded, or tried."""
        return self._folder.fingerprint() != self._seen

    def get(self, version: str) -> Model:
        """The version that serves, digits without leading zeros; "" stands for the highest.

        ModelUnavailable when it does not now; ModelNotFound when there is none.
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

    def load(self, override: ModelConfig | None = None, *, keep_unchanged: bool = False) -> None:
        """Serve what the folder holds now, by its configuration or by the one given instead.

        All versions or none: StartError when one cannot be loaded, and what served goes on.
        `keep_unchanged`: versions whose files are what they were are not loaded anew.
        """
        with self._changing:
            # Else versions that still finish their queues could pile up, each with its weights.
            for thread in list(self._retiring.values()):
                thread.join()
            old = self.serving
            made: list[Model] = []
            try:
                new = self._load(override, made, old if keep_unchanged else {})
            except Exception as error:
                self.failure = (
                    self._folder.shown(str(error))
                    if isinstance(error, StartError)
                    else "internal error"
                )
                self._retire(made)
                raise
            finally:
                self._loading = ()
            self.serving, self.failure = new, ""
            self._retire(model for model in old.values() if model not in new.values())

    def unload(self) -> None:
        """Serve no version any more; returns once what was accepted is answered."""
        with self._changing:
            old, self.serving = self.serving, {}
            self.failure, self._absence = "", "unloaded"
            self._retire(old.values())
            threads = list(self._retiring.values())
        for thread in threads:
            thread.join()

    def states(self) -> list[VersionState]:
        """Every version that serves, is in between, or has a folder; lowest first."""
        serving, loading = self.serving, self._loading
        retiring = {model.version for model in list(self._retiring)}
        try:
            folders = {str(version) for version in self._folder.version_folders()}
        except LoadError:
            folders = set()
        absence = self.failure or ("not of the version policy" if serving else self._absence)
        versions = sorted({*serving, *loading, *retiring, *folders}, key=int)
        states = []
        for version in versions:
            if version in serving:
                state, reason = READY, self.failure
            elif version in loading:
                state, reason = LOADING, ""
            elif version in retiring:
                state, reason = UNLOADING, ""
            else:
                state, reason = UNAVAILABLE, absence
            states.append(VersionState(self.name, version, state, reason))
        return states or [VersionState(self.name, "", UNAVAILABLE, absence)]

    def _load(
        self, override: ModelConfig | None, made: list[Model], old: Mapping[str, Model]
    ) -> dict[str, Model]:
        # Before anything is read: a change in between is then seen later, not missed.
        self._seen = self._folder.fingerprint()
        own_files = self._folder.own_files()
        with self._naming_the_file():
            config = override
            if config is None:
                config = model_config.parse_text(self._folder.config() or "")
            for what in model_config.check(config, self.name):
                extra = {"model": self.name, "field": what}
                _log.warning("configuration without effect", extra=extra)
        graph = config.default_model_filename or GRAPH
        present = self._folder.versions(graph)
        wanted = model_config.wanted_versions(config, present)
        if not wanted:
            raise LoadError(
                f"model {self.name!r} has no version to serve: {graph} is in {present}, "
                "of which the version policy takes none"
            )
        for output in config.output:
            if output.label_filename:
                self._folder.check_file(output.label_filename)
        self._loading = {str(number) for number in wanted} - self.serving.keys()
        new: dict[str, Model] = {}
        for number in wanted:
            version = str(number)
            source = own_files, self._folder.version_files(number)
            model = old.get(version)
            if model is None or self._sources[model] != source:
                path = self._folder.graph(number, graph)
                external_data.check(path)
                limits = self._limits
                with self._naming_the_file():
                    if self._validation is not None:
                        tried = self._validation.check(self.name, version, path, config, limits)
                        if self._folder.version_files(number) != source[1]:
                            raise LoadError(f"{path.parent} changed while it was loaded")
                        # Found by running the graph, which is to be done there alone.
                        limits = replace(
                            limits, group_rows=tried.group_rows, unbatched=tried.unbatched
                        )
                    model = Model(self.name, version, path, config, limits)
                made.append(model)
                self._sources[model] = source
                rows = model.batching.group_rows
                _log.info(
                    "model loaded",
                    extra={"model": self.name, "version": number, "group_rows": rows},
                )
                _log_doubt(model)
            new[version] = model
        return new

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except LoadError as error:
            raise LoadError(f"{self._folder.path / CONFIG}: {error}") from None

    def _retire(self, models: Iterable[Model]) -> None:
        """Close them once what they have queued is run, without waiting for it."""
        for model in models:
            thread = threading.Thread(target=self._close, args=(model,), name="retire")
            self._retiring[model] = thread
            thread.start()

    def _close(self, model: Model) -> None:
        model.close()
        del self._sources[model], self._retiring[model]
        # The allocator keeps what was freed for messages to come, but weights come no more.
        buffers.give_back()


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
