"""Every n-th frame of a source; the others are decoded, booked as dropped with the cause `stride`, and go no further.

The frames that stay keep their index and PTS, and a file its sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline.flow.batch import Ended
from pipeline.flow.ledger import Ledger
from pipeline.flow.protocols import Source
from pipeline.types import Frame, SourceInfo

CAUSE = "stride"


class Strided:
    """A Source around another. `ledger`: the run's own, which books what is left out here."""

    def __init__(self, source: Source, stride: int, ledger: Ledger) -> None:
        self.name, self.live = source.name, source.live
        self._source, self._stride, self._ledger = source, stride, ledger
        self._infos: tuple[SourceInfo, SourceInfo] | None = None

    @property
    def state(self) -> str:
        return self._source.state

    @property
    def trouble(self) -> str | None:
        """Why it is not running, where the source says so."""
        return getattr(self._source, "trouble", None)

    def interrupt(self) -> None:
        self._source.interrupt()

    def frames(self) -> Iterator[Frame | Ended]:
        """The first frame of each epoch, then every n-th."""
        count = 0
        frames: Any = self._source.frames()
        try:
            for item in frames:
                if isinstance(item, Ended):
                    count = 0
                    yield item
                    continue
                if count % self._stride:
                    self._ledger.drop(self.name, CAUSE)
                else:
                    item.info = self._fewer(item.info)
                    yield item
                count += 1
        finally:
            frames.close()

    def _fewer(self, info: SourceInfo) -> SourceInfo:
        """The same facts, of fewer frames a second; one object for all frames that shared one."""
        if self._infos is None or self._infos[0] is not info:
            frames = None if info.frames is None else -(-info.frames // self._stride)
            rate = None if info.average_rate is None else info.average_rate / self._stride
            self._infos = (info, replace(info, frames=frames, average_rate=rate))
        return self._infos[1]
