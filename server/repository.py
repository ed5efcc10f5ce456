"""Know which models and versions are loaded.

The layout is Triton's: NAME/VERSION/model.onnx, versions being integers; the highest one serves.
"""

import logging
import re
from pathlib import Path

from server.errors import InvalidInput, ModelNotFound, ModelUnavailable, StartError
from server.model import Model, ModelLimits

_log = logging.getLogger(__name__)
_GRAPH = "model.onnx"
_VERSION = re.compile("0|[1-9][0-9]{0,18}")


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
                model = self._models[name] = Model(name, str(version), path, limits)
                rows = model.batching.group_rows
                _log.info(
                    "model loaded", extra={"model": name, "version": version, "group_rows": rows}
                )
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
        return {
            model.name: max(versions)
            for model in folder.iterdir()
            if model.is_dir() and (versions := _versions(model))
        }
    except OSError as error:
        raise StartError(f"--models {error.filename}: {error.strerror}") from None


def _versions(model: Path) -> list[int]:
    return [
        int(entry.name)
        for entry in model.iterdir()
        # A folder such as 01 is none: it would not be found again under its number.
        if _VERSION.fullmatch(entry.name) and (entry / _GRAPH).is_file()
    ]
