"""A repository of models, and a server that loads by request."""

import pytest


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def explicit(serve, call, folder):
    """Start a server that loads by request; a caller of it."""
    return lambda **options: call(serve(folder, model_control="explicit", **options).address)
