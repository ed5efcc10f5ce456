"""Which requests are traced, by settings as Triton has them."""

import threading

import pytest

from server.errors import InvalidInput
from server.rpc.tracing.trace_settings import TraceSettings

AT_START = {
    "trace_level": "TIMESTAMPS",
    "trace_rate": "10",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "opentelemetry",
}


def sampled(settings, count, model="", *, asked=None):
    return sum(settings.sample(model, asked=asked) for _ in range(count))


def test_the_rate_is_one_of_so_many():
    settings = TraceSettings(10)
    assert settings.described("") == AT_START
    assert sampled(settings, 100) == 10
    settings.change("", {"trace_rate": ["1"]})
    assert sampled(settings, 100) == 100
    settings.change("", {"trace_rate": ["0"]})
    assert sampled(settings, 100) == 0


def test_a_client_that_asks_is_traced_at_any_rate_and_one_that_declines_at_none():
    settings = TraceSettings(0)
    assert sampled(settings, 5, asked=True) == 5
    settings.change("", {"trace_rate": ["1"]})
    assert sampled(settings, 5, asked=False) == 0


def test_with_the_level_off_nobody_is_traced():
    settings = TraceSettings(1)
    settings.change("", {"trace_level": ["OFF"]})
    assert sampled(settings, 5) == sampled(settings, 5, asked=True) == 0
    assert settings.described("")["trace_level"] == "OFF"


def test_the_count_runs_out():
    settings = TraceSettings(1)
    settings.change("", {"trace_count": ["7"]})
    assert sampled(settings, 5) == 5
    assert settings.described("")["trace_count"] == "2"
    assert sampled(settings, 5, asked=True) == 2
    settings.change("", {"trace_count": ["-1"]})
    assert sampled(settings, 5) == 5


def test_the_count_is_exact_among_threads():
    settings = TraceSettings(1)
    settings.change("", {"trace_count": ["1000"]})
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(sampled(settings, 1000))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == 1000


def test_a_model_has_what_all_have_where_it_has_nothing_of_its_own():
    settings = TraceSettings(10)
    settings.change("a", {"trace_rate": ["2"]})
    assert settings.described("a") == AT_START | {"trace_rate": "2"}
    assert settings.described("b") == AT_START
    settings.change("", {"trace_level": ["OFF"], "trace_rate": ["3"]})
    assert settings.described("a")["trace_level"] == "OFF"
    assert settings.described("a")["trace_rate"] == "2"
    settings.change("a", {"trace_level": ["TIMESTAMPS"]})
    assert (sampled(settings, 10, "a"), sampled(settings, 10, "b")) == (5, 0)


def test_no_value_takes_a_change_back():
    settings = TraceSettings(10)
    settings.change("", {"trace_rate": ["3"], "trace_count": ["5"]})
    settings.change("a", {"trace_rate": ["2"]})
    settings.change("a", {"trace_rate": []})
    assert settings.described("a")["trace_rate"] == "3"
    settings.change("", {"trace_rate": [], "trace_count": [], "log_frequency": []})
    assert settings.described("a") == settings.described("") == AT_START


def test_what_was_read_can_be_sent_back():
    settings = TraceSettings(10)
    settings.change("a", {name: [value] for name, value in settings.described("").items()})
    assert settings.described("a") == AT_START


@pytest.mark.parametrize("model", ["", "a"])
@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("trace_level", ["TENSORS"], "expected OFF or TIMESTAMPS"),
        ("trace_level", ["TIMESTAMPS", "OFF"], "got 2 values, expected one"),
        ("trace_rate", ["-1"], "expected an integer from 0"),
        ("trace_rate", ["1.5"], "expected an integer from 0"),
        ("trace_rate", ["\u0663"], "expected an integer from 0"),
        ("trace_rate", ["9" * 5000], "expected an integer from 0"),
        ("trace_count", ["-2"], "expected an integer from -1"),
        ("trace_count", ["--1"], "expected an integer from -1"),
        ("trace_count", ["x"], "expected an integer from -1"),
        ("log_frequency", ["100"], "expected '0'"),
        ("trace_file", ["/tmp/traces"], "expected ''"),
        ("trace_mode", ["triton"], "expected 'opentelemetry'"),
        ("nothing", ["1"], "got trace setting 'nothing', expected one of trace_level"),
    ],
)
def test_a_bad_value_changes_nothing(model, name, values, expected):
    settings = TraceSettings(10)
    with pytest.raises(InvalidInput, match=expected) as caught:
        settings.change(
            model, {"trace_rate": ["5"], name: values, "trace_count": ["5"]} | {name: values}
        )
    assert name in str(caught.value)
    assert settings.described(model) == AT_START
