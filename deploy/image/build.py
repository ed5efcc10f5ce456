"""Build the server's image in OCI's layout, without a registry: `make image`.

Run it in the repository's root by the Python of an environment with deploy/requirements.txt.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from installer.utils import parse_wheel_filename

from deploy.image import layers, oci, sbom, source, tools
from deploy.image.errors import ImageError

LAYOUT, SBOM, CONSTRAINTS = "argmax-serving", "sbom.cdx.json", "constraints.txt"


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if the image was built, 2 if it could not be."""
    parser = argparse.ArgumentParser(prog="make image", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path(".image"), help="folder for the image")
    parser.add_argument(
        "--constraints", type=Path, help=f"versions of packages: {CONSTRAINTS} of an earlier build"
    )
    args = parser.parse_args(argv)
    try:
        layers.check_python()
        tools.check()
        if args.constraints is not None and not args.constraints.is_file():
            raise ImageError(f"--constraints: no file {args.constraints}")
        print(build(args.out, args.constraints))
    except ImageError as error:
        print(f"make image: {error}", file=sys.stderr)
        return 2
    return 0


def build(out: Path, constraints: Path | None = None) -> str:
    """Build the image, its SBOM and its list of versions in `out`; the image's digest.

    What an earlier build left there is replaced, but only once all is built. Raises ImageError.
    """
    with tempfile.TemporaryDirectory(prefix="argmax-image-") as folder:
        scratch = Path(folder)
        digest = _build(scratch, constraints)
        out.mkdir(parents=True, exist_ok=True)
        for name in (LAYOUT, SBOM, CONSTRAINTS):
            if (out / name).is_dir():
                shutil.rmtree(out / name)
            shutil.move(scratch / name, out / name)
    return digest


def _build(scratch: Path, constraints: Path | None) -> str:
    of = source.copy(scratch / "source")
    folders = system, dependencies, application = [
        scratch / name for name in ("system", "dependencies", "application")
    ]
    # Both mostly wait for downloads.
    with ThreadPoolExecutor() as pool:
        made = pool.submit(_system, system, scratch, of.epoch_s)
        ours, others = _wheels(scratch, of, constraints)
        layers.environment(dependencies)
        layers.install(dependencies, others)
        layers.install(application, [ours])
        for folder in (dependencies, application):
            layers.compile_all(folder)
        made.result()
    packages = [layers.site_packages(each) for each in (dependencies, application)]
    sbom.write(scratch / SBOM, of, system, packages, scratch)
    versions = sorted(parse_wheel_filename(wheel.name)[:2] for wheel in others)
    (scratch / CONSTRAINTS).write_text("".join(f"{n}=={v}\n" for n, v in versions))
    # What changes most comes last, so that a new version is a small download.
    comments = f"Python of Debian {layers.SUITE}", "packages of Python", f"{of.name} {of.version}"
    parts = [
        oci.Layer(layers.archive(folder, of.epoch_s), comment)
        for folder, comment in zip(folders, comments, strict=True)
    ]
    return oci.write(scratch / LAYOUT, of, parts)


def _system(folder: Path, scratch: Path, epoch_s: int) -> None:
    layers.system(folder, scratch, epoch_s)
    layers.compile_all(folder)


def _wheels(scratch: Path, of: source.Source, constraints: Path | None) -> tuple[Path, list[Path]]:
    """Build the project's wheel and fetch those that it needs."""
    folder = scratch / "wheels"
    words = ["--quiet", "--only-binary", ":all:", "--wheel-dir", str(folder)]
    if constraints is not None:
        words += ["--constraint", str(constraints)]
    words += [f"{of.folder}[{','.join(of.extras)}]"]
    variables = {"SOURCE_DATE_EPOCH": str(of.epoch_s)}
    tools.run([sys.executable, "-m", "pip", "wheel", *words], variables=variables)
    wheels = list(folder.iterdir())
    (ours,) = (each for each in wheels if each.name.startswith(of.name.replace("-", "_") + "-"))
    return ours, [each for each in wheels if each != ours]


if __name__ == "__main__":
    sys.exit(main())
