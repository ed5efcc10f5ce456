"""Build other people's tests of gRPC and HTTP/2 from Go's module proxy: h2spec, grpc-go's programs.

They lie below .bench/conformance, where tests/transport/test_conformance.py looks for them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".bench" / "conformance"
# Go names a program after the last part of its path, ours after what it is.
PROGRAMS = {
    "h2spec": "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible",
    "interop_client": "google.golang.org/grpc/interop/client@v1.85.0",
    "interop_server": "google.golang.org/grpc/interop/server@v1.85.0",
}


def main() -> int:
    """Build what is not there yet."""
    go = shutil.which("go")
    if go is None:
        sys.stderr.write("skipped: the conformance tests need Go, and there is no `go` on PATH\n")
        return 0
    for name, source in PROGRAMS.items():
        # The version is part of the file's name, so that another one is built anew.
        program = path(name)
        if program.exists():
            continue
        sys.stderr.write(f"building {source}\n")
        folder = FOLDER / "bin"
        environment = os.environ | {"GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
        subprocess.run([go, "install", source], env=environment, check=True)
        (folder / source.partition("@")[0].rpartition("/")[2]).rename(program)
    return 0


def path(name: str) -> Path:
    """Where a program lies once it is built."""
    return FOLDER / f"{name}-{PROGRAMS[name].partition('@')[2]}"


if __name__ == "__main__":
    sys.exit(main())
