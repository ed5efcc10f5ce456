import argparse
from pathlib import Path

import pytest

from command_line import paths


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("s3://bucket/models", "download it first, e.g. with `aws s3 cp"),
        ("gs://bucket/models", "download it first, e.g. with `gcloud storage"),
        ("hf://org/model", "download it first, e.g. with `hf download`"),
        ("HTTPS://host/x", "download it first, or mount"),
        ("file:///a/b%20c", "expected a plain path: /a/b c"),
        ("file://", "expected a plain path"),
    ],
)
def test_a_uri_is_no_path(uri, hint):
    with pytest.raises(argparse.ArgumentTypeError, match=r"^got ") as caught:
        paths.path(uri)
    assert repr(uri) in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("text", ["a", "/a/b", "c:/d", "a//b", "./s3://x", "s3:", "-"])
def test_a_path_is_a_path(text):
    assert paths.path(text) == Path(text)


def test_an_empty_path_is_none():
    with pytest.raises(argparse.ArgumentTypeError, match="expected a path"):
        paths.path("")
