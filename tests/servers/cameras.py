"""Reading live sources in tests without sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from pipeline.config import Live
from pipeline.flow.batch import Ended
from pipeline.sources.live import LiveSource
from pipeline.sources.uri import open_source
from pipeline.types import Frame

QUICK = Live(open_timeout_s=2.0, read_timeout_s=1.0, backoff_s=0.05, backoff_max_s=0.2)
LIMIT_S = 30.0


def camera(url: str, **options: object) -> LiveSource:
    source = open_source(url, live=QUICK, **options)  # type: ignore[arg-type]
    assert isinstance(source, LiveSource)
    assert source.state == "CONNECTING"
    return source


def up_to(items: Iterator[Frame | Ended], wanted: Callable[[Frame | Ended], bool]) -> list[Frame | Ended]:
    """Items up to and with the first that is wanted."""
    got, deadline = [], time.monotonic() + LIMIT_S
    for item in items:
        got.append(item)
        if wanted(item):
            return got
        assert time.monotonic() < deadline, f"not seen within {LIMIT_S} s among {len(got)} items"
    raise AssertionError(f"the source ended: {got[-1:]}")


def frames_up_to(items: Iterator[Frame | Ended], index: int, epoch: int = 0) -> list[Frame]:
    got = up_to(items, lambda item: isinstance(item, Ended) or (item.epoch == epoch and item.index >= index))
    assert all(isinstance(item, Frame) for item in got), got[-1]
    return got  # type: ignore[return-value]


class Reader:
    """Reads a source on a thread of its own, as the pipeline does."""

    def __init__(self, source: LiveSource) -> None:
        self.source, self.items = source, []
        self._changed, self._paused = threading.Condition(), threading.Event()
        pause = source._wait

        def told(seconds: float) -> bool:
            self._paused.set()
            return pause(seconds)

        source._wait = told
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for item in self.source.frames():
            with self._changed:
                self.items.append(item)
                self._changed.notify_all()

    def wait(self, true: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(true, LIMIT_S), (self.source.state, self.source.last_error, self.items[-1:])

    def wait_for_pause(self) -> None:
        """Until the first try to connect has failed."""
        assert self._paused.wait(LIMIT_S)

    def stop(self) -> Ended:
        self.source.interrupt()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        (ended,) = [item for item in self.items if isinstance(item, Ended) and item.final]
        assert self.items[-1] is ended
        return ended


class Pauses:
    """Counts the pauses of back-off and stops after some, so that nothing has to wait for real."""

    def __init__(self, most: int) -> None:
        self.asked: list[float] = []
        self._most = most

    def __call__(self, seconds: float) -> bool:
        self.asked.append(seconds)
        return len(self.asked) >= self._most
