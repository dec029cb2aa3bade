"""Clocks around a run change nothing in it and miss nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.instrument import Instrument
from benchmarks.latency import LiveFromFile
from pipeline.flow.batch import Batch, Ended
from pipeline.flow.graph import Pipeline
from pipeline.types import SourceInfo


@dataclass
class Item:
    source: str
    index: int
    epoch: int = 0
    captured_at: float = 0.0
    pts_s: float = 0.0
    info: Any = None


class Numbers:
    name, live, state = "numbers", False, "RUNNING"

    def __init__(self, times: list[tuple[float, float]]) -> None:
        """(captured_at, pts_s) of each item."""
        self._times, self.closed = times, False

    def frames(self) -> Iterator[Any]:
        try:
            info = SourceInfo("numbers", "video", 4, 4, path="clip.mp4", has_audio=True)
            for index, (captured_at, pts_s) in enumerate(self._times):
                yield Item(self.name, index, 0, captured_at, pts_s, info)
            yield Ended(self.name, 0, "end of file", final=True)
        finally:
            self.closed = True

    def interrupt(self) -> None: ...


class HoldsOne:
    """Gives each item out with the next one."""

    name, lookahead = "holds", 1

    def __init__(self) -> None:
        self._held: list[Item] = []

    def open(self) -> None: ...

    def process(self, batch: Batch) -> Batch:
        self._held += batch.frames
        count = len(self._held) if batch.ended else max(len(self._held) - 1, 0)
        out, self._held = self._held[:count], self._held[count:]
        return Batch(out, batch.ended)

    def close(self) -> None: ...


class Keeps:
    name, best_effort = "keeps", False

    def __init__(self) -> None:
        self.seen: list[int] = []

    def write(self, batch: Batch) -> None:
        self.seen += [item.index for item in batch.frames]

    def close(self) -> None: ...


def run(count: int) -> tuple[Instrument, Keeps, list[tuple[str, int]]]:
    source, stage, sink = Numbers([(float(i), i / 10) for i in range(count)]), HoldsOne(), Keeps()
    instrument, written = Instrument(), []
    instrument.attach([source], [[stage]], [sink], lambda name, frames, so_far: written.append((name, so_far)))
    Pipeline([source], [[stage]], [sink], max_wait_s=0).run()
    return instrument, sink, written


def test_every_frame_is_seen_entering_and_leaving_each_part() -> None:
    instrument, sink, written = run(5)
    keys = [("numbers", index) for index in range(5)]
    assert sink.seen == [0, 1, 2, 3, 4]
    tap = instrument.stages[0]
    assert sorted(tap.entered) == sorted(tap.left) == sorted(instrument.captured) == keys
    assert [key for _, key in instrument.done()] == keys
    assert written[-1] == ("keeps", 5)


def test_a_frame_that_is_held_back_leaves_when_the_next_one_comes() -> None:
    instrument, _, _ = run(5)
    tap = instrument.stages[0]
    for index in range(4):
        assert tap.left["numbers", index] >= tap.entered["numbers", index + 1]


def test_calls_are_counted_with_their_frames() -> None:
    instrument, _, _ = run(5)
    assert sum(instrument.stages[0].calls.frames) == 5
    assert sum(instrument.sinks[0].calls.frames) == 5
    assert len(instrument.sources["numbers"].seconds) >= 5
    first = instrument.stages[0].calls.started[0]
    assert instrument.stages[0].calls.between(math.nextafter(first, math.inf), math.inf).frames == instrument.stages[0].calls.frames[1:]


def test_a_paced_file_says_it_is_live_and_by_how_much_it_is_late() -> None:
    source = Numbers([(100.0, 7.0), (100.5, 7.1), (100.2, 7.2)])
    live = LiveFromFile(source)
    items = list(live.frames())
    assert live.live
    assert live.name == "numbers"
    assert [round(late, 6) for late in live.late_s] == [0.0, 0.4, 0.0]
    assert all(item.info.live and item.info.path is None and not item.info.has_audio for item in items[:-1])
    assert isinstance(items[-1], Ended)
    assert source.closed
