"""The statistics, computed by hand."""

from __future__ import annotations

import pytest

from benchmarks.measure import Window, percentile, percentiles_ms, ratios, spread, warm_up
from engines.select import cores


def test_a_percentile_is_the_nearest_rank_and_a_value_that_occurred() -> None:
    samples = [50, 15, 40, 20, 35]
    assert [percentile(samples, q) for q in (0, 5, 30, 40, 50, 95, 100)] == [15, 15, 20, 20, 35, 50, 50]


def test_of_two_hundred_samples_the_99th_percentile_is_the_198th() -> None:
    assert percentile(range(1, 201), 99) == 198


def test_percentiles_come_in_milliseconds_and_are_none_without_samples() -> None:
    assert percentiles_ms([0.001] * 94 + [0.002] * 5 + [0.5]) == {"p50": 1.0, "p95": 2.0, "p99": 2.0}
    assert percentiles_ms([]) is None


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="one sample"):
        percentile([], 50)


def test_noise_is_half_the_range_over_the_median() -> None:
    measured = spread([10, 12, 9])
    assert (measured.median, measured.low, measured.high) == (10, 9, 12)
    assert measured.noise == pytest.approx(0.15)
    assert spread([7]).noise == 0


def test_ratios_are_taken_round_by_round_not_of_the_medians() -> None:
    assert ratios([10, 90, 40], [20, 100, 50]) == spread([0.5, 0.9, 0.8])  # medians: 40 / 50 = .8, by chance; lows differ
    assert ratios([10, 90], [20, 100]).median == pytest.approx(0.7)  # medians: 50 / 60 = .83


def test_a_fifth_is_warm_up_and_never_more_than_150_frames() -> None:
    assert [warm_up(n) for n in (0, 4, 40, 300, 18_000)] == [0, 0, 8, 60, 150]


def test_rate_cost_and_share_are_those_of_the_window() -> None:
    window = Window(frames=6, begin=10.0, end=13.0, begin_cpu=2.0, end_cpu=3.5)
    assert window.rate == pytest.approx(2)
    assert window.cost == pytest.approx(0.25)
    assert window.cpu_share == pytest.approx(min(0.5 / cores(), 1))


def test_a_window_without_frames_has_no_rate() -> None:
    window = Window(0, 1.0, 1.0, 0.0, 0.0)
    assert window.cost == 0
    with pytest.raises(ValueError, match="nothing to measure"):
        _ = window.rate
