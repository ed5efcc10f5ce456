"""The list of what is in an image: a CycloneDX document of Python's and Debian's packages."""

import json
import sys
import venv
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.image import layers, tools
from deploy.image.errors import ImageError
from deploy.image.source import Source

_SCHEMA = SchemaVersion.V1_6


def write(
    target: Path, source: Source, system: Path, packages: Sequence[Path], scratch: Path
) -> None:
    """Write the document: packages of Python below `packages`, those of Debian below `system`.

    Raises ImageError if it is not valid.
    """
    document = _python(source, packages, scratch)
    document["components"] += _debian(system)
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    error = JsonStrictValidator(_SCHEMA).validate_str(text)
    if error is not None:
        raise ImageError(f"SBOM: {error}")
    target.write_text(text)


def _python(source: Source, packages: Sequence[Path], scratch: Path) -> dict[str, Any]:
    # The image's own Python may not run here, so another one gets the image's packages.
    environment = scratch / "sbom"
    venv.create(environment, symlinks=True)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "image.pth").write_text("".join(f"{each}\n" for each in packages))
    words = ["--output-reproducible", "--spec-version", _SCHEMA.to_version()]
    words += ["--pyproject", str(source.folder / "pyproject.toml"), str(environment)]
    text = tools.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", *words],
        variables={"SOURCE_DATE_EPOCH": str(source.epoch_s)},
    )
    document: dict[str, Any] = json.loads(text)
    return document


def _debian(system: Path) -> list[dict[str, str]]:
    components = []
    for path in sorted((system / layers.DPKG_STATUS).iterdir()):
        fields = HeaderParser().parsestr(path.read_text())
        name, version = fields["Package"], fields["Version"]
        place = f"arch={fields['Architecture']}&distro={layers.SUITE}"
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?{place}"
        components.append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        )
    return components
