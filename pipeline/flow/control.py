"""What the threads of a run share, and what they have in common.

A thread ends its work in one of three ways. Its input ends: it closes its outputs, and the end travels on. Its neighbour is gone or
the run is cancelled (Cancelled, BrokenChannel, ClosedChannel): a consequence, it just stops. Its plug-in raises: that is recorded,
once, under the plug-in's name, and the run is cancelled. Then it waits for its turn and closes what it opened.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pipeline.flow.channel import BrokenChannel, ClosedChannel
from pipeline.flow.ledger import Ledger
from pipeline.flow.scope import Cancelled, Scope

CONSEQUENCES = (Cancelled, BrokenChannel, ClosedChannel)
"""What a thread gets because something else happened; never an error of its own."""


class Control:
    """What the threads of a run and `Pipeline.run()` tell each other."""

    def __init__(self, scope: Scope, ledger: Ledger) -> None:
        self.scope = scope
        self.ledger = ledger
        self.stopping = False
        """stop() was called: sources hand in the frame they have, and end."""
        self.unconnected: str | None = None
        """Set when no source connected in time: what the sources' ends say."""
        self.error: tuple[str, BaseException] | None = None
        """The first real error: whose, and what."""
        self._lock = threading.Lock()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        """Wake `run()`. Safe in a signal handler: SimpleQueue.put is re-entrant, which no condition's notify is."""
        self._bell.put(None)

    def wait_for_ring(self, timeout_s: float) -> None:
        """Until someone rings; signal handlers run meanwhile."""
        with suppress(queue.Empty):
            self._bell.get(timeout=timeout_s)

    def fail(self, name: str, error: BaseException) -> None:
        """Record the first error and cancel the run."""
        with self._lock:
            if self.error is None:
                self.error = (name, error)
        self.scope.cancel()
        self.ring()

    @contextmanager
    def blame(self, name: str) -> Iterator[None]:
        """Whatever is raised inside is the fault of the plug-in `name`; outside it is a mere consequence."""
        try:
            yield
        except BaseException as error:
            self.fail(name, error)
            raise Cancelled from error


@dataclass
class Work:
    """What a plug-in did so far; written by its own thread only, read by anyone."""

    busy_s: float = 0.0
    """Seconds inside its calls."""
    batches: int = 0
    """Calls of `process` or `write`; for sources, frames."""
    frames: int = 0
    """Frames that came out of a source, or went into a stage or sink."""


class Worker:
    """A daemon thread that works, says so when done, and closes what it opened when it is told that it is its turn."""

    def __init__(self, name: str, control: Control) -> None:
        self.name = name
        self.control = control
        self.started = False
        self.finished = False
        """It will touch no frame any more."""
        self.closed = False
        self.starved_s = 0.0
        """Seconds spent waiting for input."""
        self.blocked_s = 0.0
        """Seconds spent waiting for room in what comes next."""
        self._turn = threading.Event()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        # Before, because an exception from a signal handler may come out of start() when the thread runs already.
        self.started = True
        try:
            self._thread.start()
        except RuntimeError:  # the machine has no more threads
            self.started = False
            raise

    def close(self) -> None:
        """Its turn has come; `closed` becomes True."""
        self._turn.set()

    def join(self) -> None:
        self._thread.join()

    def work(self) -> None:
        raise NotImplementedError

    def release(self) -> None:
        """Close the ends of channels, so that the neighbours learn of it. Never waits."""

    def close_opened(self) -> None:
        """Close the plug-ins."""

    def _main(self) -> None:
        for step in (self.work, self.release):
            try:
                step()
            except CONSEQUENCES:
                pass
            except BaseException as error:
                self.control.fail(self.name, error)
        self.finished = True
        self.control.ring()
        self._turn.wait()
        try:
            self.close_opened()
        except BaseException as error:
            self.control.fail(self.name, error)
        self.closed = True
        self.control.ring()
