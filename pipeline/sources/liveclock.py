"""Container time that goes on when a camera comes back. Standard library only."""

from __future__ import annotations

RATE = 90_000
"""Ticks per second of every live source's PTS."""
_JUMP_S = 10.0
"""Numbers that run ahead of the wall clock by more than this are a camera's clock being set, not a gap."""


class LiveClock:
    """Raw PTS of one connection after another → ticks of 1/90000 s, 0 for the very first frame, strictly growing.

    A number that is repeated once moves by a tick; a clock that stands, or is set, follows the time that passes.

    Servers count from near zero again after a reconnect, so epoch n + 1 goes on from the last frame by the monotonic time that
    passed since it was decoded. The first frame of every RTSP connection has no PTS (measured): it takes the epoch's first
    tick, and the next one, which has a number, is one frame later.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._last_at = 0.0
        self._offset: int | None = None
        self._begun = self._stands = False

    def begin_epoch(self) -> None:
        self._offset, self._begun, self._stands = None, False, False

    def of(self, raw: int | None, now: float, step: int) -> int:
        """`raw`: PTS of this connection in ticks, None where there is none; `now`: monotonic seconds; `step`: ticks a frame."""
        passed = max(1, round((now - self._last_at) * RATE)) if self._last is not None else 0
        if self._offset is None:
            ticks = 0 if self._last is None else self._last + (step if self._begun else passed)
        elif raw is None:
            assert self._last is not None
            ticks = self._last + step
        else:
            assert self._last is not None
            ticks = raw + self._offset
            back, ahead = self._last - ticks, ticks - self._last - passed
            if 0 <= back <= RATE and not self._stands:  # repeated once; the time that passes counts on from the frame before
                self._last += 1
                self._stands = True
                return self._last
            self._stands = back >= 0
            if self._stands or ahead > _JUMP_S * RATE:
                ticks = self._last + max(step, passed)
                self._offset = None
        if self._offset is None and raw is not None:
            self._offset = ticks - raw
        self._last, self._last_at, self._begun = ticks, now, True
        return ticks
