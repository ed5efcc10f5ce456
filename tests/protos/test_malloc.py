"""What stays in a process of the memory that it frees."""

import subprocess
import sys

import pytest
from conftest import ROOT

MIB = 2**20
SCRIPT = """
import sys
import numpy as np
from pathlib import Path
from protos import malloc

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

assert malloc.keep_in_process(int(sys.argv[1]))
message = np.ones(int(sys.argv[2]), np.uint8)
del message
kept = resident()
malloc.give_back()
print(kept, resident())
"""


@pytest.mark.parametrize(("kept", "stays"), [(400 * MIB, True), (200 * MIB, False)])
def test_as_much_stays_as_is_said_until_it_is_given_back(kept, stays):
    message = 300 * MIB
    command = [sys.executable, "-c", SCRIPT, str(kept), str(message)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    freed, given_back = map(int, done.stdout.split())
    assert (freed > message) is stays
    assert given_back < message / 2
