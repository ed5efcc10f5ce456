import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_digits_example_gets_what_the_estimator_predicts():
    ran = subprocess.run(
        [sys.executable, "examples/sklearn/digits.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "719 of 719 rows get what estimator.predict gives" in ran.stdout
    (accuracy,) = re.findall(r"accuracy (0\.\d+)", ran.stdout)
    assert float(accuracy) > 0.95
