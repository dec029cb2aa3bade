"""P5: what opened is closed once, in reverse, on its own thread, and after the ledger is settled."""

from __future__ import annotations

import threading

import pytest
from flow_fakes import FakeSink, FakeSource, FakeStage, Item, Log, fail_at, run

from pipeline.flow.batch import Ended
from pipeline.flow.graph import Pipeline


def test_p5_what_opened_is_closed_once_in_reverse(start):
    log = Log()
    stages = [[FakeStage("s1", log), FakeStage("s2", log)], [FakeStage("s3", log)]]
    run(start, Pipeline([FakeSource("a", 5, log=log)], stages, [FakeSink("k1", log), FakeSink("k2", log)]))
    assert [name for (name,) in log.of("closed")] == ["a", "k2", "k1", "s3", "s2", "s1"]
    assert sorted(log.of("opened")) == [("s1",), ("s2",), ("s3",)]


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
