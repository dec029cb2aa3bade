"""A bounded, blocking, lossless queue between threads, with two ends that close.

Why not `queue.Queue`: a run has to end from either side. A queue can't say "nothing more comes" or "nobody reads any more",
can't be cancelled while someone waits in it, and doesn't say who waits, without which tests of threads have to sleep.
The two-ended shape, with `clone()` for several users of an end, is trio's memory channel.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from pipeline.flow.scope import Scope

T = TypeVar("T")


class EndOfChannel(Exception):
    """Every sender has closed and everything sent has been received."""


class BrokenChannel(Exception):
    """Every receiver has closed: nobody would ever see the item. A consequence: never reported as an error of its own."""


class ClosedChannel(Exception):
    """This very end was closed before, or while, it was used."""


class ChannelTimeout(TimeoutError):
    """The time-out passed; nothing was sent or received."""


@dataclass(frozen=True)
class ChannelStats:
    """One consistent look at a channel. `sent == received + discarded + depth`, always."""

    capacity: int
    """Most items it buffers."""
    depth: int
    """Items in the buffer now."""
    sent: int
    """Items ever accepted from senders."""
    received: int
    """Items ever handed to receivers."""
    discarded: int
    """Items that were in the buffer when the last receiver closed."""
    waiting_senders: int
    """Threads blocked in `send()` now."""
    waiting_receivers: int
    """Threads blocked in `receive()` now."""
    open_senders: int
    """Sender ends not yet closed."""
    open_receivers: int
    """Receiver ends not yet closed."""


class _Channel(Generic[T]):
    """What the ends share. Two conditions over one lock: a new item wakes one receiver, new room wakes one sender."""

    def __init__(self, capacity: int, scope: Scope) -> None:
        self.capacity = capacity
        self.scope = scope
        self.lock = threading.Lock()
        self.not_empty = threading.Condition(self.lock)
        self.not_full = threading.Condition(self.lock)
        self.buffer: deque[T] = deque()
        self.sent = self.received = self.discarded = 0
        self.waiting_senders = self.waiting_receivers = 0
        self.senders = self.receivers = 0
        scope.watch(self.not_empty)
        scope.watch(self.not_full)

    def deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self.scope.clock.now() + timeout

    def check_time(self, deadline: float | None) -> None:
        if deadline is not None and self.scope.clock.now() >= deadline:
            raise ChannelTimeout

    def stats(self) -> ChannelStats:
        with self.lock:
            return ChannelStats(
                capacity=self.capacity,
                depth=len(self.buffer),
                sent=self.sent,
                received=self.received,
                discarded=self.discarded,
                waiting_senders=self.waiting_senders,
                waiting_receivers=self.waiting_receivers,
                open_senders=self.senders,
                open_receivers=self.receivers,
            )


class Sender(Generic[T]):
    """The end that puts in. May be used by several threads; `clone()` it where each closes its own."""

    def __init__(self, channel: _Channel[T]) -> None:
        self._channel = channel
        self._closed = False
        with channel.lock:
            channel.senders += 1

    def send(self, item: T, timeout: float | None = None) -> None:
        """Put `item` in, waiting for room; `timeout` in seconds, 0 for not at all.

        Raises, without having sent: ClosedChannel when this end is or gets closed, Cancelled when the scope is, BrokenChannel
        when no receiver is left, ChannelTimeout when there was no room in time.
        """
        channel = self._channel
        deadline = channel.deadline(timeout)
        with channel.lock:
            while True:
                if self._closed:
                    raise ClosedChannel
                channel.scope.check()
                if not channel.receivers:
                    raise BrokenChannel
                if len(channel.buffer) < channel.capacity:
                    break
                # After the look for room, so that someone notified at the last moment takes it instead of losing it.
                channel.check_time(deadline)
                channel.waiting_senders += 1
                try:
                    channel.scope.clock.wait_until(channel.not_full, deadline)
                finally:
                    channel.waiting_senders -= 1
            channel.buffer.append(item)
            channel.sent += 1
            channel.not_empty.notify()

    def clone(self) -> Sender[T]:
        """Another sender of the same channel, to be closed by itself. ClosedChannel when this one is closed."""
        if self._closed:
            raise ClosedChannel
        return Sender(self._channel)

    def close(self) -> None:
        """Nothing more comes from this end. When it is the last, receivers get what is buffered, then EndOfChannel.

        Idempotent; never waits; a thread blocked in `send()` on this end gets ClosedChannel.
        """
        channel = self._channel
        with channel.lock:
            if self._closed:
                return
            self._closed = True
            channel.senders -= 1
            channel.not_full.notify_all()
            channel.not_empty.notify_all()

    def stats(self) -> ChannelStats:
        """Works on a closed end, too."""
        return self._channel.stats()

    def __enter__(self) -> Sender[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Receiver(Generic[T]):
    """The end that takes out. May be used by several threads; `clone()` it where each closes its own."""

    def __init__(self, channel: _Channel[T]) -> None:
        self._channel = channel
        self._closed = False
        with channel.lock:
            channel.receivers += 1

    def receive(self, timeout: float | None = None) -> T:
        """Take the oldest item, waiting for one; `timeout` in seconds, 0 for not at all.

        Raises, without having taken: ClosedChannel when this end is or gets closed, Cancelled when the scope is (even if items
        are buffered), EndOfChannel when the buffer is empty and no sender is left, ChannelTimeout when nothing came in time.
        """
        channel = self._channel
        deadline = channel.deadline(timeout)
        with channel.lock:
            while True:
                if self._closed:
                    raise ClosedChannel
                channel.scope.check()
                if channel.buffer:
                    break
                if not channel.senders:
                    raise EndOfChannel
                channel.check_time(deadline)
                channel.waiting_receivers += 1
                try:
                    channel.scope.clock.wait_until(channel.not_empty, deadline)
                finally:
                    channel.waiting_receivers -= 1
            channel.received += 1
            channel.not_full.notify()
            return channel.buffer.popleft()

    def clone(self) -> Receiver[T]:
        """Another receiver of the same channel: each item goes to one of them. ClosedChannel when this one is closed."""
        if self._closed:
            raise ClosedChannel
        return Receiver(self._channel)

    def close(self) -> None:
        """Nobody reads at this end any more. When it is the last, the buffer is discarded (and counted) and senders break.

        Idempotent; never waits; a thread blocked in `receive()` on this end gets ClosedChannel.
        """
        channel = self._channel
        with channel.lock:
            if self._closed:
                return
            self._closed = True
            channel.receivers -= 1
            if not channel.receivers:
                channel.discarded += len(channel.buffer)
                channel.buffer.clear()
            channel.not_full.notify_all()
            channel.not_empty.notify_all()

    def stats(self) -> ChannelStats:
        """Works on a closed end, too."""
        return self._channel.stats()

    def __iter__(self) -> Iterator[T]:
        """Items until EndOfChannel; Cancelled and ClosedChannel pass through."""
        while True:
            try:
                item = self.receive()
            except EndOfChannel:
                return
            yield item

    def __enter__(self) -> Receiver[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_channel(capacity: int, scope: Scope) -> tuple[Sender[T], Receiver[T]]:
    """A new channel that buffers up to `capacity` ≥ 1 items and ends with `scope`; time-outs run on the scope's clock."""
    if capacity < 1:
        raise ValueError(f"a channel needs room for one item at least; got capacity={capacity}")
    channel: _Channel[T] = _Channel(capacity, scope)
    return Sender(channel), Receiver(channel)
