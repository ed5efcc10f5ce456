"""Train on the digits that ship with scikit-learn, serve the classifier, score it over gRPC.

pip install -e '.[sklearn]'
python examples/sklearn/digits.py
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from client import Client
from measure.core.local_server import running_server


def main() -> int:
    """Return 0 when the service predicts for every row what the estimator does."""
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.4, random_state=0)
    estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    estimator.fit(x_train, y_train)

    with TemporaryDirectory() as folder:
        saved, models = Path(folder, "digits.joblib"), Path(folder, "models")
        joblib.dump(estimator, saved)
        export = ["export", "--from", str(saved), "--out", str(models), "--name", "digits"]
        subprocess.run([sys.executable, "-m", "model", *export], check=True)
        with running_server(models) as server, Client(server.address, "digits") as client:
            predicted = client.predict(x_test, names=True).astype(int)

    equal = int((predicted == estimator.predict(x_test)).sum())
    print(f"{equal} of {len(x_test)} rows get what estimator.predict gives")
    print(f"accuracy {np.mean(predicted == y_test):.4f}")
    return 0 if equal == len(x_test) else 1


if __name__ == "__main__":
    sys.exit(main())
