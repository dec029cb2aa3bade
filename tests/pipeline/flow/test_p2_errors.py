"""P2: the first real error of a stage or a required sink ends the run; a best-effort sink's only that sink."""

from __future__ import annotations

import threading

import pytest
from flow_fakes import FakeSink, FakeSource, FakeStage, Log, fail_at, failure, run

from pipeline.errors import StageError, UsageError
from pipeline.flow.graph import Pipeline
from pipeline.flow.ledger import SourceLedger


@pytest.mark.parametrize("where", ["first stage", "last stage", "sink"])
def test_p2_the_first_real_error_is_raised_under_the_name_of_who_failed(start, where):
    error = OSError("disk full")

    def check(who):
        return fail_at(7, error) if who == where else None

    stages = [[FakeStage("first stage", on_item=check("first stage"))], [FakeStage("last stage", on_item=check("last stage"))]]
    sinks = [FakeSink("sink", on_write=lambda batch: [fail(item) for item in batch.frames if (fail := check("sink"))]), FakeSink("other")]
    pipeline = Pipeline([FakeSource("a", 1000), FakeSource("b", 1000)], stages, sinks)
    raised = failure(start, pipeline)
    assert isinstance(raised, StageError)
    assert (raised.stage, raised.__cause__) == (where, error)
    assert where in str(raised)
    assert "disk full" in str(raised)
    ledger = pipeline.ledger.snapshot()
    assert ledger.balanced
    assert ledger.total.decoded > ledger.total.shown
    assert set(ledger.total.dropped) == {"discarded"}


def test_p2_an_error_keeps_its_exit_code(start):
    raised = failure(start, Pipeline([FakeSource("a", 1)], [[FakeStage("s", on_item=fail_at(0, UsageError("no")))]], []))
    assert raised.exit_code == 2


def test_p2_a_stage_that_cannot_open_ends_the_run_before_any_source_is_read(start):
    log = Log()

    def refuse():
        raise OSError("no model")

    source = FakeSource("a", [lambda: log("read")])
    stages = [[FakeStage("one", log), FakeStage("two", log, on_open=refuse)], [FakeStage("three", log)]]
    raised = failure(start, Pipeline([source], stages, [FakeSink("sink", log)]))
    assert (raised.stage, str(raised.__cause__)) == ("two", "no model")
    assert log.of("read") == []
    assert [name for (name,) in log.of("closed") if name not in ("three",)] == ["sink", "one"]
    assert log.of("opened").count(("three",)) == log.of("closed").count(("three",))


@pytest.mark.parametrize("who", ["stage", "sink"])
def test_p2_an_error_while_closing_is_an_error(start, who):
    def refuse():
        raise OSError("cannot finish")

    stage = FakeStage("stage", on_close=refuse if who == "stage" else None)
    sink = FakeSink("sink", on_close=refuse if who == "sink" else None)
    assert failure(start, Pipeline([FakeSource("a", 3)], [[stage]], [sink])).stage == who


def test_p2_the_first_error_wins_over_those_that_follow_from_closing(start):
    def refuse():
        raise OSError("second")

    stage = FakeStage("stage", on_item=fail_at(1, OSError("first")), on_close=refuse)
    raised = failure(start, Pipeline([FakeSource("a", 3)], [[stage]], [FakeSink("sink", on_close=refuse)]))
    assert str(raised.__cause__) == "first"


def test_after_a_fault_sinks_receive_nothing_more_and_are_closed_and_sources_interrupted(start):
    fault, may_write, writing = threading.Event(), threading.Event(), threading.Event()

    def slow(batch):
        writing.set()
        assert may_write.wait(20)

    def check(item):
        if item.index == 3:
            assert writing.wait(20)
            fault.set()
            raise OSError("broken")

    sink, source = FakeSink("sink", on_write=slow, log=Log()), FakeSource("a", [4, "until interrupted"])
    pipeline = Pipeline([source], [[FakeStage("stage", on_item=check)]], [sink])
    running = start(pipeline.run)
    assert source.interrupted.wait(20)
    assert fault.is_set()
    may_write.set()  # the sink was in its first write when the stage failed; two more batches lay in its channel
    assert isinstance(running.exception(20), StageError)
    assert sink.indexes("a") == [0]
    assert sink.log.of("closed") == [("sink",)]
    assert pipeline.ledger.snapshot().sources["a"] == SourceLedger(4, 1, {"discarded": 3})


def test_a_best_effort_sink_that_fails_is_detached_counted_and_still_closed(start):
    def refuse(batch):
        if batch.frames and batch.frames[0].index == 2:
            raise OSError("no display")

    window, video = FakeSink("window", best_effort=True, on_write=refuse), FakeSink("video")
    result = run(start, Pipeline([FakeSource("a", 100)], [[FakeStage("s")]], [window, video]))
    assert result.detached == {"window": "no display"}
    assert window.indexes("a") == [0, 1]
    assert window.log.of("closed") == [("window",)]
    assert video.indexes("a") == list(range(100))
    assert result.ledger.total == SourceLedger(100, 100, {})


def test_a_best_effort_sink_that_cannot_close_does_not_fail_the_run(start):
    def refuse():
        raise OSError("stuck")

    assert run(start, Pipeline([FakeSource("a", 1)], [], [FakeSink("w", best_effort=True, on_close=refuse)])).detached == {"w": "stuck"}


def test_an_error_of_on_ledger_is_an_error_and_the_sinks_close_all_the_same(start):
    def refuse(snapshot):
        raise OSError("no")

    sink = FakeSink("sink")
    assert failure(start, Pipeline([FakeSource("a", 2)], [], [sink], on_ledger=refuse)).stage == "on_ledger"
    assert sink.log.of("closed") == [("sink",)]
