"""Tell from its source which package of the standard library a function is from, over gRPC.

Words are hashed to 262,144 features, so that a row is 2 MiB of float64: the regime in which
nearly all of the time is spent moving data.

    pip install -e '.[sklearn]'
    python examples/sklearn/wide_text.py
"""

import ast
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

from client import Client
from measure.core.local_server import running_server

FEATURES = 2**18
# fmt: off
PACKAGES = (
    "asyncio", "concurrent", "ctypes", "curses", "dbm", "email", "html", "http", "importlib",
    "json", "logging", "multiprocessing", "sqlite3", "tkinter", "unittest", "urllib", "wsgiref",
    "xml", "xmlrpc", "zoneinfo",
)
# fmt: on
FEWEST_LINES = 4
BATCH_ROWS = 64
LATENCY_CALLS = 50


def main() -> int:
    """Return 0 when the float64 model predicts for every row what the estimator does."""
    sources, packages = zip(*functions(), strict=True)
    x = HashingVectorizer(n_features=FEATURES).transform(sources)
    x_train, x_test, y_train, y_test = train_test_split(
        x, np.array(packages), test_size=0.25, random_state=0, stratify=packages
    )
    estimator = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=0).fit(x_train, y_train)
    print(f"{len(sources)} functions, {len(estimator.classes_)} packages, {FEATURES} features")
    print(f"accuracy {estimator.score(x_test, y_test):.4f} on {x_test.shape[0]} rows")

    with TemporaryDirectory() as folder:
        saved, models = Path(folder, "wide.joblib"), Path(folder, "models")
        joblib.dump(estimator, saved)
        kinds = ("float64", "float32")
        for dtype in kinds:
            export = ["export", "--from", str(saved), "--out", str(models)]
            export += ["--name", dtype, "--dtype", dtype]
            subprocess.run([sys.executable, "-m", "model", *export], check=True)
        with running_server(models) as server:
            equal = [score(server.address, dtype, estimator, x_test) for dtype in kinds]
    return 0 if equal[0] == x_test.shape[0] else 1


def functions() -> Iterator[tuple[str, str]]:
    """Source and package of each function in the packages."""
    library = Path(sysconfig.get_path("stdlib"))
    for package in PACKAGES:
        for path in sorted((library / package).rglob("*.py")):
            if "test" in path.relative_to(library).parts:
                continue
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    source = ast.get_source_segment(text, node) or ""
                    if source.count("\n") + 1 >= FEWEST_LINES:
                        yield source, package


def score(address: str, model: str, estimator: SGDClassifier, x: csr_matrix) -> int:
    """Send sparse rows as dense ones; how many get what the estimator predicts."""
    with Client(address, model) as client:
        # The service takes dense rows: a batch is made dense just before it is sent.
        batches = [x[start : start + BATCH_ROWS] for start in range(0, x.shape[0], BATCH_ROWS)]
        dtype = client.input().dtype
        begun = time.perf_counter()
        labels = np.concatenate(
            list(client.stream(batch.toarray().astype(dtype) for batch in batches))
        )
        taken_s = time.perf_counter() - begun
        row = x[0].toarray().astype(dtype)
        latencies_s = []
        for _ in range(LATENCY_CALLS):
            sent = time.perf_counter()
            client.predict(row)
            latencies_s.append(time.perf_counter() - sent)
    equal = int((estimator.classes_[labels] == estimator.predict(x)).sum())
    print(
        f"{model}: {equal} of {x.shape[0]} rows get what estimator.predict gives; "
        f"{x.shape[0] / taken_s:.0f} rows per second streamed, "
        f"{np.median(latencies_s) * 1e3:.1f} ms for one row alone"
    )
    return equal


if __name__ == "__main__":
    sys.exit(main())
