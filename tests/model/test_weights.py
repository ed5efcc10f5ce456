import hashlib
import json
import re
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from model.errors import ModelError
from model.weights import exported, from_file, from_seed, sha256

W = np.arange(6, dtype=np.float64).reshape(2, 3)


def test_a_seed_gives_the_documented_stream():
    w = from_seed(5, 7, 3)
    assert w.dtype == np.float64
    np.testing.assert_array_equal(w, np.random.default_rng(3).standard_normal((5, 7)))
    assert not np.array_equal(w, from_seed(5, 7, 4))


@pytest.mark.parametrize(
    ("arguments", "came"),
    [((0, 7, 1), "0 classes"), ((5, 0, 1), "of 0 features"), ((5, 7, -1), "seed is -1")],
)
def test_impossible_sizes_and_seeds_are_refused(arguments, came):
    with pytest.raises(ModelError, match=came):
        from_seed(*arguments)


def test_weights_beyond_all_memory_are_refused():
    with pytest.raises(ModelError, match="fit in memory"):
        from_seed(2**40, 2**40, 0)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2", "<u1", "<f2"])
def test_an_npy_file_keeps_its_numbers(tmp_path, dtype):
    np.save(tmp_path / "w.npy", W.astype(dtype))
    w = from_file(tmp_path / "w.npy")
    assert w.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(w, W)


@pytest.mark.parametrize("name", ["anything", "W", "weights", "coef_"])
def test_the_single_array_of_an_archive_is_w(tmp_path, name):
    np.savez_compressed(tmp_path / "w.npz", **{name: W})
    np.testing.assert_array_equal(from_file(tmp_path / "w.npz"), W)


@pytest.mark.parametrize("name", ["W", "weights", "coef_"])
def test_a_known_name_is_chosen_among_others(tmp_path, name):
    np.savez(tmp_path / "w.npz", intercept_=np.zeros(2), **{name: W})
    np.testing.assert_array_equal(from_file(tmp_path / "w.npz"), W)


@pytest.mark.parametrize(
    "arrays", [{}, {"a": W, "b": W}, {"W": W, "coef_": W}], ids=["none", "unknown", "two known"]
)
def test_an_archive_without_one_clear_choice_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(ModelError, match=r"holds the arrays .*expected one array"):
        from_file(tmp_path / "w.npz")


def test_a_named_array_is_chosen_among_others(tmp_path):
    np.savez(tmp_path / "w.npz", a=W, W=W + 1)
    np.testing.assert_array_equal(from_file(tmp_path / "w.npz", "a"), W)
    with pytest.raises(ModelError, match=r"holds the arrays \['a', 'W'\], expected 'b' among them"):
        from_file(tmp_path / "w.npz", "b")


def test_an_npy_file_has_no_names(tmp_path):
    np.save(tmp_path / "w.npy", W)
    with pytest.raises(ModelError, match="one array without a name, expected 'a'"):
        from_file(tmp_path / "w.npy", "a")


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "<i2", "|u1"])
def test_a_safetensors_file_keeps_its_numbers(tmp_path, dtype):
    save_file({"anything": W.astype(dtype)}, tmp_path / "w.safetensors")
    w = from_file(tmp_path / "w.safetensors")
    assert w.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(w, W)


def test_one_of_several_safetensors_is_chosen(tmp_path):
    save_file(
        {"head.weight": W + 1, "coef_": W, "intercept_": np.zeros(2)}, tmp_path / "w.safetensors"
    )
    np.testing.assert_array_equal(from_file(tmp_path / "w.safetensors"), W)
    np.testing.assert_array_equal(from_file(tmp_path / "w.safetensors", "head.weight"), W + 1)
    with pytest.raises(ModelError, match="expected 'other' among them"):
        from_file(tmp_path / "w.safetensors", "other")


def safetensors_of(dtype, data):
    """The bytes of a file with one tensor of [2, 3], written out by hand."""
    header = json.dumps({"w": {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, len(data)]}})
    return struct.pack("<Q", len(header)) + header.encode() + data


def test_bfloat16_becomes_float32_without_loss(tmp_path):
    # A bfloat16 is the upper half of a float32.
    halves = (np.frombuffer(W.astype("<f4").tobytes(), "<u4") >> 16).astype("<u2")
    (tmp_path / "w.safetensors").write_bytes(safetensors_of("BF16", halves.tobytes()))
    w = from_file(tmp_path / "w.safetensors")
    assert w.dtype == np.float32
    np.testing.assert_array_equal(w, W)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as numbers"),
        (b"garbage!garbage", "cannot be read as numbers"),
        (safetensors_of("F32", bytes(24))[:-4], "cannot be read as numbers"),
        (safetensors_of("BOOL", bytes(6)), "dtype bool, expected real numbers"),
        (safetensors_of("F8_E4M3", bytes(6)), "w.safetensors"),
    ],
)
def test_safetensors_without_numbers_are_refused(tmp_path, content, message):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        from_file(tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_a_missing_file_is_the_systems_error_with_its_name(tmp_path, suffix):
    with pytest.raises(FileNotFoundError) as raised:
        from_file(tmp_path / f"w.{suffix}")
    assert str(raised.value.filename).endswith(f"w.{suffix}")


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "w.npy", np.array([[print]], dtype=object), allow_pickle=True)
    with pytest.raises(ModelError, match="cannot be read as numbers"):
        from_file(tmp_path / "w.npy")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(3), re.escape("shape [3], expected [classes, features]")),
        (np.zeros((1, 2, 3)), re.escape("shape [1, 2, 3], expected [classes, features]")),
        (np.zeros((0, 3)), "expected at least 1 class"),
        (np.zeros((3, 0)), "expected at least 1 class"),
        (np.zeros((2, 2), complex), "dtype complex128, expected real"),
        (np.zeros((2, 2), bool), "dtype bool, expected real"),
        (np.full((2, 2), "a"), "dtype <U1, expected real"),
        (np.array([[1, np.nan], [np.inf, 2]]), "2 NaN or infinite numbers, expected finite"),
    ],
)
def test_arrays_that_are_no_weights_are_refused_with_the_file(tmp_path, weights, message):
    np.save(tmp_path / "w.npy", weights)
    with pytest.raises(ModelError, match=f"w.npy: W has .*{message}"):
        from_file(tmp_path / "w.npy")


@pytest.mark.parametrize("content", [b"", b"1,2,3\n", b"\x93NUMPY\x01\x00", b"PK\x03\x04 broken"])
def test_files_of_another_kind_are_refused(tmp_path, content):
    (tmp_path / "w.npy").write_bytes(content)
    with pytest.raises(ModelError, match=r"expected a \.npy or \.npz file"):
        from_file(tmp_path / "w.npy")


def test_a_truncated_file_is_refused(tmp_path):
    np.save(tmp_path / "w.npy", W)
    content = (tmp_path / "w.npy").read_bytes()
    (tmp_path / "w.npy").write_bytes(content[:-8])
    with pytest.raises(ModelError, match="cannot be read as numbers"):
        from_file(tmp_path / "w.npy")


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(ModelError, match="other than an array, expected numpy arrays"):
        from_file(tmp_path / "other.npz")


def test_the_hash_is_of_little_endian_bytes_row_by_row():
    bytes32 = struct.pack("<6f", *range(6))
    for w in (W.astype("<f4"), W.astype(">f4"), np.asfortranarray(W.astype("<f4"))):
        assert sha256(w) == hashlib.sha256(bytes32).hexdigest()
    assert sha256(W) == hashlib.sha256(struct.pack("<6d", *range(6))).hexdigest()


def test_only_an_exported_dtype_has_a_hash():
    with pytest.raises(ModelError, match="int64, expected float32 or float64"):
        sha256(W.astype(np.int64))


def test_export_rounds_to_the_nearest_of_the_dtype():
    w = exported(np.asfortranarray([[0.1, 1 + 2**-30], [3, 4]]), "float32")
    assert w.dtype == np.dtype("<f4")
    assert w.flags.c_contiguous
    np.testing.assert_array_equal(w, np.array([[0.1, 1], [3, 4]], np.float32))


def test_weights_too_large_for_the_dtype_are_refused():
    with pytest.raises(ModelError, match="too large for float32"):
        exported(np.array([[1e39]]), "float32")
    assert exported(np.array([[1e39]]), "float64") == 1e39


@pytest.mark.parametrize("dtype", ["float16", "int64", "nonsense"])
def test_other_precisions_are_refused(dtype):
    with pytest.raises(ModelError, match=f"dtype is {dtype}, expected float32 or float64"):
        exported(W, dtype)
