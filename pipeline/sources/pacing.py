"""Time for sources that are paced: waits that a stop ends at once, on a clock that tests can turn by hand."""

from __future__ import annotations

from collections.abc import Callable


class Pacer:
    """Lets frames out when their time has come: the first at once, the others as far behind it as their PTS are.

    `wait(seconds) -> stopped` is an Event's `wait`, so that a stop ends the pause at once; `clock()` is in seconds, monotonic.
    A reader that was held up (a full lane) catches up without pauses: file lanes lose nothing, so nothing else would help.
    `rebase_s`: a frame that is further from its time than this begins anew (live streams whose numbers jump); None: never.
    """

    def __init__(self, clock: Callable[[], float], wait: Callable[[float], bool], rebase_s: float | None = None) -> None:
        self._clock, self._wait, self._rebase_s = clock, wait, rebase_s
        self._zero: float | None = None

    def due(self, pts_s: float) -> bool:
        """Waits until the frame at `pts_s` seconds is due. True: go on; False: stopped meanwhile."""
        if self._zero is None or (self._rebase_s is not None and abs(self._zero + pts_s - self._clock()) > self._rebase_s):
            self._zero = self._clock() - pts_s
        while (left := self._zero + pts_s - self._clock()) > 0:
            if self._wait(left):
                return False
        return True
