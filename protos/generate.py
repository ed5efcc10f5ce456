"""Generate the Python stubs of the wire contract from its .proto files.

Run by `make stubs`; with `--check` (part of `make check`) nothing is written and a stub that
differs from the committed one is an error.
"""

import argparse
import sys
import tempfile
from importlib import resources
from pathlib import Path

# --help works without it.
try:
    from grpc_tools import protoc
except ImportError:
    protoc = None

HERE = Path(__file__).resolve().parent
SOURCES = ("protos/model_config.proto", "protos/inference.proto")
STUBS = (
    "model_config_pb2.py",
    "model_config_pb2.pyi",
    "inference_pb2.py",
    "inference_pb2.pyi",
)

# protoc's lines that register a file, and their replacements that register it in our own pool, for
# the reason in protos/descriptor_pool.py. protoc has no option for it.
_OWN_POOL = (
    (
        "from google.protobuf import descriptor_pool as _descriptor_pool",
        "from protos import descriptor_pool as _descriptor_pool",
    ),
    ("_descriptor_pool.Default().AddSerializedFile(", "_descriptor_pool.POOL.AddSerializedFile("),
)


def generate(out: Path) -> None:
    """Write the stubs below `out`, in its folder `protos`."""
    if protoc is None:
        sys.exit("grpcio-tools is not installed; run `pip install -e '.[dev]'`")
    builtin = resources.files("grpc_tools") / "_proto"
    common = ["protoc", f"-I{HERE.parent}", f"-I{builtin}", f"--python_out={out}"]
    for source in SOURCES:
        if protoc.main([*common, f"--pyi_out={out}", source]) != 0:
            sys.exit(f"protoc failed on {source}")
    for name in STUBS:
        if name.endswith("_pb2.py"):
            _use_own_pool(out / "protos" / name)


def _use_own_pool(path: Path) -> None:
    text = path.read_text()
    for written, replacement in _OWN_POOL:
        # Another release of protoc may write other lines.
        if text.count(written) != 1:
            sys.exit(f"{path.name} has {written!r} {text.count(written)} times, expected once")
        text = text.replace(written, replacement)
    path.write_text(text)


def main() -> None:
    """Generate in place, or compare with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    if not check:
        generate(HERE.parent)
        return
    with tempfile.TemporaryDirectory() as fresh:
        generate(Path(fresh))
        stale = [
            name
            for name in STUBS
            if (Path(fresh) / "protos" / name).read_bytes() != (HERE / name).read_bytes()
        ]
    if stale:
        sys.exit(f"stubs differ from their .proto files: {', '.join(stale)}; run `make stubs`")


if __name__ == "__main__":
    main()
