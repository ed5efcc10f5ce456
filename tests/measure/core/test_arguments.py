import argparse

import pytest

from measure.core.arguments import concurrencies, rates


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4", (4,)),
        ("1,4,16", (1, 4, 16)),
        ("1:16", (1, 2, 4, 8, 16)),
        ("3:20", (3, 6, 12, 20)),
        ("5:5", (5,)),
    ],
)
def test_concurrencies(text, values):
    assert concurrencies(text) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("50", (50.0,)),
        ("50,0.5", (50.0, 0.5)),
        ("50:200:50", (50.0, 100.0, 150.0, 200.0)),
        ("50:190:50", (50.0, 100.0, 150.0)),
        ("0.1:0.3:0.1", pytest.approx((0.1, 0.2, 0.3))),
        ("7:7:1", (7.0,)),
    ],
)
def test_rates(text, values):
    assert rates(text) == values


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "4:1", "1:2:3", "1,", "1.5"])
def test_what_is_no_concurrency_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        concurrencies(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "inf", "nan", "2:1:1", "1:2", "1:2:0", "1,"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        rates(text)
