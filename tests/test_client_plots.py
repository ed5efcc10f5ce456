import struct

import numpy as np
import pytest

from client.plots import (
    batch_ticks,
    latency_figure,
    latency_png,
    looks,
    of_mode,
    throughput_figure,
    throughput_png,
)
from client.samples import Sample
from client.summary import summarise

SIZES = [1, 2, 4, 8]
# Enough of them for a 90th percentile, which is 9 ms; the median is 3.
FIRST_NS = [1_000_000, 2_000_000, 3_000_000, 4_000_000, 9_000_000] * 9


def points(modes=("stream", "local"), sizes=SIZES):
    # Out of order on purpose: a plot must not depend on the order of its points.
    return [
        summarise(
            mode,
            size,
            [Sample(mode, size, 0, first_ns, 10_000_000 * size, size) for first_ns in FIRST_NS],
        )
        for mode in modes
        for size in reversed(sizes)
    ]


def axes_of(figure):
    (axes,) = figure.axes
    return axes


@pytest.mark.parametrize(
    ("draw", "title", "label"),
    [
        (
            latency_figure,
            "Latency as Batch Size Changes",
            "latency (seconds before first prediction)",
        ),
        (
            throughput_figure,
            "Throughput as Batch Size Changes",
            "throughput (predictions/second)",
        ),
    ],
)
def test_plots_are_log_log_under_the_asked_title(draw, title, label):
    axes = axes_of(draw(points()))
    assert axes.get_title() == title
    assert axes.get_xlabel() == "batch size"
    assert axes.get_ylabel() == label
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.xaxis.get_transform().base == 2
    assert axes.yaxis.get_transform().base == 10
    assert [axes.xaxis.get_major_formatter()(tick) for tick in axes.get_xticks()] == [
        *"1248",
    ]


def test_latency_shows_the_median_first_prediction_in_seconds():
    axes = axes_of(latency_figure(points()))
    assert [line.get_label() for line in axes.lines] == ["local", "stream"]
    for line in axes.lines:
        np.testing.assert_array_equal(line.get_xdata(), SIZES)
        np.testing.assert_allclose(line.get_ydata(), [0.003] * 4)


def test_latency_band_reaches_from_median_to_p90():
    axes = axes_of(latency_figure(points(("local",))))
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.003, 0.009))


def test_there_is_no_band_where_samples_are_too_few_for_a_p90():
    samples = [Sample("local", 1, 0, first_ns, 10_000_000, 1) for first_ns in FIRST_NS[:43]]
    (band,) = axes_of(latency_figure([summarise("local", 1, samples)])).collections
    assert not band.get_paths()


def test_throughput_shows_predictions_per_second():
    axes = axes_of(throughput_figure(points()))
    for line in axes.lines:
        np.testing.assert_allclose(line.get_ydata(), [100.0] * 4)


def test_a_point_that_failed_leaves_a_gap():
    failed = summarise("local", 16, [Sample("local", 16, 0, 0, 5, 0, error="CANCELLED")])
    for draw in (latency_figure, throughput_figure):
        (line,) = axes_of(draw([*points(("local",)), failed])).lines
        assert np.isnan(line.get_ydata()[-1])


def test_a_mode_keeps_its_look_whatever_else_is_drawn():
    alone = looks(points(("stream",)))
    together = looks(points(("shm", "stream", "unary", "other")))
    assert alone["stream"] == together["stream"]
    assert list(together) == ["unary", "stream", "shm", "other"]
    assert len({look.colour for look in together.values()}) == 4
    assert len({look.marker for look in together.values()}) == 4


def test_the_points_of_a_mode_come_by_batch_size():
    assert [point.batch_size for point in of_mode(points(), "local")] == SIZES


def test_ticks_span_batch_sizes_that_are_no_powers_of_two():
    assert batch_ticks(points(("local",), [3, 100])) == [2, 4, 8, 16, 32, 64, 128]
    assert batch_ticks(points(("local",), [1])) == [1]
    assert batch_ticks([])[0] == 1


@pytest.mark.parametrize("draw", [latency_png, throughput_png])
def test_png_is_large_enough_to_print_whatever_the_points(draw):
    for some in (points(), points(("local",), [1]), []):
        png = draw(some)
        assert png.startswith(b"\x89PNG")
        assert struct.unpack(">II", png[16:24]) == (1200, 750)


def test_the_same_points_give_the_same_picture():
    assert latency_png(points()) == latency_png(points())
