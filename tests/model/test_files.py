import os
import resource
import stat
from contextlib import contextmanager

import pytest

from model.files import CHUNK_BYTES, replace

OLD = b"old" * 1000


@contextmanager
def disk_full_after(size_bytes):
    """Let no file grow beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def test_new_content_replaces_the_old(path):
    assert replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


def test_a_reader_of_the_old_file_keeps_it(path):
    with path.open("rb") as reader:
        replace(path, b"new")
        assert reader.read() == OLD


def test_identical_content_is_left_untouched(path):
    before = path.stat()
    assert not replace(path, OLD)
    assert not replace(path, memoryview(OLD))
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("position", [0, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES])
def test_one_changed_byte_is_written(path, position):
    content = bytearray(2 * CHUNK_BYTES + 1)
    replace(path, bytes(content))
    content[position] = 1
    assert replace(path, bytes(content))
    assert path.read_bytes() == content


def test_a_full_disk_leaves_the_old_file_alone(path):
    with disk_full_after(1 << 16), pytest.raises(OSError, match="File too large") as caught:
        replace(path, bytes(1 << 20))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == [path.name]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        replace(tmp_path / "nowhere" / "file", b"new")
    assert caught.value.filename == str(tmp_path / "nowhere" / "file")


def test_other_users_may_read_what_the_umask_lets_them(tmp_path):
    umask = os.umask(0o027)
    try:
        replace(tmp_path / "file", b"new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_file_that_is_not_accepted_leaves_the_old_one(path):
    def accept(new):
        assert new.parent == path.parent
        assert new.read_bytes() == b"new"
        assert path.read_bytes() == OLD
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        replace(path, b"new", accept)
    assert path.read_bytes() == OLD
    assert list(path.parent.iterdir()) == [path]


def test_content_that_is_there_already_must_be_accepted_too(path):
    def accept(same):
        assert same == path
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        replace(path, OLD, accept)
    assert path.read_bytes() == OLD
