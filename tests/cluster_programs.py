"""Build Kubernetes' API server, its controllers and etcd from Go's module proxy, below .cluster/.

python tests/cluster_programs.py: takes half an hour of one core, once. tests/deploy/test_cluster.py
runs them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_tools

KUBERNETES = "1.37.2"
ETCD = "3.7.0"
FOLDER = kubernetes_tools.FOLDER / f"kubernetes-{KUBERNETES}"
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}


def main() -> int:
    """Build what is not there yet."""
    go = shutil.which("go")
    if go is None:
        sys.stderr.write("skipped: the cluster is built with Go, and there is no `go` on PATH\n")
        return 0
    for name, source in PROGRAMS.items():
        if path(name).exists():
            continue
        sys.stderr.write(f"building {source}\n")
        _write_module()
        # One package at a time, after everything else: the machine stays usable.
        subprocess.run(
            ["nice", "-n", "19", go, "build", "-p", "1", "-o", path(name), source],
            cwd=FOLDER,
            env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"},
            check=True,
        )
    return 0


def path(name: str) -> Path:
    """Where a program lies once it is built."""
    return FOLDER / "bin" / name


def _write_module() -> None:
    """A module that has all programs, with each of Kubernetes' parts at Kubernetes' version."""
    source = kubernetes_tools.module_folder(f"k8s.io/kubernetes@v{KUBERNETES}")
    # Kubernetes names its own parts v0.0.0, which exists in its repository alone.
    parts = re.findall(r"^\t(k8s\.io/[\w-]+) v0\.0\.0$", (source / "go.mod").read_text(), re.M)
    version = "v0" + KUBERNETES.removeprefix("1")
    lines = [
        "module cluster",
        f"require k8s.io/kubernetes v{KUBERNETES}",
        f"require go.etcd.io/etcd/server/v3 v{ETCD}",
        *(f"replace {part} => {part} {version}" for part in parts),
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "go.mod").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
