"""An image in OCI's layout, made by umoci."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.image import layers, tools
from deploy.image.source import Source

GRPC_PORT, METRICS_PORT = 8001, 8002
_LABEL = "org.opencontainers.image."
# Options as variables, so that each can be overridden alone: by a variable or by an argument.
_VARIABLES = {
    "ARGMAX_SERVER_ADDRESS": f"0.0.0.0:{GRPC_PORT}",
    "ARGMAX_SERVER_METRICS_ADDRESS": f"0.0.0.0:{METRICS_PORT}",
    "ARGMAX_SERVER_MODELS": "/models",
    "PATH": f"{layers.HOME}/bin:/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    # A file of the working folder must not hide a package.
    "PYTHONSAFEPATH": "1",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed archive, and what it is, for the image's history."""

    archive: Path
    comment: str


def write(layout: Path, source: Source, parts: Sequence[Layer]) -> str:
    """Write an image of the layers, tagged with the version; its digest, `sha256:...`."""
    image = f"{layout}:{source.version}"
    created = datetime.fromtimestamp(source.epoch_s, UTC).isoformat()
    tools.run(["umoci", "init", "--layout", layout])
    tools.run(["umoci", "new", "--image", image])
    for part in parts:
        history = ["--history.created", created, "--history.created_by", "make image"]
        history += ["--history.comment", part.comment]
        tools.run(["umoci", "raw", "add-layer", "--image", image, *history, part.archive])
    tools.run(["umoci", "config", "--image", image, "--no-history", *_config(source, created)])
    # Each step has left its manifest behind.
    tools.run(["umoci", "gc", "--layout", layout])
    (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
    digest: str = manifest["digest"]
    return digest


def _config(source: Source, created: str) -> list[str]:
    labels = {
        "title": source.name,
        "description": source.description,
        "version": source.version,
        "revision": source.revision,
        "created": created,
    }
    user = f"{layers.USER_ID}:{layers.USER_ID}"
    words = ["--created", created, "--config.user", user, "--config.workingdir", "/"]
    words += ["--config.stopsignal", "SIGTERM"]
    for part in (f"{layers.HOME}/bin/python", "-m", "server"):
        words += [f"--config.entrypoint={part}"]
    for port in (GRPC_PORT, METRICS_PORT):
        words += ["--config.exposedports", f"{port}/tcp"]
    for name, value in _VARIABLES.items():
        words += ["--config.env", f"{name}={value}"]
    for name, value in labels.items():
        words += ["--config.label", f"{_LABEL}{name}={value}"]
    return words
