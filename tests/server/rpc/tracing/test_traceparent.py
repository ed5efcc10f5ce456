"""The trace that a call belongs to, as its metadata say."""

import pytest

from server.rpc.tracing.traceparent import TraceParent, parent, parsed

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (VALID, True),
        (VALID[:-2] + "00", False),
        (VALID[:-2] + "03", True),
        (VALID[:-2] + "02", False),
        ("42" + VALID[2:], True),
        ("42" + VALID[2:] + "-what-comes-later", True),
    ],
)
def test_a_valid_one_has_its_ids_and_whether_it_is_sampled(text, sampled):
    assert parsed(text) == TraceParent(TRACE_ID, SPAN_ID, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        VALID.upper(),
        VALID + "-more",
        VALID + "\n",
        " " + VALID,
        "ff" + VALID[2:],
        VALID[:-1],
        VALID.replace(TRACE_ID, "0" * 32),
        VALID.replace(SPAN_ID, "0" * 16),
        VALID.replace("0af", "0ag"),
        VALID.replace("0af", "\u0660af"),
        "42" + VALID[2:] + "more",
    ],
)
def test_any_other_is_ignored(text):
    assert parsed(text) is None


def test_of_two_none_counts():
    assert parent([("a", "b"), ("traceparent", VALID)]) is not None
    assert parent([("traceparent", VALID), ("traceparent", VALID)]) is None
    assert parent([("traceparent", VALID.encode())]) is None
    assert parent([]) is None
