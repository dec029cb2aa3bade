"""P1: `run()` returns after every thread is joined; whole runs, what they are made of and what they say of themselves."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from flow_fakes import FakeSink, FakeSource, FakeStage, Log, fail_at, failure, run, threads_named
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import StageError
from pipeline.flow.graph import Pipeline
from pipeline.flow.ledger import SourceLedger


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


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="POSIX signals")
def test_after_an_exception_from_a_signal_handler_the_books_are_settled_when_every_thread_has_done_its_work():
    writing, may_write, done, settled = threading.Event(), threading.Event(), [], []

    def write(batch):
        writing.set()
        assert may_write.wait(20)
        done.append("written")

    def interrupt(number, frame):
        raise KeyboardInterrupt

    source = FakeSource("a", [1, lambda: writing.wait(20), lambda: os.kill(os.getpid(), signal.SIGUSR1)])
    source.script += [lambda: source.interrupted.wait(20), may_write.set]
    pipeline = Pipeline([source], [], [FakeSink("k", on_write=write)], on_ledger=lambda ledger: settled.extend(done))
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            pipeline.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert settled == ["written"]
