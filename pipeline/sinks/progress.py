"""A progress bar on standard error for people; a line now and then where nobody watches a terminal.

Standard output stays free for rows. The bar shows what is finished (this sink sees a frame when all stages are done with
it), not what is decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.flow.batch import Batch
from pipeline.types import SourceInfo

_LINE_EVERY_S = 10.0


class ProgressSink:
    """Frames, frames per second and faces, of as many frames as the sources' containers promise.

    The bar has an end once all `sources` have sent a frame, unless one of them is live or does not say how long it is. On a
    terminal a bar; else a line every ten seconds. `clock`: seconds, for tests.
    """

    name = "progress"
    best_effort = True

    def __init__(self, sources: int = 1, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._sources, self._clock = sources, clock
        self._promised: dict[str, int | None] = {}
        self._bar: Progress | None = None
        self._task = None
        self._done = self._faces = 0
        self._begun: float | None = None
        self._line_at = 0.0

    def write(self, batch: Batch) -> None:
        if not batch.frames:
            return
        now = self._clock()
        if self._begun is None:
            self._begun, self._line_at = now, now + _LINE_EVERY_S
            if self._console.is_terminal:
                self._start()
        self._done += len(batch.frames)
        for frame in batch.frames:
            if frame.source not in self._promised:
                self._promised[frame.source] = frames_of(frame.info)
        self._faces = sum(0 if frame.faces is None else len(frame.faces) for frame in batch.frames[-1:])
        if self._bar is not None:
            said = {"rate": self._rate(now), "faces": _plural(self._faces, "face")}
            self._bar.update(self._task, completed=self._done, total=self._expected, **said)
        elif now >= self._line_at:
            self._line_at = now + _LINE_EVERY_S
            of = f" of {self._expected}" if self._expected else ""
            self._console.print(f"{self._done}{of} frames, {self._rate(now)}", highlight=False)

    def close(self) -> None:
        if self._bar is not None:
            if self._expected and self._done < self._expected:  # stopped, or the container promised more
                self._bar.update(self._task, total=self._done)
            self._bar.stop()
            self._bar = None

    @property
    def _expected(self) -> int | None:
        """Never fewer than there were: containers may promise too little."""
        counts = [count for count in self._promised.values() if count is not None]
        return max(sum(counts), self._done) if len(counts) == self._sources else None

    def _start(self) -> None:
        self._bar = Progress(
            TextColumn("[bold]frames"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[faces]}"), TimeElapsedColumn(), TimeRemainingColumn(),
            console=self._console, transient=True, refresh_per_second=5,
        )  # fmt: skip
        self._task = self._bar.add_task("frames", total=self._expected, rate="", faces="")
        self._bar.start()

    def _rate(self, now: float) -> str:
        seconds = 0.0 if self._begun is None else now - self._begun
        return f"{self._done / seconds:.1f} fps" if seconds > 0 else ""


def frames_of(info: SourceInfo) -> int | None:
    """How many frames a source promises: as its container says, else its length times its rate; None: nobody knows."""
    if info.live:
        return None
    if info.frames:
        return info.frames
    return round(info.duration_s * info.average_rate) if info.duration_s and info.average_rate else None


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
