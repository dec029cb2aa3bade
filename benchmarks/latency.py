"""How old a frame is when it comes out: a file paced at its own rate goes through a live lane, as a camera would.

`--realtime` of fer-stream keeps a file's semantics (lossless, look-ahead), so it says nothing of a camera's latency. Here
the lane holds two frames and drops the oldest, and no stage holds frames back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline.flow.batch import Ended
from pipeline.types import SourceInfo


class LiveFromFile:
    """A paced file that says it is live.

    `captured_at` is when the pace lets the frame out. A reader that is itself held up (no core free) lets it out late, which
    its age would hide: `late_s` has by how much each frame came after its due time, counted from the first.
    """

    live = True

    def __init__(self, source: Any) -> None:
        """`source`: a file's source that paces itself (`realtime=True`)."""
        self._source = source
        self._info: SourceInfo | None = None
        self.name = source.name
        self.late_s: list[float] = []

    @property
    def state(self) -> str:
        return str(self._source.state)

    def interrupt(self) -> None:
        self._source.interrupt()

    def frames(self) -> Iterator[Any]:
        zero: float | None = None
        items = self._source.frames()
        try:
            for item in items:
                if not isinstance(item, Ended):
                    if self._info is None:
                        self._info = replace(item.info, kind="live", path=None, has_audio=False)
                    item.info = self._info
                    if zero is None:
                        zero = item.captured_at - item.pts_s
                    self.late_s.append(max(item.captured_at - zero - item.pts_s, 0.0))
                yield item
        finally:
            items.close()
