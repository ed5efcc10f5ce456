"""Write models into a repository, and ask a server about it."""

import grpc
import numpy as np
import pytest

from model.export import export
from model.weights import from_seed

CLASSES, FEATURES = 4, 8
X = np.random.default_rng(1).standard_normal((5, FEATURES), np.float32)

Code = grpc.StatusCode


def add(folder, name="linear", version=1, seed=None):
    """Write a model whose scores tell its seed, which is its version unless given."""
    weights = from_seed(CLASSES, FEATURES, version if seed is None else seed)
    return export(folder, name, weights, "float32", version=version)


def scores(seed):
    return X @ from_seed(CLASSES, FEATURES, seed).astype(np.float32).T


def answers(caller, seed, version="", name="linear"):
    """Whether the model gives the scores of a seed."""
    response = caller.infer(caller.message(name, outputs=["scores"], version=version, x=X))
    return np.allclose(response.outputs[0].data, scores(seed), rtol=1e-5)


def configure(folder, text, name="linear"):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "config.pbtxt").write_text(text)


def load(caller, name="linear", **parameters):
    caller.control("RepositoryModelLoad", model_name=name, parameters=parameters)


def unload(caller, name="linear", **parameters):
    caller.control("RepositoryModelUnload", model_name=name, parameters=parameters)


def index(caller, **fields):
    """State and reason by name and version."""
    told = caller.control("RepositoryIndex", **fields).models
    return {(one.name, one.version): (one.state, one.reason) for one in told}


def refused(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    return caught.value.code(), caught.value.details()
