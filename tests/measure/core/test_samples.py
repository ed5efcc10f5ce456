import dataclasses

import pytest

from measure.core.stages import Sample, Stages


def test_times_are_counted_from_the_start():
    sample = Sample("stream", 4, started_ns=100, first_ns=130, done_ns=190, rows=4)
    assert sample.first_prediction_ns == 30
    assert sample.latency_ns == 90


def test_what_was_observed_cannot_be_changed():
    sample = Sample("stream", 4, started_ns=100, first_ns=130, done_ns=190, rows=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.rows = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stages(1, 2, 3, 4, 1.0, "CPUExecutionProvider").decode_ns = 0
