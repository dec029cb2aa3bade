"""Lanes: the one place that batches, and the one place that drops.

Every source writes into a bounded lane of its own, one thread takes batches out. All lanes are under one lock, because a batch is
a decision over all of them. Frames stay in their lane until the batch leaves, so a live frame can give way to a newer one up to
the last moment, and its age is checked when it is handed on, not when it came.

When a batch leaves. As soon as there is anything, the batch leaves when the first of these holds:

- it is full (`max_batch` frames);
- live lanes are expected, and each of them has something. A live lane is expected while an epoch of its is open, that is from the
  first frame to the Ended: a camera that is away makes nobody wait;
- no live lane is expected, and no file lane can add to the batch: each is full (its reader is blocked) or at its Ended;
- `max_wait_s` has passed since its first frame came. For files, too: it costs them at most that much where a slow reader leaves
  the taker idle anyway, and a file that plays in real time is not held up for a whole batch. Where the taker is the bottleneck,
  lanes are full and batches leave at once;
- there are only ends in it.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from pipeline.flow.batch import Batch
from pipeline.flow.channel import BrokenChannel, ChannelTimeout, ClosedChannel, EndOfChannel
from pipeline.flow.lane import Lane, LaneStats
from pipeline.flow.ledger import Ledger
from pipeline.flow.scope import Clock, Scope


@dataclass(frozen=True)
class MuxStats:
    """All lanes at one instant."""

    lanes: dict[str, LaneStats]
    """By source, in the order they were added."""
    batches: int
    """Batches handed on so far."""
    waiting: int
    """Threads blocked in `take()` now."""


class Mux:
    """All lanes, and the one end that takes batches. Add every lane before the first `take()`; one thread takes.

    `max_wait_s`: longest that a batch waits after its first frame. `max_age_s`: live frames older than this (by `captured_at`
    on `clock`) are never handed on; None: any age. Frames that it drops are booked in `ledger`.
    """

    def __init__(self, scope: Scope, clock: Clock, max_batch: int, max_wait_s: float, max_age_s: float | None, ledger: Ledger) -> None:
        if max_batch < 1:
            raise ValueError(f"a batch holds one frame at least; got max_batch={max_batch}")
        self._scope = scope
        self._clock = clock
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._max_age_s = max_age_s
        self._ledger = ledger
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._lanes: list[Lane] = []
        self._turn = 0  # the lane whose turn it is; goes on over batches, so that ready lanes differ by one at most
        self._since: float | None = None  # when the first frame of the next batch came; evicting that frame leaves it
        self._batches = 0
        self._waiting = 0
        self._closed = False
        scope.watch(self._ready)

    def add_lane(self, source: str, live: bool, capacity: int, most_bytes: float = math.inf) -> Lane:
        """A new lane for a source; `capacity` ≥ 1 counts frames only, `most_bytes` those of a file's frames (their `nbytes`)."""
        if capacity < 1:
            raise ValueError(f"a lane needs room for one frame at least; got capacity={capacity}")
        with self._lock:
            if any(lane.source == source for lane in self._lanes):
                raise ValueError(f"{source} has a lane already")
            lane = Lane(self, source, live, capacity, math.inf if live else most_bytes)
            self._lanes.append(lane)
        self._scope.watch(lane._room)
        return lane

    def take(self, timeout: float | None = None) -> Batch:
        """Wait for the next batch: never empty, at most one Ended a source, and nothing of the source after it.

        Raises, without having taken: EndOfChannel when every source has finally ended and everything was taken, ClosedChannel after
        `close()`, Cancelled, ChannelTimeout when no batch was ready within `timeout` seconds (0: not at all).
        """
        deadline = None if timeout is None else self._clock.now() + timeout
        with self._lock:
            while True:
                self._scope.check()
                if self._closed:
                    raise ClosedChannel
                now = self._clock.now()
                self._drop_stale(now)
                if self._is_ready(now):
                    self._batches += 1
                    return self._compose()
                if all(lane._final and not lane._entries for lane in self._lanes):
                    raise EndOfChannel
                if deadline is not None and now >= deadline:
                    raise ChannelTimeout
                self._waiting += 1
                leaves = None if self._since is None else self._since + self._max_wait_s
                try:
                    self._clock.wait_until(self._ready, min((t for t in (leaves, deadline) if t is not None), default=None))
                finally:
                    self._waiting -= 1

    def close(self) -> None:
        """Nobody takes any more: discard (and count) what is in the lanes; sources get BrokenChannel. Idempotent, never waits."""
        with self._lock:
            self._closed = True
            for lane in self._lanes:
                lane._discard()
            self._since = None
            self._ready.notify_all()

    def stats(self) -> MuxStats:
        with self._lock:
            return MuxStats({lane.source: lane._stats() for lane in self._lanes}, self._batches, self._waiting)

    # What follows is called with the lock held.

    def _check_open(self) -> None:
        self._scope.check()
        if self._closed:
            raise BrokenChannel

    def _notice(self, now: float) -> None:
        """A frame has come: wake the taker where that changes what it waits for, not for each frame."""
        if self._since is None:
            self._since = now
            self._ready.notify()
        elif self._is_ready(now):
            self._ready.notify()

    def _is_ready(self, now: float) -> bool:
        """The rules of the module's docstring."""
        available = sum(lane._front for lane in self._lanes)
        if available >= self._max_batch:
            return True
        if not available:
            return any(lane._ends for lane in self._lanes)
        if self._since is not None and now >= self._since + self._max_wait_s:
            return True
        expected = [lane for lane in self._lanes if lane.live and lane._open]
        if expected:
            return all(lane._front or lane._ends for lane in expected)
        return not any(lane._can_grow() for lane in self._lanes)

    def _compose(self) -> Batch:
        batch = Batch()
        passed = 0  # lanes in a row that had nothing
        while len(batch.frames) < self._max_batch and passed < len(self._lanes):
            lane = self._lanes[self._turn]
            self._turn = (self._turn + 1) % len(self._lanes)
            if lane._front:
                batch.frames.append(lane._pop_frame())
                passed = 0
            else:
                passed += 1
        # Ends come last, so that one closes its lane for this batch and the next epoch starts in a later one.
        batch.ended.extend(lane._pop_ended() for lane in self._lanes if lane._ends and not lane._front)
        self._restart_wait()
        return batch

    def _drop_stale(self, now: float) -> None:
        if self._max_age_s is None:
            return
        for lane in self._lanes:
            if lane.live:
                lane._drop_stale(now, self._max_age_s)
        if not any(lane._depth for lane in self._lanes):
            self._since = None

    def _restart_wait(self) -> None:
        """What is left after a batch has waited since it came."""
        self._since = min((lane._entries[lane._oldest()][0] for lane in self._lanes if lane._depth), default=None)
