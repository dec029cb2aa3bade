"""M1–M6 of the design under any sequence of calls, and whatever the threads do."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from mux_lanes import Item, holds_m1, make

from pipeline.flow.batch import Ended
from pipeline.flow.channel import ChannelTimeout, ClosedChannel, EndOfChannel
from pipeline.flow.ledger import Ledger
from pipeline.flow.mux import Mux
from pipeline.flow.scope import MonotonicClock, Scope


class MuxMachine(RuleBasedStateMachine):
    """Any sequence of offers, ends, takes and time, none of which waits."""

    @initialize(
        lanes=st.lists(st.tuples(st.booleans(), st.integers(1, 3)), min_size=1, max_size=3),
        max_batch=st.integers(1, 5),
        max_age_s=st.sampled_from([None, 1.0, 3.0]),
    )
    def build(self, lanes, max_batch, max_age_s):
        self.mux, self.clock, _ = make(max_batch=max_batch, max_wait_s=2.0, max_age_s=max_age_s)
        self.max_batch, self.max_age_s = max_batch, max_age_s
        self.lanes = [self.mux.add_lane(f"{'cam' if live else 'file'}{n}", live, capacity) for n, (live, capacity) in enumerate(lanes)]
        self.sent = {lane.source: [] for lane in self.lanes}  # items and ends, in order
        self.got = {lane.source: [] for lane in self.lanes}
        self.over = set()

    def lane(self, number):
        return self.lanes[number % len(self.lanes)]

    @rule(number=st.integers(0, 2), age=st.sampled_from([0.0, 0.0, 0.5, 2.0]))
    def offer(self, number, age):
        lane = self.lane(number)
        item = Item(lane.source, len(self.sent[lane.source]), lane.epoch, self.clock.now() - age)
        before = lane.stats()
        if lane.source in self.over:
            with pytest.raises(ClosedChannel):
                lane.offer(item, timeout=0)
        elif not lane.live and before.depth == lane.capacity:
            with pytest.raises(ChannelTimeout):
                lane.offer(item, timeout=0)
            assert lane.stats() == before
        else:
            lane.offer(item, timeout=0)
            self.sent[lane.source].append(item)

    @rule(number=st.integers(0, 2), final=st.sampled_from([False, False, True]))
    def end(self, number, final):
        lane = self.lane(number)
        if lane.source in self.over:
            return
        ended = Ended(lane.source, lane.epoch, "why", final=final)
        lane.end(ended)
        self.sent[lane.source].append(ended)
        if final:
            self.over.add(lane.source)

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.0]))
    def advance(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def take(self):
        waiting = [item for lane in self.lanes for _, item in lane._entries]
        try:
            batch = self.mux.take(timeout=0)
        except ChannelTimeout:
            # There is no end to tell by itself, no full batch, and no frame has waited long.
            assert not any(lane._entries and isinstance(lane._entries[0][1], Ended) for lane in self.lanes) or any(
                lane._front for lane in self.lanes
            )
            assert sum(lane._front for lane in self.lanes) < self.max_batch
            frames = [came for lane in self.lanes for came, thing in lane._entries if isinstance(thing, Item)]
            assert all(self.clock.now() - came < 2.0 for came in frames)
            return
        except EndOfChannel:
            assert len(self.over) == len(self.lanes)
            assert not waiting
            return
        assert batch
        assert len(batch.frames) <= self.max_batch
        assert len({end.source for end in batch.ended}) == len(batch.ended)
        for item in batch.frames:
            if item.source.startswith("cam") and self.max_age_s is not None:
                assert self.clock.now() - item.captured_at <= self.max_age_s
        for thing in (*batch.frames, *batch.ended):
            self.got[thing.source].append(thing)
        for lane in self.lanes:
            assert len({thing.epoch for thing in (*batch.frames, *batch.ended) if thing.source == lane.source}) <= 1

    @precondition(lambda self: any(lane.stats().depth for lane in self.lanes))
    @rule()
    def whatever_is_fresh_leaves_after_max_wait(self):
        self.clock.advance(2.0)
        now = self.clock.now()
        fresh = [
            item
            for lane in self.lanes
            for _, item in lane._entries
            if not lane.live or self.max_age_s is None or now - getattr(item, "captured_at", now) <= self.max_age_s
        ]
        if fresh:
            before = sum(len(got) for got in self.got.values())
            self.take()
            assert sum(len(got) for got in self.got.values()) > before

    @invariant()
    def m1_m2_m4(self):
        for lane in getattr(self, "lanes", []):
            stats = lane.stats()
            assert holds_m1(stats)
            assert stats.depth <= lane.capacity
            sent, got = self.sent[lane.source], self.got[lane.source]
            if not lane.live:
                assert stats.dropped == {}
                assert got == sent[: len(got)]
            positions = [sent.index(thing) for thing in got]
            assert positions == sorted(set(positions))
            ends_sent = [thing for thing in sent[: positions[-1] + 1] if isinstance(thing, Ended)] if positions else []
            assert [thing for thing in got if isinstance(thing, Ended)] == ends_sent  # each end, once, at its place
            booked = self.mux._ledger.snapshot().sources.get(lane.source)
            assert (booked.dropped if booked else {}) == stats.dropped

    def teardown(self):
        for lane in getattr(self, "lanes", []):
            if lane.source not in self.over:
                self.end(self.lanes.index(lane), True)
        while getattr(self, "lanes", []):
            self.clock.advance(2.0)
            try:
                batch = self.mux.take(timeout=0)
            except EndOfChannel:
                break
            for thing in (*batch.frames, *batch.ended):
                self.got[thing.source].append(thing)
        for lane in getattr(self, "lanes", []):
            assert lane.stats().depth == 0
            assert self.got[lane.source][-1].final
            assert lane.stats().offered == lane.stats().taken + sum(lane.stats().dropped.values())


class TestAnySequenceOfCalls(MuxMachine.TestCase):
    settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@settings(max_examples=25, deadline=None)
@given(
    plan=st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=4),
    max_batch=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_m1_to_m6_hold_whatever_the_threads_do(plan, max_batch, seed):
    scope = Scope(MonotonicClock())
    mux = Mux(scope, scope.clock, max_batch, 0.001, None, Ledger())
    lanes = [mux.add_lane(f"{'cam' if live else 'file'}{n}", live, 2) for n, (live, _, _) in enumerate(plan)]

    def read(lane, frames, reconnects):
        chance = random.Random(seed)
        epoch = 0
        for index in range(frames):
            if reconnects and lane.is_open and chance.random() < 0.2:
                lane.end(Ended(lane.source, epoch, "lost", final=False))
                epoch, reconnects = epoch + 1, reconnects - 1
            lane.offer(Item(lane.source, index, epoch))
        lane.end(Ended(lane.source, epoch, "over", final=True))

    threads = [
        threading.Thread(target=read, args=(lane, frames, reconnects), daemon=True)
        for lane, (_, frames, reconnects) in zip(lanes, plan, strict=True)
    ]
    for thread in threads:
        thread.start()
    got = {lane.source: [] for lane in lanes}
    while True:
        try:
            batch = mux.take(timeout=20)
        except EndOfChannel:
            break
        assert batch
        assert len(batch.frames) <= max_batch
        for thing in (*batch.frames, *batch.ended):
            got[thing.source].append(thing)
    for lane, (live, frames, _), thread in zip(lanes, plan, threads, strict=True):
        thread.join(20)
        stats = lane.stats()
        assert holds_m1(stats)
        assert (stats.offered, stats.depth) == (frames, 0)
        items = [thing.index for thing in got[lane.source] if isinstance(thing, Item)]
        assert items == sorted(set(items))
        if live:
            assert not frames or items[-1] == frames - 1  # the newest survives
        else:
            assert items == list(range(frames))
        assert got[lane.source][-1].final
        epochs = [thing.epoch for thing in got[lane.source]]
        assert epochs == sorted(epochs)
