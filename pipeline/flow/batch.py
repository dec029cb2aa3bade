"""What stages pass on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Ended:
    """The end of one epoch of a source; comes once and after that epoch's last item."""

    source: str
    epoch: int
    reason: str
    """"end of file" | "stopped" | "lost: …" | "failed: …"; a sentence part for people, redacted."""
    final: bool
    """True: nothing more comes from this source. False: a reconnect follows as epoch + 1."""
    failed: bool = False
    """The source ended in a fault (with final: the exit code says so)."""
    added: list[Any] = field(default_factory=list)
    """What stages say at the end (pipeline: TrackEnd)."""


@dataclass(slots=True, eq=False)
class Batch:
    """Items of one or more sources, in order per source, then the ends. An item has `.source` and `.epoch`."""

    frames: list[Any] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.frames or self.ended)
