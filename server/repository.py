"""Know which models and versions are loaded.

The layout is Triton's: NAME/VERSION/model.onnx, versions being integers; the highest one serves.
"""

import logging
from pathlib import Path

from server.errors import InvalidInput, ModelNotFound, ModelUnavailable, StartError
from server.model import Model, ModelLimits

_log = logging.getLogger(__name__)
_GRAPH = "model.onnx"


class Repository:
    """The models of one folder."""

    def __init__(self, folder: Path, limits: ModelLimits) -> None:
        """Load the newest version of every model; StartError names what cannot be loaded."""
        found = _newest_versions(folder)
        if not found:
            raise StartError(f"{folder} holds no model; wanted NAME/VERSION/{_GRAPH} below it")
        self._models: dict[str, Model] = {}
        try:
            for name, version in sorted(found.items()):
                path = folder / name / str(version) / _GRAPH
                self._models[name] = Model(name, str(version), path, limits)
                _log.info("model loaded", extra={"model": name, "version": version})
        except StartError:
            self.close()
            raise
        self._ready = True

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._ready

    def models(self) -> list[Model]:
        """Every loaded version, by name."""
        return list(self._models.values())

    def get(self, name: str, version: str = "") -> Model:
        """The version that serves; "" stands for the newest.

        ModelNotFound when there is none of that name or version, InvalidInput when the version is
        no integer, ModelUnavailable while stopping.
        """
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"model {name!r} is not here; there are {sorted(self._models)}")
        if version:
            if not (version.isascii() and version.isdigit()):
                raise InvalidInput(f"version {version!r} came; wanted an integer of at least 0")
            # As text: Python refuses to read thousands of digits as a number.
            if (version.lstrip("0") or "0") != model.version:
                raise ModelNotFound(
                    f"model {name!r} has no version {version} loaded; it has {model.version}"
                )
        if not self._ready:
            raise ModelUnavailable(f"model {name!r} is being unloaded: the server is stopping")
        return model

    def stop(self) -> None:
        """Take no new requests."""
        self._ready = False

    def close(self) -> None:
        """Run what is queued, then end every model's workers."""
        self._ready = False
        for model in self._models.values():
            model.close()


def _newest_versions(folder: Path) -> dict[str, int]:
    try:
        models = [entry for entry in folder.iterdir() if entry.is_dir()]
    except OSError as error:
        raise StartError(f"--models {folder}: {error.strerror}") from None
    newest = {}
    for model in models:
        versions = [
            int(entry.name)
            for entry in model.iterdir()
            if entry.name.isascii() and entry.name.isdigit() and (entry / _GRAPH).is_file()
        ]
        if versions:
            newest[model.name] = max(versions)
    return newest
