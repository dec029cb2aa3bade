"""One source's lane into the mux: a bounded buffer that blocks (files) or gives up its oldest frame (live).

A file's is bounded in bytes, too, since the flow holds several batches, and a batch is at most what the lanes hold: forty frames, as with
a detection on every tenth, are half a gigabyte at 2160p.

Frames and ends of epochs share the queue, because an Ended has to come after its epoch's last frame; but only frames count towards
the capacity, and only frames are dropped: an Ended that was lost would leave trackers and viewers waiting for ever.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.flow.batch import Ended
from pipeline.flow.channel import ChannelTimeout, ClosedChannel
from pipeline.flow.ledger import EVICTED, STALE

if TYPE_CHECKING:
    from pipeline.flow.mux import Mux


_FEW = 4
"""Frames that a lane holds, however large they are: each core can have one."""


@dataclass(frozen=True)
class LaneStats:
    """One consistent look at a lane. `offered == taken + Σ dropped + discarded + depth`, always; ends are not counted."""

    source: str
    """Whose lane it is."""
    live: bool
    """True: drops when full. False: blocks when full."""
    capacity: int
    """Most frames it holds."""
    depth: int
    """Frames in it now."""
    offered: int
    """Frames ever accepted from the source."""
    taken: int
    """Frames ever handed on in batches."""
    dropped: dict[str, int]
    """Frames dropped by cause, "evicted" and "stale"; empty for files."""
    discarded: int
    """Frames that were in it when the mux was closed."""
    waiting: int
    """Threads blocked in `offer()` now (files)."""


class Lane:
    """One source's way into the mux; for the thread of the source. Made by `Mux.add_lane()`."""

    def __init__(self, mux: Mux, source: str, live: bool, capacity: int, most_bytes: float = math.inf) -> None:
        self.source = source
        self.live = live
        self.capacity = capacity
        self._most_bytes = most_bytes
        self._bytes = 0  # of the frames among the entries
        self._mux = mux
        self._entries: deque[tuple[float, Any]] = deque()  # (when it came, a frame or an Ended)
        self._depth = 0  # frames among the entries
        self._front = 0  # frames before the first Ended: what the next batch may take
        self._ends = 0  # Ended among the entries
        self._room = threading.Condition(mux._lock)
        self._epoch = 0  # the open epoch, or the lowest that may open next
        self._open = False  # an epoch is open: its first frame has come, its Ended has not
        self._final = False  # the final Ended has come
        self._offered = self._taken = self._discarded = self._waiting = 0
        self._dropped: Counter[str] = Counter()

    @property
    def epoch(self) -> int:
        """The open epoch, or the lowest that may open next: what an Ended made on behalf of the source carries."""
        return self._epoch

    @property
    def is_open(self) -> bool:
        """Whether a frame of that epoch has come already."""
        return self._open

    def offer(self, item: Any, timeout: float | None = None) -> None:
        """Hand in a frame. A full live lane evicts its oldest frame; a full file lane blocks until there is room.

        Raises, without having taken it: ValueError when it belongs to another source, to an epoch that ended, or to a new one
        while the old is open; ClosedChannel after the final Ended; BrokenChannel when the mux is closed; Cancelled; ChannelTimeout
        when there was no room within `timeout` seconds (0: not at all).
        """
        mux = self._mux
        deadline = None if timeout is None else mux._clock.now() + timeout
        with mux._lock:
            self._check_item(item)
            while True:
                mux._check_open()
                if self._has_room():
                    break
                if self.live:
                    self._drop(self._oldest(), EVICTED)
                    continue
                if deadline is not None and mux._clock.now() >= deadline:
                    raise ChannelTimeout
                self._waiting += 1
                try:
                    mux._clock.wait_until(self._room, deadline)
                finally:
                    self._waiting -= 1
            now = mux._clock.now()
            self._epoch, self._open = item.epoch, True
            self._entries.append((now, item))
            self._offered += 1
            self._depth += 1
            self._bytes += _size(item)
            if not self._ends:
                self._front += 1
            mux._notice(now)

    def end(self, ended: Ended) -> None:
        """Hand in the end of an epoch: behind its frames, never evicted, whatever the lane's capacity. Never blocks.

        Raises as `offer()` does; a final one closes the lane.
        """
        mux = self._mux
        with mux._lock:
            self._check_item(ended)
            mux._check_open()
            self._entries.append((mux._clock.now(), ended))
            self._ends += 1
            self._epoch, self._open, self._final = ended.epoch + 1, False, ended.final
            mux._ready.notify()

    def stats(self) -> LaneStats:
        with self._mux._lock:
            return self._stats()

    # What follows is called with the mux's lock held.

    def _check_item(self, item: Any) -> None:
        if self._final:
            raise ClosedChannel
        if item.source != self.source:
            raise ValueError(f"the lane of {self.source} got something of {item.source}")
        if item.epoch < self._epoch:
            raise ValueError(f"{self.source}: epoch {item.epoch} has ended; the next is {self._epoch}")
        if self._open and item.epoch != self._epoch:
            raise ValueError(f"{self.source}: epoch {item.epoch} before the Ended of epoch {self._epoch}")

    def _pop_frame(self) -> Any:
        """The oldest frame; there is one before the first Ended."""
        _, item = self._entries.popleft()
        self._depth -= 1
        self._bytes -= _size(item)
        self._front -= 1
        self._taken += 1
        self._room.notify()
        return item

    def _pop_ended(self) -> Ended:
        """The Ended at the head."""
        _, ended = self._entries.popleft()
        assert isinstance(ended, Ended)
        self._ends -= 1
        self._front = next((i for i, (_, item) in enumerate(self._entries) if isinstance(item, Ended)), len(self._entries))
        return ended

    def _oldest(self) -> int:
        """Position of the oldest frame; ends of earlier epochs may be before it."""
        return next(i for i, (_, item) in enumerate(self._entries) if not isinstance(item, Ended))

    def _drop(self, position: int, cause: str) -> None:
        self._bytes -= _size(self._entries[position][1])
        del self._entries[position]
        self._depth -= 1
        if position < self._front:
            self._front -= 1
        self._dropped[cause] += 1
        self._mux._ledger.lose(self.source, cause)

    def _drop_stale(self, now: float, max_age_s: float) -> None:
        # All of them are looked at: a source that buffers may hand in an old frame after a new one.
        for position in reversed(range(len(self._entries))):
            item = self._entries[position][1]
            if not isinstance(item, Ended) and now - item.captured_at > max_age_s:
                self._drop(position, STALE)

    def _can_grow(self) -> bool:
        """Whether more frames for this batch may come at any moment."""
        return self._open and not self._ends and self._has_room()

    def _has_room(self) -> bool:
        return self._depth < self.capacity and (self._depth < _FEW or self._bytes < self._most_bytes)

    def _discard(self) -> None:
        self._discarded += self._depth
        self._entries.clear()
        self._depth = self._front = self._ends = self._bytes = 0
        self._room.notify_all()

    def _stats(self) -> LaneStats:
        return LaneStats(
            source=self.source,
            live=self.live,
            capacity=self.capacity,
            depth=self._depth,
            offered=self._offered,
            taken=self._taken,
            dropped=dict(self._dropped),
            discarded=self._discarded,
            waiting=self._waiting,
        )


def _size(item: Any) -> int:
    """Bytes of a frame; 0 where it does not say."""
    return getattr(item, "nbytes", 0)
