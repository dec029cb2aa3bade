"""Where every frame went: decoded = shown + dropped, for every source, by cause.

Counted where it happens rather than worked out at the end, because a number that is worked out always balances. What is in
flight when a run is cancelled or fails is booked as `discarded`; after a run that ended by itself nothing may be.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

EVICTED = "evicted"
"""A full live lane gave up its oldest frame for a newer one."""
STALE = "stale"
"""Older than `live.max_age_s` before anyone took it."""
DISCARDED = "discarded"
"""In flight when the run was cancelled or failed."""
REFUSED = "refused"
"""The source broke the order of its own epochs, and failed with this frame."""


@dataclass(frozen=True)
class SourceLedger:
    """The account of one source."""

    decoded: int = 0
    """Frames that the source decoded."""
    shown: int = 0
    """Frames that every required sink has written."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames that were not shown, by cause: "evicted", "stale", "discarded", and a source's own such as "stride"."""

    @property
    def in_flight(self) -> int:
        """Frames neither shown nor dropped yet; 0 after a run."""
        return self.decoded - self.shown - sum(self.dropped.values())

    @property
    def balanced(self) -> bool:
        return self.in_flight == 0


@dataclass(frozen=True)
class LedgerSnapshot:
    """The accounts of all sources at one instant. Plain: `dataclasses.asdict` gives what JSON takes."""

    sources: dict[str, SourceLedger] = field(default_factory=dict)
    """By name, in the order of the run."""

    @property
    def total(self) -> SourceLedger:
        """All sources added up."""
        dropped: Counter[str] = Counter()
        for one in self.sources.values():
            dropped.update(one.dropped)
        return SourceLedger(
            sum(one.decoded for one in self.sources.values()), sum(one.shown for one in self.sources.values()), dict(dropped)
        )

    @property
    def balanced(self) -> bool:
        """decoded = shown + Σ dropped, for each source by itself."""
        return all(one.balanced for one in self.sources.values())


class _Account:
    def __init__(self) -> None:
        self.decoded = 0
        self.shown = 0
        self.dropped: Counter[str] = Counter()

    def in_flight(self) -> int:
        return self.decoded - self.shown - self.dropped.total()


class Ledger:
    """Thread-safe; an account opens with the first mention of its source. Its lock is a leaf: nothing is called under it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}

    def open(self, source: str) -> None:
        """Have an account even if no frame ever comes."""
        with self._lock:
            self._account(source)

    def decode(self, source: str, count: int = 1) -> None:
        """Frames came out of the source."""
        with self._lock:
            self._account(source).decoded += count

    def show(self, source: str, count: int = 1) -> None:
        """Every required sink has written these frames."""
        with self._lock:
            self._account(source).shown += count

    def lose(self, source: str, cause: str, count: int = 1) -> None:
        """Frames that were counted as decoded go no further: for the drop points of the flow."""
        with self._lock:
            self._account(source).dropped[cause] += count

    def drop(self, source: str, cause: str, count: int = 1) -> None:
        """For a source: it decoded frames that it does not hand on ("stride"). Counts them as decoded *and* dropped."""
        with self._lock:
            account = self._account(source)
            account.decoded += count
            account.dropped[cause] += count

    def discard_in_flight(self) -> None:
        """The run was cancelled or failed and every thread is done: book what is still in flight as discarded."""
        with self._lock:
            for account in self._accounts.values():
                left = account.in_flight()
                if left > 0:
                    account.dropped[DISCARDED] += left

    def snapshot(self) -> LedgerSnapshot:
        with self._lock:
            return LedgerSnapshot({name: SourceLedger(a.decoded, a.shown, dict(a.dropped)) for name, a in self._accounts.items()})

    def _account(self, source: str) -> _Account:
        account = self._accounts.get(source)
        if account is None:
            account = self._accounts[source] = _Account()
        return account
