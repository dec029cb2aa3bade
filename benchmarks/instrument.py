"""Times what a run does, without the run knowing: the methods of its sources, stages and sinks are wrapped on the instance.

Each call costs two clock readings and, per frame, one dictionary entry: about 3 µs a frame and stage. Every list is written by
the one thread that calls its stage, and read after the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.sampling import name_thread

FrameKey = tuple[str, int]
"""Source and index of a frame."""

_MODELS = {"detect": "_detector", "classify": "_classifier"}
"""Where our stages keep their engine; one that has none there is timed as a whole."""


@dataclass
class Calls:
    """Every call of one thing: one entry each, in all lists."""

    started: list[float] = field(default_factory=list)
    """Monotonic seconds."""
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    """CPU time of the calling thread alone."""
    frames: list[int] = field(default_factory=list)
    """Frames given to it (a model: images)."""

    def between(self, begin: float, end: float) -> Calls:
        """Those that started in [begin, end)."""
        chosen = [i for i, started in enumerate(self.started) if begin <= started < end]
        return Calls(*([values[i] for i in chosen] for values in (self.started, self.seconds, self.cpu_s, self.frames)))


@dataclass
class Tap:
    """One stage or sink: its calls, and when each frame came and left."""

    name: str
    calls: Calls = field(default_factory=Calls)
    entered: dict[FrameKey, float] = field(default_factory=dict)
    left: dict[FrameKey, float] = field(default_factory=dict)


class Instrument:
    """The taps of one run, in the order of the flow.

    The stable window begins with the first batch that holds no frame of the warm-up, the first `warm` of each source: of one that holds
    both, all would be worked on inside of the window and some counted. `on_begin` is called right before, by the first stage's thread.
    """

    def __init__(self, warm: int = 0, on_begin: Callable[[], None] = lambda: None) -> None:
        self._warm, self._on_begin = warm, on_begin
        self.warmed = False
        """There was such a batch."""
        self.begin = (math.inf, 0.0)
        """When the first stage took it, or the first of all where there was none: monotonic and CPU seconds (of the whole process)."""
        self.sources: dict[str, Calls] = {}
        self.stages: list[Tap] = []
        self.sinks: list[Tap] = []
        self.models: dict[str, Calls] = {}
        """"detect.model", "classify.model": the engines' part of those stages."""
        self.captured: dict[FrameKey, float] = {}

    def attach(self, sources: Sequence[Any], stages: Sequence[Sequence[Any]], sinks: Sequence[Any]) -> None:
        """Wraps them; call before the run."""
        for source in sources:
            self.sources[source.name] = _tap_source(source)
        for stage in (stage for group in stages for stage in group):
            self.stages.append(self._tap_stage(stage, first=not self.stages))
            self._tap_model(stage)
        for sink in sinks:
            self.sinks.append(self._tap_sink(sink))

    def done(self) -> list[tuple[float, FrameKey]]:
        """When each frame had been written by the last of its sinks, in that order."""
        latest: dict[FrameKey, float] = {}
        for tap in self.sinks:
            for key, left in tap.left.items():
                latest[key] = max(left, latest.get(key, 0.0))
        return sorted((left, key) for key, left in latest.items())

    def _tap_stage(self, stage: Any, first: bool) -> Tap:
        tap, inner = Tap(stage.name), stage.process

        def process(batch: Any) -> Any:
            if first:
                self.captured.update(((frame.source, frame.index), frame.captured_at) for frame in batch.frames)
                if batch.frames and not self.warmed:
                    self.warmed = all(frame.index >= self._warm for frame in batch.frames)
                    if self.warmed:
                        self._on_begin()
                    if self.warmed or math.isinf(self.begin[0]):
                        self.begin = time.monotonic(), time.process_time()
            keys = [(frame.source, frame.index) for frame in batch.frames]
            result = _timed(tap.calls, len(keys), inner, batch)
            began = tap.calls.started[-1]
            ended = began + tap.calls.seconds[-1]
            tap.entered.update(dict.fromkeys(keys, began))
            tap.left.update(((frame.source, frame.index), ended) for frame in result.frames)
            return result

        stage.process = process
        return tap

    def _tap_sink(self, sink: Any) -> Tap:
        tap, inner = Tap(sink.name), sink.write

        def write(batch: Any) -> None:
            _timed(tap.calls, len(batch.frames), inner, batch)
            began = tap.calls.started[-1]
            ended = began + tap.calls.seconds[-1]
            for frame in batch.frames:
                key = (frame.source, frame.index)
                tap.entered[key], tap.left[key] = began, ended

        sink.write = write
        return tap

    def _tap_model(self, stage: Any) -> None:
        """The engine inside a stage, where it has one under the name our stages use."""
        model = getattr(stage, _MODELS.get(stage.name, ""), None)
        if model is None:
            return
        calls = self.models[f"{stage.name}.model"] = Calls()
        inner = model.infer
        model.infer = lambda batch, *args, **kwargs: _timed(calls, len(batch), inner, batch, *args, **kwargs)


def _timed(calls: Calls, frames: int, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not calls.started:
        name_thread()
    cpu, began = time.thread_time(), time.monotonic()
    result = call(*args, **kwargs)
    ended = time.monotonic()
    calls.started.append(began)
    calls.seconds.append(ended - began)
    calls.cpu_s.append(time.thread_time() - cpu)
    calls.frames.append(frames)
    return result


def _tap_source(source: Any) -> Calls:
    calls, inner = Calls(), source.frames

    def frames() -> Iterator[Any]:
        items = iter(inner())
        try:
            while (item := _timed(calls, 1, next, items, None)) is not None:
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    source.frames = frames
    return calls
