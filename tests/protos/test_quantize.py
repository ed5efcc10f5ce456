import numpy as np
import pytest

from protos.quantize import DEFAULT_SCALE, from_wire, to_wire, wire_scale


def bits(x):
    return x.view(np.uint16)


def every_float16():
    return np.arange(2**16, dtype=np.uint16).view(np.float16)


# 0x1000 is half a unit in the last place: what is just below, on and just above a tie.
@pytest.mark.parametrize("beyond", [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF])
@pytest.mark.parametrize("padding", [0, 2_000_000], ids=["mostly special", "mostly ordinary"])
def test_float16_is_rounded_as_numpy_does(beyond, padding):
    finite = every_float16()[np.isfinite(every_float16())].astype(np.float32)
    x = (finite.view(np.uint32) + np.uint32(beyond)).view(np.float32)
    x = np.concatenate((x[np.abs(x) < 65520], np.full(padding, 0.1, np.float32)))
    with np.errstate(under="ignore"):
        np.testing.assert_array_equal(bits(to_wire(x, "float16")), bits(x.astype(np.float16)))


def test_float16_keeps_zeros_infinities_and_nan():
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-8], np.float32)
    for x in (special, np.concatenate((special, np.ones(1000, np.float32)))):
        wide = from_wire(to_wire(x, "float16"))
        np.testing.assert_array_equal(wide[:6], [0, 0, np.inf, -np.inf, np.nan, 0])
        assert np.signbit(wide[:2]).tolist() == [False, True]


@pytest.mark.parametrize("ordinary", [0, 1000])
@pytest.mark.parametrize("number", [65520, -70000, 3e38])
def test_numbers_too_large_for_float16_are_refused(number, ordinary):
    x = np.array([number] + [1] * ordinary, np.float32)
    with pytest.raises(ValueError, match="65504"):
        to_wire(x, "float16")


def test_int8_is_rounded_half_to_even_and_saturates():
    x = np.array([0.5, 1.5, -0.5, -1.5, 2.4, 126.5, 127.5, -200, np.inf, -np.inf], np.float32)
    got = to_wire(x * 4, "int8", 4.0)
    assert got.dtype == np.int8
    assert got.tolist() == [0, 2, 0, -2, 2, 126, 127, -127, 127, -127]


@pytest.mark.parametrize("place", [0, 131_071, 131_072, 199_999])
def test_nan_is_refused_as_int8(place):
    x = np.ones(200_000, np.float32)
    x[place] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        to_wire(x, "int8", 1.0)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("shape", [(0, 5), (3,), (3, 5), (2, 70_000, 2)])
@pytest.mark.parametrize("given", ["<f4", ">f4", "f8"])
def test_any_shape_order_and_float_is_converted_alike(dtype, shape, given):
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    strided = np.repeat(x.astype(given), 2, axis=-1)[..., ::2]
    got = to_wire(strided, dtype, DEFAULT_SCALE)
    wanted = (
        x.astype(np.float16)
        if dtype == "float16"
        else np.clip(np.rint(x / np.float32(DEFAULT_SCALE)), -127, 127)
    )
    np.testing.assert_array_equal(got, wanted)
    assert got.dtype == dtype


def test_what_was_widened_narrows_to_the_same():
    q = np.arange(-127, 128, dtype=np.int8)
    wide = from_wire(q, 4 / 127)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(to_wire(wide, "int8", 4 / 127), q)


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf, 1e-60, 3e38, "", "x"])
def test_scales_that_mean_nothing_are_refused(scale):
    with pytest.raises(ValueError, match="expected a finite number over 0"):
        wire_scale(scale)


def test_a_scale_is_what_float32_holds_of_it():
    assert wire_scale("0.03125") == DEFAULT_SCALE
    assert wire_scale(str(np.float32(4 / 127))) == np.float32(4 / 127)


def test_int8_wants_a_scale():
    with pytest.raises(ValueError, match="without a scale"):
        to_wire(np.ones(1, np.float32), "int8")
    with pytest.raises(ValueError, match="without a scale"):
        from_wire(np.ones(1, np.int8))


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="expected float16 or int8"):
        to_wire(np.ones(1, np.float32), "float64")
    with pytest.raises(ValueError, match="expected float16 or int8"):
        from_wire(np.ones(1, np.int16))
