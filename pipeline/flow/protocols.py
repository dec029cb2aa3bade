"""The three things a person can plug in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from pipeline.flow.batch import Batch, Ended


class Source(Protocol):
    """Where items come from. Runs on a thread of its own, which alone opens, reads and closes what it reads from."""

    name: str
    """Unique in the run."""
    live: bool
    """A live source gets a live lane: frames that nobody takes in time are dropped. A file's lane never drops."""
    state: str
    """"CONNECTING" | "RUNNING" | "LOST" | "ENDED" | "FAILED", written by its own thread only."""

    def frames(self) -> Iterator[Any | Ended]:
        """Items with `.source == name`, an `Ended(final=False)` between epochs, an `Ended(final=True)` last.

        May raise instead of the final Ended: the pipeline then makes one with `failed=True`. Closing the generator
        must release everything; that, too, happens on the source's thread.

        After `interrupt()` it may end any way it likes: the pipeline stops pulling after the item at hand, and says "stopped".
        A source may have a str attribute `trouble`, why it is not RUNNING (redacted): it is told when no source connected.
        """
        ...

    def interrupt(self) -> None:
        """From any thread: `frames()` ends soon, bounded by its read time-out. Idempotent."""
        ...


class Stage(Protocol):
    """Adds something to items. One thread calls it: `open`, `process` for every batch in order, `close` once."""

    name: str
    lookahead: int
    """Most items of a source that may be held back (files only; live items are never held). Held items leave before or
    in the batch that carries their source's Ended."""

    def open(self) -> None: ...

    def process(self, batch: Batch) -> Batch:
        """Same items, same order per source, same ends; may be empty while items are held back.

        The pipeline checks this (identity of items and ends, `lookahead`) and blames the stage that breaks it.
        """
        ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Where items go. Own thread and channel; opens its output when the first item arrives, not before."""

    name: str
    best_effort: bool
    """True: an error detaches it and is counted. False: an error ends the run."""

    def write(self, batch: Batch) -> None:
        """All sinks get the same batch object: read only."""
        ...

    def close(self) -> None:
        """Called once, also after errors elsewhere: finish what was written. Must not raise for want of items.

        By then every sink has written what it will, and the ledger is settled.
        """
        ...
