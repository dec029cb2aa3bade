"""Live time goes on over reconnects and never back."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.liveclock import RATE, LiveClock

STEP = 3600


def test_the_first_frame_without_a_number_is_one_frame_before_the_next() -> None:
    clock = LiveClock()
    clock.begin_epoch()
    assert [clock.of(raw, 10.0 + k / 25, STEP) for k, raw in enumerate([None, 3600, 7200, 10800])] == [0, 3600, 7200, 10800]


def test_large_first_numbers_begin_at_zero() -> None:
    clock = LiveClock()
    clock.begin_epoch()
    assert [clock.of(raw, 0.04 * k, STEP) for k, raw in enumerate([10**12, 10**12 + 3600])] == [0, 3600]


def test_a_new_epoch_goes_on_by_the_time_that_passed() -> None:
    clock = LiveClock()
    clock.begin_epoch()
    clock.of(None, 10.0, STEP)
    clock.of(3600, 10.04, STEP)
    clock.begin_epoch()
    assert clock.of(None, 15.04, STEP) == 3600 + 5 * RATE
    assert clock.of(3600, 15.08, STEP) == 7200 + 5 * RATE


def test_a_gap_in_the_numbers_stays_a_gap() -> None:
    clock = LiveClock()
    clock.begin_epoch()
    assert [clock.of(0, 0.0, STEP), clock.of(2 * RATE, 2.0, STEP)] == [0, 2 * RATE]


def test_repeated_numbers_move_by_a_tick_and_jumps_back_or_far_ahead_follow_the_wall_clock() -> None:
    clock = LiveClock()
    clock.begin_epoch()
    got = [clock.of(raw, now, STEP) for raw, now in [(0, 0.0), (0, 0.04), (RATE, 1.0), (100 * RATE, 1.04), (100 * RATE + STEP, 1.08)]]
    assert got == [0, 1, RATE, RATE + STEP, RATE + 2 * STEP]
    assert clock.of(5, 1.12, STEP) == RATE + 3 * STEP
    assert clock.of(5 + STEP, 1.16, STEP) == RATE + 4 * STEP


def test_a_clock_that_stands_or_goes_back_a_little_follows_the_wall_clock_from_the_second_time_on() -> None:
    for raws in ([RATE] * 50, [RATE - 72000 + STEP * k for k in range(50)]):
        clock = LiveClock()
        clock.begin_epoch()
        clock.of(RATE, 1.0, STEP)
        got = [clock.of(raw, 1.0 + 0.04 * (k + 1), STEP) for k, raw in enumerate(raws)]
        assert got[0] == 1
        assert [b - a for a, b in itertools.pairwise(got[1:])] == [STEP] * 48
        assert got[-1] == 50 * STEP + 1


_EPOCHS = st.lists(
    st.lists(st.tuples(st.none() | st.integers(-(2**40), 2**40), st.floats(0, 100)), min_size=1, max_size=20), min_size=1, max_size=4
)


@given(_EPOCHS)
def test_whatever_a_camera_says_time_grows_strictly(epochs: list[list[tuple[int | None, float]]]) -> None:
    clock, now, got = LiveClock(), 0.0, []
    for frames in epochs:
        clock.begin_epoch()
        for raw, passed in frames:
            now += passed
            got.append(clock.of(raw, now, STEP))
    assert got[0] == 0
    assert all(a < b for a, b in zip(got, got[1:], strict=False))  # noqa: RUF007
