"""Cancellation and time: what every blocking call of a run shares.

A thread that waits on a condition can be woken only by someone who holds it. So everything that waits registers its condition
with the run's `Scope`, and `cancel()` wakes them all: there is no polling, and nobody sleeps through a cancelled run.
Time goes through a `Clock`, so that a test advances it by hand instead of sleeping.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol


class Cancelled(Exception):
    """The run was cancelled while, or before, this call waited. A consequence: never reported as an error of its own."""


class Clock(Protocol):
    """Seconds on a clock that never goes back, and a way to wait on it."""

    def now(self) -> float:
        """Seconds since some fixed instant; comparable with `captured_at` of frames."""
        ...

    def wait_until(self, condition: threading.Condition, deadline: float | None) -> None:
        """As `condition.wait()`, which the caller holds: returns when notified, when `now() >= deadline`, or for no reason.

        The deadline is absolute, so that a caller who loops until its predicate holds can't overstay. None: no deadline.
        """
        ...


class MonotonicClock:
    """`time.monotonic()`."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, condition: threading.Condition, deadline: float | None) -> None:
        if deadline is None:
            condition.wait()
        else:
            # A lock cannot wait longer than TIMEOUT_MAX; waking early is allowed.
            condition.wait(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))


class ManualClock:
    """A clock that stands still until a test advances it."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._waiters: list[tuple[float, threading.Condition]] = []
        self._changed = threading.Condition()

    def now(self) -> float:
        with self._changed:
            return self._now

    def advance(self, seconds: float) -> None:
        """Move on, and wake every waiter whose deadline that reaches. Call it with no condition held."""
        if seconds < 0:
            raise ValueError(f"a clock never goes back: advance({seconds})")
        with self._changed:
            self._now += seconds
            due = [condition for deadline, condition in self._waiters if deadline <= self._now]
        # Outside our own lock: a waiter holds its condition when it takes ours. It cannot miss this, because it holds its
        # condition from the moment it is on the list until it waits.
        for condition in due:
            with condition:
                condition.notify_all()

    def wait_until(self, condition: threading.Condition, deadline: float | None) -> None:
        if deadline is None:
            condition.wait()
            return
        waiter = (deadline, condition)
        with self._changed:
            if self._now >= deadline:
                return
            self._waiters.append(waiter)
            self._changed.notify_all()
        try:
            condition.wait()
        finally:
            with self._changed:
                self._waiters.remove(waiter)

    def wait_for_waiters(self, count: int = 1, timeout: float = 10.0) -> bool:
        """Wait, in real time, until `count` threads wait with a deadline: then advance. False: they never came."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._waiters) >= count, timeout)


class Scope:
    """The life of a run. Once cancelled it stays cancelled."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = MonotonicClock() if clock is None else clock
        """The clock of every time-out in this scope."""
        self._cancelled = False
        self._lock = threading.Lock()
        self._conditions: weakref.WeakSet[threading.Condition] = weakref.WeakSet()

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        """Raise Cancelled if the scope is cancelled."""
        if self._cancelled:
            raise Cancelled

    def watch(self, condition: threading.Condition) -> None:
        """From now on `cancel()` notifies this condition. Whoever waits on it calls `check()` before each wait."""
        with self._lock:
            self._conditions.add(condition)

    def cancel(self) -> None:
        """Wake every waiter with Cancelled; each later wait raises it at once. Idempotent.

        Takes the waiters' locks for an instant, so call it neither with one of them held nor from a signal handler
        (`Pipeline.cancel()` is fit for handlers).
        """
        with self._lock:
            self._cancelled = True
            conditions = list(self._conditions)
        for condition in conditions:
            with condition:
                condition.notify_all()
