"""P4: `cancel()` is bounded by the longest call in progress; what is in flight is booked as discarded."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from flow_fakes import FakeSink, FakeSource, FakeStage, run, threads_named

from pipeline.flow.graph import Pipeline
from pipeline.flow.ledger import SourceLedger


def test_p4_cancel_returns_after_the_call_in_progress_and_books_the_rest_as_discarded(start, eventually):
    entered, may_go = threading.Event(), threading.Event()

    def hang(item):
        entered.set()
        assert may_go.wait(20)

    sink = FakeSink("sink")
    pipeline = Pipeline([FakeSource("a", 1000)], [[FakeStage("stage", on_item=hang)]], [sink], file_lane=4)
    running = start(pipeline.run)
    assert entered.wait(20)
    eventually(lambda: pipeline.ledger.snapshot().total.decoded == 6)  # one in the stage, four in the lane, one in hand
    pipeline.cancel()
    eventually(lambda: pipeline._scope.cancelled)
    assert not running.done()
    may_go.set()
    result = running.result(20)
    assert (result.cancelled, result.stopped, result.failures) == (True, False, {})
    assert result.ledger.sources["a"] == SourceLedger(6, 0, {"discarded": 6})
    assert sink.items == []
    assert sink.log.of("closed") == [("sink",)]


def test_p4_cancel_after_stop_does_not_wait_for_the_drain(start, eventually):
    entered, may_go = threading.Event(), threading.Event()

    def hang(batch):
        entered.set()
        assert may_go.wait(20)

    pipeline = Pipeline([FakeSource("a", 1000)], [[FakeStage("s")]], [FakeSink("sink", on_write=hang)])
    running = start(pipeline.run)
    assert entered.wait(20)
    pipeline.stop()
    pipeline.cancel()
    eventually(lambda: pipeline._scope.cancelled)
    may_go.set()
    result = running.result(20)
    assert result.stopped
    assert result.cancelled
    assert result.ledger.balanced
    assert result.ledger.total.dropped["discarded"] > 0


def test_cancelling_a_run_that_is_over_changes_nothing(start):
    pipeline = Pipeline([FakeSource("a", 3)], [], [FakeSink("sink", on_close=lambda: pipeline.cancel())])
    result = run(start, pipeline)
    assert not result.cancelled
    assert result.ledger.total == SourceLedger(3, 3, {})


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="POSIX signals")
def test_an_exception_from_a_signal_handler_cancels_the_run_and_passes_on_after_the_joins():
    def interrupt(number, frame):
        raise KeyboardInterrupt

    sink = FakeSink("ki sink")
    source = FakeSource("ki source", [5, lambda: os.kill(os.getpid(), signal.SIGUSR1), "until interrupted"])
    pipeline = Pipeline([source], [[FakeStage("ki stage")]], [sink])
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            pipeline.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert threads_named("ki source", "ki stage", "ki sink") == []
    assert sink.log.of("closed") == [("ki sink",)]
    assert pipeline.ledger.snapshot().balanced


def test_p4_cancel_after_stop_interrupts_a_source_again(start, eventually):
    told, entered, over = [], threading.Event(), threading.Event()

    class Drains(FakeSource):
        def interrupt(self):
            told.append(self.name)
            if len(told) == 2:
                over.set()

    pipeline = Pipeline([Drains("a", [entered.set, lambda: over.wait(20)])], [], [FakeSink("k")])
    running = start(pipeline.run)
    assert entered.wait(20)
    pipeline.stop()
    eventually(lambda: told == ["a"])
    pipeline.cancel()
    eventually(lambda: told == ["a", "a"])
    running.result(20)
