"""P3: `stop()` drains: each frame taken reaches every required sink."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from flow_fakes import FakeSink, FakeSource, FakeStage, Item, Log, run

from pipeline.flow.graph import Pipeline
from pipeline.flow.ledger import SourceLedger


def test_a_frame_is_shown_when_every_required_sink_has_written_it(start, eventually):
    may_write, writing = threading.Event(), threading.Event()

    def wait(batch):
        writing.set()
        assert may_write.wait(20)

    quick, slow = FakeSink("quick"), FakeSink("slow", on_write=wait)
    pipeline = Pipeline([FakeSource("a", 1)], [], [quick, slow])
    running = start(pipeline.run)
    assert writing.wait(20)
    eventually(lambda: len(quick.items) == 1)
    assert pipeline.ledger.snapshot().total.shown == 0
    may_write.set()
    assert running.result(20).ledger.total.shown == 1


def test_p3_stop_drains_each_frame_taken_reaches_every_required_sink(start):
    reached = threading.Event()
    sinks = [FakeSink("video"), FakeSink("events")]

    def watch(item):
        if item.index == 20:
            reached.set()

    source = FakeSource("a", 10_000_000)
    other = FakeSource("b", ["until interrupted"])
    pipeline = Pipeline([source, other], [[FakeStage("detect", on_item=watch)], [FakeStage("track")]], sinks)
    running = start(pipeline.run)
    assert reached.wait(20)
    pipeline.stop()
    pipeline.stop()
    result = running.result(30)
    decoded = result.ledger.sources["a"].decoded
    assert decoded < 10_000_000
    assert result.ledger.sources["a"] == SourceLedger(decoded, decoded, {})
    for sink in sinks:
        assert sink.indexes("a") == list(range(decoded))
        assert sorted((end.source, end.reason, end.final, end.failed) for end in sink.ended) == [
            ("a", "stopped", True, False),
            ("b", "stopped", True, False),
        ]
    assert (result.stopped, result.cancelled, result.failures) == (True, False, {})


def test_p3_what_an_interrupted_source_raises_is_no_failure(start):
    class Rude(FakeSource):
        def frames(self):
            yield Item(self.name, 0)
            assert self.interrupted.wait(20)
            raise OSError("Immediate exit requested")

    sink = FakeSink("sink")
    pipeline = Pipeline([Rude("cam", live=True)], [], [sink], max_age_s=None)
    running = start(pipeline.run)
    pipeline.stop()
    assert running.result(20).failures == {}
    assert [end.reason for end in sink.ended] == ["stopped"]


def test_p3_the_frame_that_a_source_gives_while_it_is_stopped_is_shown(start):
    class Last(FakeSource):
        def frames(self):
            yield Item(self.name, 0)
            pipeline.stop()
            yield Item(self.name, 1)

    sink = FakeSink("sink")
    pipeline = Pipeline([Last("a")], [], [sink])
    assert run(start, pipeline).ledger.total == SourceLedger(2, 2, {})
    assert sink.indexes("a") == [0, 1]


def test_p3_a_source_that_ignores_interrupts_is_stopped_after_the_frame_at_hand(start):
    began = threading.Event()

    class Deaf(FakeSource):
        def frames(self):
            index = 0
            try:
                while True:
                    yield Item(self.name, index)
                    began.set()
                    index += 1
            finally:
                self.closed += 1

    source, sink = Deaf("a"), FakeSink("sink")
    pipeline = Pipeline([source], [], [sink])
    running = start(pipeline.run)
    assert began.wait(20)
    pipeline.stop()
    result = running.result(20)
    assert result.ledger.total.decoded == result.ledger.total.shown == len(sink.items)
    assert source.closed == 1


def test_stop_and_cancel_before_run_end_it_at_once_without_a_frame(start):
    for end in ("stop", "cancel"):
        log = Log()
        source, sink = FakeSource("a", [lambda log=log: log("read"), 5]), FakeSink("sink")
        pipeline = Pipeline([source], [[FakeStage("s")]], [sink])
        getattr(pipeline, end)()
        result = run(start, pipeline)
        assert log.of("read") == []
        assert result.ledger.total.decoded == 0
        assert sink.log.of("closed") == [("sink",)]
        assert (result.stopped, result.cancelled) == (end == "stop", end == "cancel")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="POSIX signals")
def test_signal_handlers_run_while_the_main_thread_is_in_run():
    pipeline = Pipeline([FakeSource("a", [5, lambda: os.kill(os.getpid(), signal.SIGUSR1), "until interrupted"])], [], [FakeSink("k")])
    before = signal.signal(signal.SIGUSR1, lambda number, frame: pipeline.stop())
    try:
        result = pipeline.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert result.stopped
    assert result.ledger.total == SourceLedger(5, 5, {})
