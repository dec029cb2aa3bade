"""P1–P5 of the design, sources and sinks that fail, the ledger of whole runs."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError, StageError, UsageError
from pipeline.flow.batch import Ended
from pipeline.flow.channel import ClosedChannel
from pipeline.flow.graph import Pipeline
from pipeline.flow.ledger import Ledger, SourceLedger
from pipeline.flow.scope import ManualClock, MonotonicClock


@dataclass(eq=False)
class Item:
    source: str
    index: int
    epoch: int = 0
    captured_at: float = 0.0


class Log:
    """What happened, in order, from any thread."""

    def __init__(self):
        self.entries = []

    def __call__(self, *entry):
        self.entries.append(entry)

    def of(self, what):
        return [entry[1:] for entry in self.entries if entry[0] == what]


class FakeSource:
    """`script`: how many frames, or a list of: an int (so many frames), an exception, an Ended-maker, a callable to call."""

    def __init__(self, name, script=0, live=False, log=None):
        self.name, self.live, self.state = name, live, "CONNECTING"
        self.script = script if isinstance(script, list) else [script]
        self.interrupted = threading.Event()
        self.log = log or Log()
        self.closed = 0

    def frames(self):
        index = epoch = 0
        try:
            for step in self.script:
                if isinstance(step, int):
                    for _ in range(step):
                        if self.interrupted.is_set():
                            return
                        self.state = "RUNNING"
                        yield Item(self.name, index, epoch, MonotonicClock().now())
                        index += 1
                elif isinstance(step, BaseException):
                    raise step
                elif step == "lost":
                    yield Ended(self.name, epoch, "lost", final=False)
                    epoch += 1
                elif step == "failed":
                    yield Ended(self.name, epoch, "failed: no more", final=True, failed=True)
                    return
                elif step == "until interrupted":
                    assert self.interrupted.wait(20)
                    return
                else:
                    step()
            yield Ended(self.name, epoch, "end of file", final=True)
        finally:
            self.closed += 1
            self.log("closed", self.name)

    def interrupt(self):
        self.interrupted.set()


class FakeStage:
    lookahead = 0

    def __init__(self, name, log=None, on_item=None, on_open=None, on_close=None):
        self.name, self.log = name, log or Log()
        self.on_item, self.on_open, self.on_close = on_item, on_open, on_close

    def open(self):
        if self.on_open:
            self.on_open()
        self.log("opened", self.name)

    def process(self, batch):
        for item in batch.frames:
            if self.on_item:
                self.on_item(item)
        return batch

    def close(self):
        self.log("closed", self.name)
        if self.on_close:
            self.on_close()


class FakeSink:
    def __init__(self, name, log=None, best_effort=False, on_write=None, on_close=None):
        self.name, self.best_effort, self.log = name, best_effort, log or Log()
        self.on_write, self.on_close = on_write, on_close
        self.items, self.ended, self.threads = [], [], set()

    def write(self, batch):
        self.threads.add(threading.current_thread().name)
        if self.on_write:
            self.on_write(batch)
        self.items += batch.frames
        self.ended += batch.ended

    def close(self):
        self.threads.add(threading.current_thread().name)
        self.log("closed", self.name)
        if self.on_close:
            self.on_close()

    def indexes(self, source):
        return [item.index for item in self.items if item.source == source]


def fail_at(index, error):
    def check(item):
        if item.index == index:
            raise error

    return check


def run(start, pipeline):
    return start(pipeline.run).result(30)


def failure(start, pipeline):
    return start(pipeline.run).exception(30)


def threads_named(*names):
    return [thread for thread in threading.enumerate() if thread.name in names]


# A run that ends by itself


def test_a_run_takes_every_frame_of_every_file_to_every_sink_in_order(start):
    sinks = [FakeSink("video"), FakeSink("events")]
    result = run(start, Pipeline([FakeSource("a", 50), FakeSource("b", 30)], [[FakeStage("detect")], [FakeStage("track")]], sinks))
    for sink in sinks:
        assert sink.indexes("a") == list(range(50))
        assert sink.indexes("b") == list(range(30))
        assert sorted((end.source, end.reason, end.final) for end in sink.ended) == [("a", "end of file", True), ("b", "end of file", True)]
    assert result.ledger.sources == {"a": SourceLedger(50, 50, {}), "b": SourceLedger(30, 30, {})}
    assert (result.failures, result.stopped, result.cancelled, result.detached) == ({}, False, False, {})


def test_a_run_needs_neither_stages_nor_sinks_nor_sources(start):
    sink = FakeSink("only")
    assert run(start, Pipeline([FakeSource("a", 5)], [], [sink])).ledger.total.shown == 5
    assert sink.indexes("a") == [0, 1, 2, 3, 4]
    assert run(start, Pipeline([FakeSource("a", 5)], [[FakeStage("s")]], [])).ledger.total.shown == 5
    assert run(start, Pipeline([], [[FakeStage("s")]], [FakeSink("k")])).ledger.balanced


def test_a_pipeline_runs_once_and_names_are_unique(start):
    pipeline = Pipeline([FakeSource("a", 1)], [], [])
    run(start, pipeline)
    assert "build another" in str(failure(start, pipeline))
    with pytest.raises(ValueError, match=r"source .* more than one a"):
        Pipeline([FakeSource("a"), FakeSource("a")], [], [])
    with pytest.raises(ValueError, match=r"stage .* more than one s"):
        Pipeline([], [[FakeStage("s")], [FakeStage("s")]], [])
    with pytest.raises(ValueError, match=r"sink .* more than one k"):
        Pipeline([], [], [FakeSink("k"), FakeSink("k")])


def test_each_source_group_and_sink_has_a_thread_named_after_it_and_a_group_shares_one(start):
    threads = {}

    def note(key):
        return lambda *_: threads.setdefault(key, threading.current_thread())

    group = [FakeStage("t", on_item=note("t")), FakeStage("c", on_item=note("c"))]
    stages = [[FakeStage("detect", on_item=note("detect"), on_open=note("open"))], group]
    sink = FakeSink("video", on_write=note("video"))
    run(start, Pipeline([FakeSource("file", [note("file"), 2])], stages, [sink]))
    assert {key: thread.name for key, thread in threads.items()} == {
        "file": "file", "detect": "detect", "open": "detect", "t": "t+c", "c": "t+c", "video": "video",
    }  # fmt: skip
    assert all(thread.daemon for thread in threads.values())
    assert sink.threads == {"video"}


def test_p1_every_thread_has_ended_when_run_returns(start):
    for script in (5, [3, OSError("gone")]):
        run(start, Pipeline([FakeSource("p1 source", script)], [[FakeStage("p1 stage")]], [FakeSink("p1 sink")]))
        assert threads_named("p1 source", "p1 stage", "p1 sink") == []
    failure(start, Pipeline([FakeSource("p1 source", 9)], [[FakeStage("p1 stage", on_item=fail_at(2, OSError()))]], [FakeSink("p1 sink")]))
    assert threads_named("p1 source", "p1 stage", "p1 sink") == []


# P2: errors


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


# Sources


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
    assert str(result.errors["bad"]) == "failed: no more"


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


@pytest.mark.parametrize("how", ["ends", "is stopped", "fails"])
def test_a_sources_generator_is_closed_on_its_own_thread_even_if_someone_holds_it(start, how):
    closed, began = [], threading.Event()

    class Held(FakeSource):
        def frames(self):
            self.held = self.read()
            return self.held

        def read(self):
            try:
                for index in range(3 if how == "ends" else 10_000_000):
                    yield Item(self.name, index)
                    began.set()
                yield Ended(self.name, 0, "end of file", final=True)
            finally:
                closed.append(threading.current_thread().name)

    source = Held("a")
    pipeline = Pipeline([source], [[FakeStage("s", on_item=fail_at(5, OSError()) if how == "fails" else None)]], [])
    running = start(pipeline.run)
    assert began.wait(20)
    if how == "is stopped":
        pipeline.stop()
    assert (running.exception(20) is not None) == (how == "fails")
    assert closed == ["a"]


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


# Sinks


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


def test_the_ledger_is_settled_before_the_sinks_close(start):
    log = Log()
    pipeline = Pipeline(
        [FakeSource("a", 20)],
        [[FakeStage("s")]],
        [FakeSink("events", on_close=lambda: log("at close", pipeline.ledger.snapshot()))],
        on_ledger=lambda snapshot: log("on_ledger", snapshot),
    )
    result = run(start, pipeline)
    assert log.entries == [("on_ledger", result.ledger), ("at close", result.ledger)]
    assert result.ledger.balanced


def test_an_error_of_on_ledger_is_an_error_and_the_sinks_close_all_the_same(start):
    def refuse(snapshot):
        raise OSError("no")

    sink = FakeSink("sink")
    assert failure(start, Pipeline([FakeSource("a", 2)], [], [sink], on_ledger=refuse)).stage == "on_ledger"
    assert sink.log.of("closed") == [("sink",)]


# P3, P4: stop and cancel


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
def test_signal_handlers_run_while_the_main_thread_is_in_run():
    pipeline = Pipeline([FakeSource("a", [5, lambda: os.kill(os.getpid(), signal.SIGUSR1), "until interrupted"])], [], [FakeSink("k")])
    before = signal.signal(signal.SIGUSR1, lambda number, frame: pipeline.stop())
    try:
        result = pipeline.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert result.stopped
    assert result.ledger.total == SourceLedger(5, 5, {})


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


# P5: closing


def test_p5_what_opened_is_closed_once_in_reverse(start):
    log = Log()
    stages = [[FakeStage("s1", log), FakeStage("s2", log)], [FakeStage("s3", log)]]
    run(start, Pipeline([FakeSource("a", 5, log=log)], stages, [FakeSink("k1", log), FakeSink("k2", log)]))
    assert [name for (name,) in log.of("closed")] == ["a", "k2", "k1", "s3", "s2", "s1"]
    assert sorted(log.of("opened")) == [("s1",), ("s2",), ("s3",)]


# Stats


def test_stats_name_the_bottleneck_and_show_what_everyone_waits_for(start, eventually):
    entered, may_go = threading.Event(), threading.Event()

    def hang(item):
        entered.set()
        assert may_go.wait(20)

    pipeline = Pipeline([FakeSource("a", 40)], [[FakeStage("detect")], [FakeStage("track", on_item=hang)]], [FakeSink("video")])
    before = pipeline.stats()
    assert (before.elapsed_s, before.bottleneck) == (0.0, None)
    running = start(pipeline.run)
    assert entered.wait(20)
    # One in track, two in its channel, one in detect, eight in the lane, one in hand.
    eventually(lambda: pipeline.ledger.snapshot().total.decoded == 13)
    eventually(lambda: pipeline.stats().lanes["a"].waiting == 1)
    eventually(lambda: pipeline.stats().channels["track"].waiting_senders == 1)
    stats = pipeline.stats()
    assert stats.channels["track"].depth == 2
    eventually(lambda: pipeline.stats().channels["video"].waiting_receivers == 1)
    assert stats.lanes["a"].depth == 8
    may_go.set()
    stats = running.result(20).stats
    assert stats.bottleneck == "track"
    assert stats.stages["track"].frames == stats.sinks["video"].frames == stats.sources["a"].frames == 40
    assert stats.stages["detect"].blocked_s > 0
    assert stats.sinks["video"].starved_s > 0
    assert stats.elapsed_s > 0


# Whatever happens


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sources=st.lists(
        st.tuples(st.booleans(), st.integers(0, 30), st.sampled_from(["end", "raise", "failed", "lost"])), min_size=1, max_size=3
    ),
    fault=st.sampled_from([None, None, "s1", "s2", "k1", "k2 best effort", "stop", "cancel", "open s2", "close k1"]),
    at=st.integers(0, 20),
    max_batch=st.integers(1, 4),
    capacity=st.integers(1, 3),
)
def test_p1_p2_p5_and_the_ledger_hold_whatever_fails_wherever(start, sources, fault, at, max_batch, capacity):
    log = Log()
    seen = []

    def act(where):
        def on_item(item):
            if where == "s1":
                seen.append(item)
                if len(seen) == at + 1 and fault in ("stop", "cancel"):
                    getattr(pipeline, fault)()
            if where == fault and item.index == at:
                raise OSError(where)

        return on_item

    def refuse(what):
        def call():
            if fault == what:
                raise OSError(what)

        return call

    def write(where):
        return lambda batch: [act(where)(item) for item in batch.frames]

    ends = {"end": [], "raise": [OSError("source")], "failed": ["failed"], "lost": ["lost", 2]}
    fakes = [FakeSource(f"src{n}", [frames, *ends[end]], live, log) for n, (live, frames, end) in enumerate(sources)]
    stages = [[FakeStage("s1", log, act("s1"))], [FakeStage("s2", log, act("s2"), on_open=refuse("open s2"))]]
    sinks = [
        FakeSink("k1", log, on_write=write("k1"), on_close=refuse("close k1")),
        FakeSink("k2", log, best_effort=True, on_write=write("k2 best effort")),
    ]
    pipeline = Pipeline(fakes, stages, sinks, max_batch=max_batch, max_wait_s=0.001, channel_capacity=capacity)
    running = start(pipeline.run)
    error = running.exception(30)
    ledger = pipeline.ledger.snapshot()
    assert ledger.balanced
    closed = [name for (name,) in log.of("closed")]
    assert len(closed) == len(set(closed))
    assert set(closed) >= {"k1", "k2"}
    assert {name for name in closed if name in ("s1", "s2")} == {name for (name,) in log.of("opened")}
    order = [name for name in closed if not name.startswith("src")]
    assert order == [name for name in ("k2", "k1", "s2", "s1") if name in order]
    assert threads_named("s1", "s2", "k1", "k2", *(fake.name for fake in fakes)) == []
    if error is not None:
        assert isinstance(error, StageError)
        assert error.stage == (fault or "").split()[-1]
        return
    result = running.result()
    assert set(result.ledger.total.dropped) <= {"evicted", "stale"} | ({"discarded"} if fault == "cancel" else set())
    if fault not in ("stop", "cancel"):
        assert set(result.failures) == {fake.name for fake, (_, _, end) in zip(fakes, sources, strict=True) if end in ("raise", "failed")}
    if not result.cancelled:
        assert sorted(end.source for end in sinks[0].ended if end.final) == sorted(fake.name for fake in fakes)
        assert result.ledger.total.shown == len(sinks[0].items)
