"""The models of one folder: which are loaded, and who may change that."""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from server.errors import (
    ControlOff,
    InvalidInput,
    LoadError,
    ModelNotFound,
    ModelUnavailable,
    ServerStopping,
    StartError,
)
from server.loaded_model.model import Model, ModelLimits
from server.loaded_model.model_config import GRAPH
from server.repository import misplaced
from server.repository.entries import Entries, scan
from server.repository.folder import ModelFolder
from server.repository.lifecycle import READY, Lifecycle, VersionState
from server.repository.logged_once import LoggedOnce
from server.repository.preflight.trials import InServer, Preflight
from server.repository.totals import Totals

_log = logging.getLogger(__name__)

NONE, POLL, EXPLICIT = "none", "poll", "explicit"
ALL = "*"
# In the error of a start without a model.
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Control:
    """Who changes the loaded models: nobody, `poll`, or requests, after loading `at_start`."""

    mode: str = NONE
    at_start: tuple[str, ...] = ()


class Repository:
    """The models of one folder."""

    def __init__(
        self,
        folder: Path,
        limits: ModelLimits,
        control: Control,
        validation: Preflight | None = None,
    ) -> None:
        """Load the models to serve from the start; StartError names one that cannot be loaded.

        `validation` reads the files of each model, and tries each version before it is loaded;
        None: the files are read in this process.

        With polling a model that cannot be loaded is no error: it may be complete soon.
        """
        self._folder = folder
        self._limits = limits
        self._preflight = validation or InServer()
        self._control = control
        # What all versions did since the process began.
        self.totals = Totals()
        self._ready = True
        # Replaced as a whole, so that it can be read without the lock.
        self._models: dict[str, Lifecycle] = {}
        self._odd = LoggedOnce(_log, "entry of the model repository is not used", "entry")
        self._misplaced = LoggedOnce(_log, "model file is not used", "file")
        self._adding = threading.Lock()
        try:
            self._start()
        except StartError:
            self.close()
            raise

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self._ready

    def models(self, name: str = "", version: str = "") -> list[Model]:
        """Every version that serves, lowest first, of one model or of all; errors as of `get`."""
        if version:
            return [self.get(name, version)]
        if name:
            self.get(name)
            return _lowest_first(self._models[name])
        return [model for each in self._models.values() for model in _lowest_first(each)]

    def get(self, name: str, version: str = "") -> Model:
        """The version that serves; "" stands for the highest.

        ModelNotFound if no model has that name or version, InvalidInput if the version is not an
        integer, ModelUnavailable while it is not loaded or the server is stopping.
        """
        models = self._models
        lifecycle = models.get(name)
        if lifecycle is None:
            raise ModelNotFound(f"model {name!r} does not exist; the models are {sorted(models)}")
        if not self._ready:
            raise ModelUnavailable(f"model {name!r} is being unloaded: the server is stopping")
        if version:
            if not (version.isascii() and version.isdigit()):
                raise InvalidInput(f"got version {version!r}, expected an integer of at least 0")
            # As text: Python refuses to read thousands of digits as a number.
            version = version.lstrip("0") or "0"
        return lifecycle.get(version)

    def index(self, *, ready_only: bool) -> list[VersionState]:
        """Every version of every model, those in the folder and those that still serve."""
        models = self._models
        states: list[VersionState] = []
        try:
            in_folder = scan(self._folder).models
        except LoadError:  # the folder cannot be read; loaded models keep serving
            in_folder = []
        for name in sorted({*models, *in_folder}):
            lifecycle = models.get(name) or self._new_lifecycle(self._model_folder(name))
            states += lifecycle.states()
        return [state for state in states if state.state == READY or not ready_only]

    def load(self, name: str, override: str | None = None) -> None:
        """Load or reload a model, by its configuration or by `override`, which is JSON.

        ControlOff if requests may not; ModelNotFound; LoadError if it fails, and then the old
        versions keep serving.
        """
        self._check_control()
        lifecycle = self._lifecycle(name)
        try:
            lifecycle.load(override)
        except StartError as error:
            _not_loaded(name, error)
            raise LoadError(f"model {name!r} is not loaded: {lifecycle.failure}") from None

    def unload(self, name: str) -> None:
        """Unload a model; return when accepted requests are answered."""
        self._check_control()
        self._lifecycle(name).unload()
        _log.info("model unloaded", extra={"model": name})

    def poll(self) -> None:
        """Load new and changed models of the folder, unload deleted ones; log failures."""
        entries = scan(self._folder)
        self._warn(entries)
        for name in entries.models:
            if not self._ready:
                return
            self._load_changed(name)
        for name in self._models.keys() - set(entries.models) - entries.unreadable:
            self._models[name].unload()
            with self._adding:
                self._models = {n: each for n, each in self._models.items() if n != name}
            _log.info("model unloaded", extra={"model": name})

    def stop(self) -> None:
        """Accept no new requests, and load no more models."""
        self._ready = False
        self._preflight.stop()

    def close(self) -> None:
        """Run queued requests, then end every model's workers."""
        self.stop()
        for lifecycle in self._models.values():
            lifecycle.unload()

    def _start(self) -> None:
        names = self._control.at_start
        if names and self._control.mode != EXPLICIT:
            raise StartError(
                f"got --load-model with --model-control {self._control.mode}, expected {EXPLICIT}"
            )
        if ALL in names and len(names) > 1:
            raise StartError("got --load-model '*' with other names, expected '*' alone")
        entries = scan(self._folder)
        self._warn(entries)
        if self._control.mode == POLL:
            self.poll()
            return
        if self._control.mode == NONE and not entries.models:
            what = f"{self._folder} holds no model; expected NAME/VERSION/{GRAPH} below it"
            odd = list(entries.odd.values())[:_MOST_NAMED]
            raise StartError("; ".join((what, *odd, *self._misplaced_files(entries))))
        if self._control.mode == NONE or names == (ALL,):
            names = tuple(entries.models)
        for name in names:
            try:
                self._lifecycle(name).load()
            except (InvalidInput, ModelNotFound) as error:
                raise StartError(f"--load-model {name}: {error}") from None

    def _load_changed(self, name: str) -> None:
        """Load a model if its files have changed, whose failure must not keep others from it."""
        try:
            lifecycle = self._lifecycle(name)
            if lifecycle.changed:
                lifecycle.load(keep_unchanged=True)
        except StartError as error:
            _not_loaded(name, error)
        except (ModelNotFound, ServerStopping):
            pass  # its folder is gone since it was listed, or the server ends
        except Exception:
            _log.exception("model not loaded", extra={"model": name})

    def _warn(self, entries: Entries) -> None:
        """Log what is not used: entries that are odd, files that look like a model but are none."""
        self._odd.update(entries.odd.values())
        self._misplaced.update(self._misplaced_files(entries))

    def _misplaced_files(self, entries: Entries) -> list[str]:
        known = {*entries.models, *entries.odd}
        return misplaced.in_repository(self._folder, known, GRAPH)

    def _check_control(self) -> None:
        if self._control.mode != EXPLICIT:
            raise ControlOff(
                "explicit model load / unload is not allowed if polling is enabled, nor without "
                f"--model-control explicit; it is {self._control.mode}"
            )
        if not self._ready:
            raise ServerStopping("the server is stopping")

    def _lifecycle(self, name: str) -> Lifecycle:
        """Lifecycle of a model that is loaded, was loaded, or has a folder."""
        folder = self._model_folder(name)
        with self._adding:
            if name not in self._models:
                if not folder.exists:
                    raise ModelNotFound(f"model {name!r} is not in the repository")
                self._models = {**self._models, name: self._new_lifecycle(folder)}
            return self._models[name]

    def _new_lifecycle(self, folder: ModelFolder) -> Lifecycle:
        return Lifecycle(folder, self._limits, self._preflight, self.totals)

    def _model_folder(self, name: str) -> ModelFolder:
        return ModelFolder(self._folder, name)


def _lowest_first(lifecycle: Lifecycle) -> list[Model]:
    return [*lifecycle.serving.values()][::-1]


def _not_loaded(name: str, error: StartError) -> None:
    _log.error("model not loaded", extra={"model": name, "reason": str(error)})
