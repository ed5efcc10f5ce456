import subprocess
import sys

import pytest

from measure.core.processes import SOURCE
from server.errors import StartError
from server.onnx import provider_library
from server.onnx.execution_provider import CUDA, ExecutionProvider


def test_without_a_gpu_it_says_so_in_a_line_and_measures_nothing():
    try:
        provider_library.require(ExecutionProvider(CUDA))
    except StartError:
        pass
    else:
        pytest.skip("there is a GPU, which it would measure")
    command = [sys.executable, "-m", "measure.side_by_side.gpu_copy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SOURCE, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "execution provider CUDAExecutionProvider is not available" in line
    assert "CPUExecutionProvider" in line
