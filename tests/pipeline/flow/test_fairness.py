"""M3 of the design: sources share batches fairly whatever their rates, and one that stalls or dies delays nobody."""

from __future__ import annotations

import queue
import threading
from collections import Counter

import pytest
from flow_fakes import FakeSink, FakeStage, Item
from hypothesis import given, settings
from hypothesis import strategies as st
from mux_lanes import fill, indexes, make

from pipeline.flow.batch import Ended
from pipeline.flow.channel import ChannelTimeout
from pipeline.flow.graph import Pipeline
from pipeline.flow.scope import ManualClock

# At the mux


@settings(max_examples=40, deadline=None)
@given(lanes=st.integers(1, 5), max_batch=st.integers(1, 7), batches=st.integers(1, 12), live=st.booleans())
def test_m3_lanes_that_are_always_ready_differ_by_one_at_most(lanes, max_batch, batches, live):
    mux, clock, _ = make(max_batch=max_batch)
    all_lanes = [mux.add_lane(f"s{n}", live, capacity=max_batch) for n in range(lanes)]
    for _ in range(batches):
        for lane in all_lanes:
            while lane.stats().depth < max_batch:
                fill(lane, lane.stats().offered)
        assert len(mux.take().frames) == max_batch
        taken = [lane.stats().taken for lane in all_lanes]
        assert max(taken) - min(taken) <= 1
    assert clock.now() == 0


def test_m3_a_lane_with_nothing_does_not_hold_up_the_others():
    mux, clock, _ = make(max_batch=2)
    busy, idle = mux.add_lane("busy", live=False, capacity=8), mux.add_lane("idle", live=False, capacity=8)
    fill(busy, *range(6))
    assert [indexes(mux.take(timeout=0)) for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert idle.stats().taken == 0
    assert clock.now() == 0


def offer(lane, count):
    fill(lane, *range(lane.stats().offered, lane.stats().offered + count))


def test_m3_cameras_at_rates_of_1_2_and_5_get_a_third_each_and_only_the_fast_ones_drop():
    mux, clock, _ = make(max_batch=3, max_wait_s=9)
    lanes = [mux.add_lane(f"rate{rate}", live=True, capacity=2) for rate in (1, 2, 5)]
    for _ in range(20):
        for lane, rate in zip(lanes, (1, 2, 5), strict=True):
            offer(lane, rate)
        assert [item.source for item in sorted(mux.take(timeout=0).frames, key=lambda item: item.source)] == ["rate1", "rate2", "rate5"]
    assert [lane.stats().taken for lane in lanes] == [20, 20, 20]
    assert [lane.stats().dropped for lane in lanes] == [{}, {"evicted": 19}, {"evicted": 79}]
    assert clock.now() == 0


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(st.integers(0, 5), min_size=2, max_size=4),
    capacity=st.integers(1, 3),
    max_batch=st.integers(1, 6),
    takes=st.integers(1, 3),
    live=st.booleans(),
)
def test_m3_whoever_has_something_waits_at_most_one_round_whatever_the_rates(rates, capacity, max_batch, takes, live):
    mux, clock, _ = make(max_batch=max_batch, max_wait_s=0)
    lanes = {f"s{n}": mux.add_lane(f"s{n}", live, capacity) for n in range(len(rates))}
    passed_over = {name: Counter() for name in lanes}  # by whom, since its oldest frame has been the next
    for _ in range(12):
        for (name, lane), rate in zip(lanes.items(), rates, strict=True):
            offer(lane, rate if live else min(rate, capacity - lane.stats().depth))
            assert live or lane.stats().dropped == {}, name
        for _ in range(takes):
            depth = {name: lane.stats().depth for name, lane in lanes.items()}
            if not any(depth.values()):
                break
            for item in mux.take(timeout=0).frames:
                for name in lanes:
                    if name == item.source:
                        depth[name] -= 1
                        passed_over[name].clear()
                    elif depth[name]:
                        passed_over[name][item.source] += 1
                        assert passed_over[name][item.source] == 1
    assert clock.now() == 0


def test_m5_a_camera_that_stalls_costs_the_others_max_wait_and_no_frame():
    mux, clock, _ = make(max_batch=4, max_wait_s=0.5, max_age_s=1.0)
    steady, stalling = mux.add_lane("steady", live=True, capacity=2), mux.add_lane("stalling", live=True, capacity=2)
    fill(steady, 0)
    fill(stalling, 0)
    assert len(mux.take(timeout=0).frames) == 2
    for index in range(1, 10):
        fill(steady, index)
        with pytest.raises(ChannelTimeout):
            mux.take(timeout=0)
        clock.advance(0.5)
        assert indexes(mux.take(timeout=0), "steady") == [index]
    stalling.end(Ended("stalling", 0, "lost", final=False))
    assert indexes(mux.take(timeout=0)) == []
    came = clock.now()
    fill(steady, 10)
    assert indexes(mux.take(timeout=0)) == [10]
    assert clock.now() == came
    assert steady.stats().dropped == {}


def test_m5_with_batches_of_one_a_camera_that_stalls_costs_nothing():
    mux, clock, _ = make(max_batch=1, max_wait_s=9)
    steady, stalling = mux.add_lane("steady", live=True, capacity=2), mux.add_lane("stalling", live=True, capacity=2)
    fill(stalling, 0)
    assert len(mux.take(timeout=0).frames) == 1
    for index in range(5):
        fill(steady, index)
        assert indexes(mux.take(timeout=0)) == [index]
    assert clock.now() == 0


# In a whole run


class Fed:
    """A camera that gives what the test puts in: items by number, an Ended, an exception to raise; None ends it."""

    live, state = True, "RUNNING"

    def __init__(self, name, clock):
        self.name, self.clock = name, clock
        self.things = queue.SimpleQueue()
        self.given = 0

    def give(self, count=1):
        for _ in range(count):
            self.things.put(Item(self.name, self.given, 0, self.clock.now()))
            self.given += 1

    def frames(self):
        for thing in iter(self.things.get, None):
            if isinstance(thing, BaseException):
                raise thing
            yield thing

    def interrupt(self):
        self.things.put(None)


class Run:
    """A pipeline of fed cameras on a manual clock; every camera has delivered its first frame."""

    def __init__(self, start, eventually, stage, **options):
        self.clock, self.sink, self.eventually = ManualClock(), FakeSink("sink"), eventually
        self.cameras = [Fed(name, self.clock) for name in "abc"]
        self.pipeline = Pipeline(self.cameras, [[stage]], [self.sink], clock=self.clock, max_age_s=None, **options)
        self.running = start(self.pipeline.run)
        self.give(1, 1, 1)

    def give(self, *counts):
        for camera, count in zip(self.cameras, counts, strict=False):
            camera.give(count)
        self.eventually(lambda: [lane.offered for lane in self.pipeline.stats().lanes.values()] == [c.given for c in self.cameras])

    def shown(self, *counts):
        """Wait until the sink has so many of each camera."""
        self.eventually(lambda: [len(self.sink.indexes(name)) for name in "abc"] == list(counts))

    def stop(self):
        self.pipeline.stop()
        return self.running.result(20)


class Gate(FakeStage):
    """Lets a batch pass for each permit."""

    def __init__(self):
        super().__init__("gate")
        self.permits, self.batches = threading.Semaphore(0), []

    def process(self, batch):
        self.batches.append(batch)
        assert self.permits.acquire(timeout=20)
        return batch


def test_m3_in_a_run_that_is_too_slow_cameras_at_rates_of_1_2_and_5_get_a_third_each(start, eventually):
    gate = Gate()
    run = Run(start, eventually, gate, max_batch=3, max_wait_s=9, live_lane=2)
    eventually(lambda: len(gate.batches) == 1)  # of whoever was there first; the rest waits in the lanes
    for number in range(2, 22):
        run.give(1, 2, 5)
        gate.permits.release()
        eventually(lambda number=number: len(gate.batches) == number)
        assert sorted(item.source for item in gate.batches[-1].frames) == ["a", "b", "c"]
    gate.permits.release(100)
    ledger = run.stop().ledger
    # Nobody was ever given a second frame while another had one; the slow camera lost nothing but what its first frame displaced.
    assert ledger.sources["a"].dropped.get("evicted", 0) <= 1
    assert ledger.sources["c"].dropped["evicted"] >= 4 * 20 - 2
    assert run.clock.now() == 0


@pytest.mark.parametrize("how", ["raises", "ends", "is lost"])
def test_a_camera_that_dies_delays_nobody(start, eventually, how):
    run = Run(start, eventually, FakeStage("stage"), max_batch=4, max_wait_s=9)
    run.clock.advance(9)
    run.shown(1, 1, 1)
    run.cameras[2].things.put({"raises": OSError("unplugged"), "ends": None, "is lost": Ended("c", 0, "lost", final=False)}[how])
    eventually(lambda: len(run.sink.ended) == 1)
    for count in range(2, 12):
        run.give(1, 1)
        run.shown(count, count, 1)
    assert run.clock.now() == 9  # nothing waited for time to pass
    result = run.stop()
    assert result.failures == ({"c": "unplugged"} if how == "raises" else {})
    assert result.ledger.total.dropped == {}


def test_a_camera_that_stalls_delays_the_others_by_max_wait_and_is_back_when_it_is_back(start, eventually):
    run = Run(start, eventually, FakeStage("stage"), max_batch=4, max_wait_s=0.5)
    run.clock.advance(0.5)
    run.shown(1, 1, 1)
    for count in range(2, 12):
        run.give(1, 1)
        run.clock.advance(0.5)
        run.shown(count, count, 1)
    before = run.clock.now()
    run.give(1, 1, 1)
    run.shown(12, 12, 2)
    assert run.clock.now() == before
    assert run.stop().ledger.total.dropped == {}
