"""When time begins anew in a file, and when it only stumbles."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from pipeline.sources.timestamps import Stretches, Timestamps, first_tick, jump_s


def stream(rate: int) -> Any:
    return SimpleNamespace(time_base=Fraction(1, 1000), guessed_rate=Fraction(rate), average_rate=None, base_rate=None)


def stamped(rate: int, *raw: int) -> list[int]:
    stamps = Timestamps(stream(rate), "mpegts")
    return [stamps.of(SimpleNamespace(pts=pts, dts=pts, duration=0)) for pts in raw]  # type: ignore[arg-type]


def seen(rate: int, *times: tuple[int, int | None]) -> list[Fraction]:
    """Offsets after packets of these PTS and DTS."""
    stretches = Stretches(jump_s(stream(rate)))
    for pts, dts in times:
        stretches.see(SimpleNamespace(pts=pts, dts=dts, duration=1000 // rate, time_base=Fraction(1, 1000)))
    return stretches.offsets


def test_a_step_back_of_more_than_a_fifth_of_a_second_is_a_new_beginning() -> None:
    assert stamped(25, 0, 40, 80, 120, 160, 200, 240, 280, 0, 40) == [0, 40, 80, 120, 160, 200, 240, 280, 320, 360]
    assert seen(25, (280, 280), (0, 0)) == [0, Fraction(320, 1000)]


def test_a_stumble_moves_one_tick_and_what_follows_has_its_own_time() -> None:
    assert stamped(25, 0, 40, 200, 80, 120, 240) == [0, 40, 200, 201, 202, 240]
    assert stamped(2, 0, 500, 2000, 1000, 1500, 2500) == [0, 500, 2000, 2001, 2002, 2500]
    assert seen(25, (200, 200), (80, 80)) == seen(2, (2000, 2000), (1000, 1000)) == [0]


LOW_RATE = [(2000, 0), (8000, 1000), (5000, 2000), (3000, 3000), (4000, 4000), (6000, 5000), (7000, 6000)]
"""One a second, five B-frames between two others, as a transport stream has them."""


def test_b_frames_of_a_low_rate_are_no_new_beginning() -> None:
    assert seen(1, *LOW_RATE) == [0]


def test_what_is_joined_goes_on_behind_the_last_picture_shown() -> None:
    assert seen(1, *LOW_RATE, *LOW_RATE) == [0, 7]


def test_packets_without_dts_are_told_by_their_pts() -> None:
    assert seen(25, (0, None), (40, None)) == [0]
    assert seen(25, (280, None), (0, None)) == [0, Fraction(320, 1000)]


def test_a_cut_is_at_the_first_frame_that_is_not_before_it() -> None:
    frame = Fraction(1, 25)
    assert [first_tick(seconds, frame) for seconds in (0.0, 1.04, 1.041, 1.05, 1.08)] == [0, 26, 27, 27, 27]
    assert first_tick(1.333334, Fraction(1, 30)) == 40, "a person's rounding of 4/3"
