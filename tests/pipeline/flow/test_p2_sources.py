"""P2 for sources: one that fails, lies, reconnects or never connects ends by itself; the others go on."""

from __future__ import annotations

import threading

import pytest
from flow_fakes import FakeSink, FakeSource, FakeStage, Item, Log, failure, run

from pipeline.errors import SourceError
from pipeline.flow.batch import Ended
from pipeline.flow.channel import ClosedChannel
from pipeline.flow.graph import Pipeline
from pipeline.flow.ledger import Ledger, SourceLedger
from pipeline.flow.scope import ManualClock


def test_a_source_that_fails_does_not_stop_the_others(start):
    sink, error = FakeSink("sink"), SourceError("cannot read bad: truncated")
    bad = FakeSource("bad", [3, error])
    result = run(start, Pipeline([bad, FakeSource("good", 40)], [[FakeStage("s")]], [sink]))
    assert result.failures == {"bad": "cannot read bad: truncated"}
    assert result.errors["bad"] is error
    assert sink.indexes("good") == list(range(40))
    assert sink.indexes("bad") == [0, 1, 2]
    end = next(end for end in sink.ended if end.source == "bad")
    assert (end.final, end.failed, end.reason) == (True, True, "cannot read bad: truncated")
    assert bad.closed == 1
    assert result.ledger.balanced


def test_a_source_that_says_it_failed_is_a_failure_too(start):
    result = run(start, Pipeline([FakeSource("bad", [1, "failed"])], [], [FakeSink("sink")]))
    assert result.failures == {"bad": "failed: no more"}
    assert isinstance(result.errors["bad"], SourceError)
    assert str(result.errors["bad"]) == "bad: no more"  # of several, the one that failed


def test_an_error_without_words_is_told_by_its_type(start):
    assert run(start, Pipeline([FakeSource("bad", [ValueError()])], [], [])).failures == {"bad": "ValueError"}


def test_when_every_source_failed_the_result_has_what_they_raised_and_no_frame(start):
    error = SourceError("no such file: x.mp4")
    result = run(start, Pipeline([FakeSource("x", [error])], [[FakeStage("s")]], [FakeSink("k")]))
    assert result.errors == {"x": error}
    assert result.ledger.total.decoded == 0


def test_a_source_that_just_ends_gets_an_end(start):
    class Short(FakeSource):
        def frames(self):
            yield Item(self.name, 0)

    sink = FakeSink("sink")
    result = run(start, Pipeline([Short("a")], [], [sink]))
    assert [(end.reason, end.final, end.failed) for end in sink.ended] == [("ended", True, False)]
    assert result.failures == {}


def test_a_files_lane_holds_a_whole_batch(start, eventually):
    sink = FakeSink("sink", on_write=lambda batch: sizes.append(len(batch.frames)))
    sizes = []
    source = FakeSource("a", [16, "until interrupted"])
    pipeline = Pipeline([source], [], [sink], max_batch=16, max_wait_s=1000)
    running = start(pipeline.run)
    eventually(lambda: sizes)
    pipeline.stop()
    running.result(20)
    assert sizes[0] == 16


@pytest.mark.parametrize("wrong", ["other source", "old epoch", "flow's own error", "final of an old epoch"])
def test_a_source_that_breaks_the_rules_fails_and_the_run_ends(start, wrong):
    class Wrong(FakeSource):
        def frames(self):
            yield Item(self.name, 0)
            yield Ended(self.name, 0, "lost", final=False)
            if wrong == "other source":
                yield Item("other", 1, 1)
            elif wrong == "old epoch":
                yield Item(self.name, 1, 0)
            elif wrong == "flow's own error":
                raise ClosedChannel
            yield Ended(self.name, 0, "over", final=True)

    sink = FakeSink("sink")
    pipeline = Pipeline([Wrong("a"), FakeSource("good", 5)], [], [sink])
    result = run(start, pipeline)
    refused = wrong in ("other source", "old epoch")  # a frame was taken that no lane takes: the books say so
    assert result.ledger.sources["a"].dropped == ({"refused": 1} if refused else {})
    assert ("a" in result.failures) == (wrong != "final of an old epoch")
    assert [end.epoch for end in sink.ended if end.source == "a"] == [0, 1]
    assert sink.indexes("good") == list(range(5))


def test_a_reconnect_is_another_epoch_of_the_same_source(start):
    sink = FakeSink("sink")
    source = FakeSource("cam", [2, "lost", 3, "lost", "lost", 1], live=True)
    result = run(start, Pipeline([source], [[FakeStage("s")]], [sink], live_lane=20))
    assert [item.epoch for item in sink.items] == [0, 0, 1, 1, 1, 3]
    assert [(end.epoch, end.final) for end in sink.ended] == [(0, False), (1, False), (2, False), (3, True)]
    assert result.failures == {}


def test_a_live_source_that_nobody_reads_in_time_drops_and_the_ledger_says_so(start):
    may_go = threading.Event()
    stage = FakeStage("slow", on_item=lambda item: may_go.wait(20))
    sink = FakeSink("sink")
    source = FakeSource("cam", [100, may_go.set], live=True)
    result = run(start, Pipeline([source], [[stage]], [sink], max_age_s=None))
    ledger = result.ledger.sources["cam"]
    assert ledger.decoded == 100
    assert ledger.shown == len(sink.items) <= 3
    assert ledger.dropped == {"evicted": 100 - ledger.shown}
    assert sink.items[-1].index == 99


def test_a_sources_own_drops_are_in_the_same_ledger(start):
    ledger = Ledger()
    source = FakeSource("a", [2, lambda: ledger.drop("a", "stride", 8)])
    result = run(start, Pipeline([source], [], [FakeSink("sink")], ledger=ledger))
    assert result.ledger.sources["a"] == SourceLedger(10, 2, {"stride": 8})


def test_when_no_live_source_connects_in_time_the_run_ends_with_one_sentence(start, eventually):
    clock = ManualClock()
    entered = [threading.Event(), threading.Event()]
    sources = [FakeSource(f"cam{n}", [entered[n].set, "until interrupted"], live=True) for n in range(2)]
    sources[0].trouble = "connection refused"
    running = start(Pipeline(sources, [[FakeStage("s")]], [FakeSink("k")], clock=clock).run)
    for event in entered:
        assert event.wait(20)
    clock.advance(9.5)
    assert not sources[0].interrupted.is_set()
    clock.advance(0.5)
    result = running.result(20)
    assert result.failures == {
        "cam0": "no source connected within 10 s: connection refused",
        "cam1": "no source connected within 10 s: cam1",
    }
    assert all(isinstance(error, SourceError) and str(error) == result.failures[name] for name, error in result.errors.items())
    assert (result.stopped, result.cancelled) == (False, False)


class Quiet(FakeSource):
    state = property(lambda self: "CONNECTING", lambda self, state: None)


@pytest.mark.parametrize("who", ["a frame came", "it is running", "a file is there"])
def test_one_source_that_connected_keeps_the_run_waiting_for_the_others(start, eventually, who):
    clock, entered = ManualClock(), threading.Event()
    absent = FakeSource("absent", [entered.set, "until interrupted"], live=True)
    other = FakeSource("other", ["until interrupted"], live=who != "a file is there")
    if who == "it is running":
        other.state = "RUNNING"
    if who == "a frame came":  # from a source that never says so
        other = Quiet("other", [1, "until interrupted"], live=True)
    pipeline = Pipeline([absent, other], [], [FakeSink("k")], clock=clock, max_wait_s=0, max_age_s=None)
    running = start(pipeline.run)
    assert entered.wait(20)
    if who == "a frame came":
        eventually(lambda: pipeline.ledger.snapshot().total.shown == 1)
    clock.advance(60)
    pipeline._control.ring()
    pipeline._control.ring()
    eventually(pipeline._control._bell.empty)  # when it hears the second it has attended to the first
    assert not absent.interrupted.is_set()
    pipeline.stop()
    assert running.result(20).failures == {}


def test_a_source_that_cannot_be_interrupted_is_blamed_and_the_others_are_interrupted_all_the_same(start):
    class Refuses(FakeSource):
        def interrupt(self):
            super().interrupt()
            raise OSError("no")

    source, other = Refuses("a", ["until interrupted"]), FakeSource("b", ["until interrupted"])
    pipeline = Pipeline([source, other], [], [FakeSink("k")])
    source.script.insert(0, pipeline.stop)
    assert failure(start, pipeline).stage == "a"
    assert other.interrupted.is_set()


def test_no_source_is_read_and_no_time_to_connect_passes_before_every_stage_is_open(start, eventually):
    clock, log, may_open = ManualClock(), Log(), threading.Event()
    stages = [[FakeStage("one", log)], [FakeStage("two", on_open=lambda: may_open.wait(20))]]
    pipeline = Pipeline([FakeSource("cam", 1, live=True)], stages, [FakeSink("k")], clock=clock, max_age_s=None)
    running = start(pipeline.run)
    eventually(lambda: log.of("opened") == [("one",)])
    clock.advance(60)
    pipeline._control.ring()
    pipeline._control.ring()
    eventually(pipeline._control._bell.empty)  # when it hears the second it has attended to the first
    assert not pipeline._sources[0].started
    may_open.set()
    assert running.result(20).failures == {}
