import re
import subprocess
import sys
from pathlib import Path

from server.execution_provider import OPTIONS, SHORT_NAMES
from server.provider_library import names

ROOT = Path(__file__).parents[1]


def test_the_command_line_lists_providers_devices_and_options():
    done = subprocess.run(
        [sys.executable, "-m", "server", "--list-ep"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"cpu +CPUExecutionProvider +onnxruntime \S+ +CPU \(.*\) +yes", lines[2])
    for short, name in SHORT_NAMES.items():
        (row,) = [line for line in lines if line.split()[:2] == [short, name]]
        assert name in names() or "no: it is not installed" in row
        assert name in names() or re.search(r"extra \[(cuda|openvino)\]", row)
        for key in OPTIONS[name]:
            assert any(line.startswith(f"{short}:{key}=") for line in lines)
    for name in names():
        assert name in done.stdout
