"""The newest value of each source, for viewers that may miss some.

A live page or a window must never slow a run down, and a late picture is worth nothing to it: so there is no queue, only one
slot a source, which the next value overwrites. Readers count what they missed.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from pipeline.flow.channel import ChannelTimeout, ClosedChannel, EndOfChannel
from pipeline.flow.scope import Scope

T = TypeVar("T")


class Latest(Generic[T]):
    """One slot a source. Any thread may put; each viewer has a reader of its own."""

    def __init__(self, scope: Scope | None = None) -> None:
        self._scope = Scope() if scope is None else scope
        self._changed = threading.Condition()
        self._slots: dict[str, tuple[int, T]] = {}  # how many values ever came, and the newest
        self._closed = False
        self._scope.watch(self._changed)

    def put(self, source: str, value: T) -> None:
        """Replace the source's value and wake its readers. Never blocks. ClosedChannel after `close()`."""
        with self._changed:
            if self._closed:
                raise ClosedChannel
            count, _ = self._slots.get(source, (0, None))
            self._slots[source] = (count + 1, value)
            self._changed.notify_all()

    def reader(self, source: str | None = None) -> LatestReader[T]:
        """A view on one source, or on all, that has seen nothing yet: the first `get()` returns what is there now."""
        return LatestReader(self, source)

    def close(self) -> None:
        """No more values: readers get what they have not seen, then EndOfChannel. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class LatestReader(Generic[T]):
    """One viewer's place. For one thread."""

    def __init__(self, latest: Latest[T], source: str | None) -> None:
        self._latest = latest
        self._source = source
        self._seen: dict[str, int] = {}
        self.missed = 0
        """Values overwritten, since the reader was made, before it saw them."""
        with latest._changed:
            # Those replaced before it existed are no loss of its own.
            self._seen.update({name: count - 1 for name, (count, _) in latest._slots.items()})

    def get(self, timeout: float | None = None) -> dict[str, T]:
        """What is newer than what this reader saw, by source: waits for at least one value, `timeout` in seconds.

        ChannelTimeout when nothing came in time, EndOfChannel when closed and all is seen, Cancelled when the scope is.
        """
        latest, clock = self._latest, self._latest._scope.clock
        deadline = None if timeout is None else clock.now() + timeout
        with latest._changed:
            while True:
                latest._scope.check()
                news = {name: slot for name, slot in latest._slots.items() if self._is_news(name, slot[0])}
                if news:
                    break
                if latest._closed:
                    raise EndOfChannel
                if deadline is not None and clock.now() >= deadline:
                    raise ChannelTimeout
                clock.wait_until(latest._changed, deadline)
        for name, (count, _) in news.items():
            self.missed += count - self._seen.get(name, 0) - 1
            self._seen[name] = count
        return {name: value for name, (_, value) in news.items()}

    def _is_news(self, name: str, count: int) -> bool:
        return (self._source is None or name == self._source) and count > self._seen.get(name, 0)
