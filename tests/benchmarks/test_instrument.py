"""Clocks around a run change nothing in it and miss nothing."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import full_job
from benchmarks.full_job import _record
from benchmarks.instrument import Instrument
from benchmarks.job import Job
from benchmarks.latency import LiveFromFile
from benchmarks.sampling import Sampler
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


def run(count: int, warm: int = 0, max_batch: int = 1) -> tuple[Instrument, Keeps, list[int]]:
    """The last: how many frames the first stage had seen at `on_begin`."""
    source, stage, sink = Numbers([(float(i), i / 10) for i in range(count)]), HoldsOne(), Keeps()
    seen: list[int] = []
    instrument = Instrument(warm, lambda: seen.append(len(instrument.stages[0].entered)))
    instrument.attach([source], [[stage]], [sink])
    Pipeline([source], [[stage]], [sink], max_batch=max_batch, max_wait_s=0 if max_batch == 1 else 60).run()
    return instrument, sink, seen


@pytest.mark.parametrize(
    ("warm", "begins", "counted", "warmed"),
    [(0, [0], 10, True), (2, [4], 6, True), (4, [4], 6, True), (5, [8], 2, True), (9, [], 10, False), (10, [], 0, False)],
)
def test_frames_worked_on_in_the_window_are_those_counted(warm: int, begins: list[int], counted: int, warmed: bool) -> None:
    instrument, _, seen = run(10, warm, max_batch=4)
    record = _record(instrument, warm, [10])
    assert (seen, record["counted"], record["warmed"]) == (begins, counted, warmed)
    assert sum(record["stages"]["holds"]["frames"]) == counted
    assert record["missed"] == 0


def test_missed_is_what_the_source_decoded_after_the_warm_up_and_nobody_wrote() -> None:
    instrument, _, _ = run(10, 2, max_batch=4)
    assert _record(instrument, 2, [13])["missed"] == 3


def test_what_threads_and_queues_did_before_the_window_is_forgotten() -> None:
    queue = SimpleNamespace(depth=7, capacity=8)
    sampler = Sampler(lambda: SimpleNamespace(lanes={"clip": queue}, channels={}))
    sampler.start()
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass
    queue.depth = 2
    sampler.restart()
    sampler.stop()
    assert max(sampler.depths["clip"]) == 2
    assert sampler.threads()[threading.current_thread().name][0] < 0.2


def test_one_window_is_told_of_all(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restarted, restart, looked = [], Sampler.restart, []
    monkeypatch.setattr(Sampler, "restart", lambda sampler: (restart(sampler), restarted.append(time.monotonic())))
    monkeypatch.setattr(full_job, "_shares", lambda before, after: looked.extend((before.elapsed_s, after.elapsed_s)) or {})
    record = full_job.run_full_job(Job("full", str(clip), str(tmp_path), imgsz=320, settings={"backend": "fake"}))
    assert restarted[-1] <= record["begin"] < restarted[-1] + 0.2
    assert looked[0] > 0
    assert looked[1] - looked[0] == pytest.approx(record["end"] - record["begin"], abs=0.2)
    assert len(restarted) == 2


def test_every_frame_is_seen_entering_and_leaving_each_part() -> None:
    instrument, sink, _ = run(5)
    keys = [("numbers", index) for index in range(5)]
    assert sink.seen == [0, 1, 2, 3, 4]
    tap = instrument.stages[0]
    assert sorted(tap.entered) == sorted(tap.left) == sorted(instrument.captured) == keys
    assert [key for _, key in instrument.done()] == keys


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
