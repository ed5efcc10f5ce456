"""Kustomize and the schemas of custom kinds, for the tests of deploy/kubernetes.

python tests/kubernetes_tools.py: build kustomize from Go's module proxy, below .cluster/, unless
kubectl or kustomize is on PATH, and fetch the modules with the schemas.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cluster"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
# Where each project keeps its CustomResourceDefinitions, and those of the kinds that are used.
SCHEMAS = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "github.com/kedacore/keda/v2@v2.21.0": ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    "github.com/kserve/kserve@v0.15.2": (
        "config/crd/full/serving.kserve.io_servingruntimes.yaml",
        "config/crd/full/serving.kserve.io_inferenceservices.yaml",
    ),
}
FETCH_S = 300


class Unavailable(Exception):
    """A tool is not here and cannot be had."""


def main() -> int:
    """Fetch what is not there yet; what cannot be had is a line on stderr."""
    try:
        kustomize()
        definitions()
    except Unavailable as missing:
        sys.stderr.write(f"skipped: {missing}\n")
    return 0


@functools.cache
def kustomize() -> tuple[str, ...]:
    """The words of a command that composes the folder it is given.

    Raises Unavailable.
    """
    built = FOLDER / "bin" / f"kustomize-{KUSTOMIZE.partition('@')[2]}"
    for name, words in (("kustomize", ("build",)), ("kubectl", ("kustomize",))):
        path = shutil.which(name)
        if path is not None:
            return (path, *words)
    if not built.exists():
        go("install", KUSTOMIZE, GOBIN=str(built.parent))
        (built.parent / "kustomize").rename(built)
    return (str(built), "build")


@functools.cache
def definitions() -> tuple[Path, ...]:
    """Files with the CustomResourceDefinitions of all kinds that are not Kubernetes' own.

    Raises Unavailable.
    """
    return tuple(
        module_folder(module) / name for module, names in SCHEMAS.items() for name in names
    )


def module_folder(module: str) -> Path:
    """Where the files of a module lie, `PATH@VERSION`; downloaded if it is not there yet."""
    return Path(json.loads(go("mod", "download", "-json", module))["Dir"])


def go(*words: str, **environment: str) -> str:
    """What Go writes to stdout. Raises Unavailable without Go, or without its modules."""
    path = shutil.which("go")
    if path is None:
        raise Unavailable("schemas and kustomize come from Go's module proxy, no `go` on PATH")
    # Outside a module, so that Go reads and writes none.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [path, *words],
            cwd=folder,
            env=os.environ | {"GOFLAGS": "-mod=mod"} | environment,
            capture_output=True,
            text=True,
            timeout=FETCH_S,
            check=False,
        )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"go {' '.join(words)} failed: {lines[-1] if lines else done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
