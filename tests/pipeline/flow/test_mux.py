"""M1–M6 of the design."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.flow.batch import Ended
from pipeline.flow.channel import BrokenChannel, ChannelTimeout, ClosedChannel, EndOfChannel
from pipeline.flow.ledger import Ledger
from pipeline.flow.mux import Mux
from pipeline.flow.scope import Cancelled, ManualClock, MonotonicClock, Scope


@dataclass(eq=False)
class Item:
    source: str
    index: int
    epoch: int = 0
    captured_at: float = 0.0


def make(max_batch=4, max_wait_s=0.1, max_age_s=None):
    clock = ManualClock()
    scope = Scope(clock)
    return Mux(scope, clock, max_batch, max_wait_s, max_age_s, Ledger()), clock, scope


def fill(lane, *indexes, epoch=0):
    for index in indexes:
        lane.offer(Item(lane.source, index, epoch, lane._mux._clock.now()), timeout=0)


def indexes(batch, source=None):
    return [item.index for item in batch.frames if source in (None, item.source)]


def holds_m1(stats):
    return stats.offered == stats.taken + sum(stats.dropped.values()) + stats.discarded + stats.depth


# M1 and M2: what is dropped, and where


def test_m2_a_full_live_lane_evicts_its_oldest_frame_and_books_it():
    mux, _, _ = make()
    lane = mux.add_lane("cam", live=True, capacity=2)
    fill(lane, 0, 1, 2, 3)
    assert indexes(mux.take()) == [2, 3]
    assert lane.stats().dropped == {"evicted": 2}
    assert mux._ledger.snapshot().sources["cam"].dropped == {"evicted": 2}
    assert holds_m1(lane.stats())


def test_m2_a_full_file_lane_blocks_its_reader_until_there_is_room(start, eventually):
    mux, _, _ = make(max_batch=1)
    lane = mux.add_lane("file", live=False, capacity=2)
    fill(lane, 0, 1)
    third = start(lane.offer, Item("file", 2))
    eventually(lambda: lane.stats().waiting == 1)
    assert lane.stats().depth == 2
    assert indexes(mux.take()) == [0]
    third.result(10)
    assert [indexes(mux.take()), indexes(mux.take())] == [[1], [2]]
    assert lane.stats().dropped == {}


def test_m2_a_frame_older_than_max_age_is_never_handed_on_and_the_newest_survives():
    mux, clock, _ = make(max_age_s=1.0)
    lane = mux.add_lane("cam", live=True, capacity=3)
    fill(lane, 0)
    clock.advance(0.5)
    fill(lane, 1)
    clock.advance(0.75)
    fill(lane, 2)
    assert indexes(mux.take(timeout=0)) == [1, 2]
    assert lane.stats().dropped == {"stale": 1}
    fill(lane, 3)
    clock.advance(1.0)
    assert indexes(mux.take(timeout=0)) == [3]  # not older than max_age_s
    fill(lane, 4)
    clock.advance(1.25)
    with pytest.raises(ChannelTimeout):
        mux.take(timeout=0)
    assert lane.stats().dropped == {"stale": 2}
    assert mux._ledger.snapshot().sources["cam"].dropped == {"stale": 2}


def test_m2_a_frame_that_turns_stale_while_the_batch_waits_is_not_handed_on(start):
    mux, clock, _ = make(max_wait_s=2.0, max_age_s=1.0)
    first, second = mux.add_lane("a", live=True, capacity=2), mux.add_lane("b", live=True, capacity=2)
    fill(first, 0)
    fill(second, 0)
    mux.take(timeout=0)
    fill(first, 1)
    taking = start(mux.take)
    assert clock.wait_for_waiters(1)
    clock.advance(1.5)
    fill(second, 1)  # now both seem to have something, but what the first has is old: the wait for it goes on
    clock.advance(0.5)
    assert [(item.source, item.index) for item in taking.result(10).frames] == [("b", 1)]
    assert first.stats().dropped == {"stale": 1}


def test_m2_a_stale_frame_is_found_wherever_it_lies_and_those_around_it_stay():
    mux, _, _ = make(max_batch=8, max_age_s=1.0)
    lane = mux.add_lane("cam", live=True, capacity=4)
    fill(lane, 0)
    lane.end(Ended("cam", 0, "lost", final=False))
    lane.offer(Item("cam", 1, epoch=1, captured_at=-2.0))
    fill(lane, 2, epoch=1)
    assert [indexes(mux.take(timeout=0)), indexes(mux.take(timeout=0))] == [[0], [2]]
    assert lane.stats().dropped == {"stale": 1}


def test_m1_files_never_go_stale():
    mux, clock, _ = make(max_age_s=1.0)
    lane = mux.add_lane("file", live=False, capacity=2)
    fill(lane, 0)
    clock.advance(100)
    assert indexes(mux.take()) == [0]


def test_m1_closing_the_mux_discards_and_counts_and_breaks_the_sources(start, eventually):
    mux, _, _ = make()
    file, cam = mux.add_lane("file", live=False, capacity=1), mux.add_lane("cam", live=True, capacity=2)
    fill(file, 0)
    fill(cam, 0, 1, 2)
    blocked = start(file.offer, Item("file", 1))
    eventually(lambda: file.stats().waiting == 1)
    mux.close()
    mux.close()
    assert isinstance(blocked.exception(10), BrokenChannel)
    with pytest.raises(BrokenChannel):
        cam.offer(Item("cam", 3))
    with pytest.raises(BrokenChannel):
        cam.end(Ended("cam", 0, "late", final=True))
    with pytest.raises(ClosedChannel):
        mux.take()
    assert file.stats().discarded == 1
    assert cam.stats().discarded == 2
    assert holds_m1(file.stats())
    assert holds_m1(cam.stats())


# M3: fairness


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


# M4: ends


def test_m4_an_end_is_never_evicted_and_comes_after_the_last_frame_of_its_epoch():
    mux, _, _ = make()
    lane = mux.add_lane("cam", live=True, capacity=2)
    fill(lane, 0, 1)
    lane.end(Ended("cam", 0, "lost", final=False))
    fill(lane, 2, 3, 4, epoch=1)  # evicts all of epoch 0, and one of its own
    first, second = mux.take(), mux.take()
    assert (indexes(first), [end.epoch for end in first.ended]) == ([], [0])
    assert (indexes(second), second.ended) == ([3, 4], [])
    assert lane.stats().dropped == {"evicted": 3}


def test_m4_the_next_epoch_starts_in_a_later_batch():
    mux, _, _ = make(max_batch=8)
    lane = mux.add_lane("cam", live=True, capacity=8)
    fill(lane, 0, 1)
    lane.end(Ended("cam", 0, "lost", final=False))
    lane.end(Ended("cam", 1, "lost again", final=False))
    fill(lane, 2, epoch=2)
    batches = [mux.take(timeout=0) for _ in range(3)]
    assert [(indexes(batch), [end.epoch for end in batch.ended]) for batch in batches] == [([0, 1], [0]), ([], [1]), ([2], [])]


def test_m4_an_end_leaves_with_the_last_frame_even_of_a_full_batch():
    mux, _, _ = make(max_batch=2)
    lane = mux.add_lane("file", live=False, capacity=4)
    fill(lane, 0, 1)
    lane.end(Ended("file", 0, "end of file", final=True))
    batch = mux.take()
    assert (indexes(batch), len(batch.ended)) == ([0, 1], 1)


def test_m4_an_end_needs_no_room():
    mux, _, _ = make()
    lane = mux.add_lane("file", live=False, capacity=1)
    fill(lane, 0)
    lane.end(Ended("file", 0, "end of file", final=True))
    assert len(mux.take().ended) == 1


def test_m4_a_source_that_breaks_the_order_of_epochs_is_told():
    mux, _, _ = make()
    lane = mux.add_lane("cam", live=True, capacity=4)
    fill(lane, 0)
    with pytest.raises(ValueError, match="before the Ended of epoch 0"):
        fill(lane, 1, epoch=1)
    with pytest.raises(ValueError, match="something of other"):
        lane.offer(Item("other", 0))
    lane.end(Ended("cam", 0, "lost", final=False))
    with pytest.raises(ValueError, match="epoch 0 has ended"):
        fill(lane, 1)
    with pytest.raises(ValueError, match="epoch 0 has ended"):
        lane.end(Ended("cam", 0, "lost", final=False))
    assert (lane.epoch, lane.is_open) == (1, False)
    lane.end(Ended("cam", 1, "gone", final=True))
    with pytest.raises(ClosedChannel):
        fill(lane, 2, epoch=2)
    with pytest.raises(ClosedChannel):
        lane.end(Ended("cam", 2, "gone", final=True))


# M5: when a batch leaves


def test_m5_a_full_batch_leaves_at_once():
    mux, clock, _ = make(max_batch=2, max_wait_s=9)
    lane = mux.add_lane("file", live=False, capacity=8)
    fill(lane, 0)
    with pytest.raises(ChannelTimeout):
        mux.take(timeout=0)
    fill(lane, 1)
    assert indexes(mux.take(timeout=0)) == [0, 1]
    assert clock.now() == 0


def test_m5_a_batch_leaves_when_every_open_live_lane_has_contributed(start):
    mux, clock, _ = make(max_batch=8, max_wait_s=9)
    first, second = mux.add_lane("a", live=True, capacity=2), mux.add_lane("b", live=True, capacity=2)
    file = mux.add_lane("file", live=False, capacity=8)
    for lane in (first, second, file):
        fill(lane, 0)
    assert len(mux.take(timeout=0).frames) == 3
    fill(first, 1)
    fill(file, 1)
    taking = start(mux.take)
    assert clock.wait_for_waiters(1)
    assert not taking.done()
    fill(second, 1)
    assert len(taking.result(10).frames) == 3
    assert clock.now() == 0


def test_m5_a_batch_leaves_max_wait_after_its_first_frame_even_if_that_frame_was_evicted(start):
    mux, clock, _ = make(max_batch=8, max_wait_s=1.0)
    first, second = mux.add_lane("a", live=True, capacity=1), mux.add_lane("b", live=True, capacity=1)
    fill(first, 0)
    fill(second, 0)
    mux.take(timeout=0)
    fill(first, 1)
    taking = start(mux.take)
    for index in (2, 3, 4):
        assert clock.wait_for_waiters(1)
        clock.advance(0.25)
        fill(first, index)
        assert not taking.done()
    assert clock.wait_for_waiters(1)
    clock.advance(0.25)
    assert indexes(taking.result(10)) == [4]


def test_m5_the_wait_counts_from_when_the_frame_came_not_from_when_someone_asked():
    mux, clock, _ = make(max_batch=2, max_wait_s=1.0)
    lane = mux.add_lane("file", live=False, capacity=8)
    fill(lane, 0, 1)
    clock.advance(0.5)
    fill(lane, 2)
    assert indexes(mux.take(timeout=0)) == [0, 1]
    clock.advance(0.5)
    with pytest.raises(ChannelTimeout):
        mux.take(timeout=0)
    clock.advance(0.5)
    assert indexes(mux.take(timeout=0)) == [2]


def test_m5_a_camera_that_is_away_makes_nobody_wait():
    mux, clock, _ = make(max_batch=8, max_wait_s=9)
    here, away, never = (mux.add_lane(name, live=True, capacity=2) for name in ("here", "away", "never"))
    fill(here, 0)
    fill(away, 0)
    away.end(Ended("away", 0, "lost", final=False))
    assert len(mux.take(timeout=0).frames) == 2
    fill(here, 1)
    assert indexes(mux.take(timeout=0)) == [1]
    assert never.stats().offered == 0
    assert clock.now() == 0


def test_m5_files_fill_up_to_max_batch_and_leave_when_no_lane_can_add():
    mux, clock, _ = make(max_batch=8, max_wait_s=9)
    first, second = mux.add_lane("a", live=False, capacity=2), mux.add_lane("b", live=False, capacity=2)
    fill(first, 0, 1)
    fill(second, 0)
    with pytest.raises(ChannelTimeout):
        mux.take(timeout=0)
    second.end(Ended("b", 0, "end of file", final=True))
    batch = mux.take(timeout=0)
    assert (indexes(batch, "a"), indexes(batch, "b"), len(batch.ended)) == ([0, 1], [0], 1)
    assert clock.now() == 0


def test_m5_a_batch_of_ends_alone_leaves_at_once():
    mux, _, _ = make(max_batch=8, max_wait_s=9)
    lane = mux.add_lane("a", live=True, capacity=2)
    mux.add_lane("b", live=True, capacity=2)
    lane.end(Ended("a", 0, "absent", final=True))
    assert len(mux.take(timeout=0).ended) == 1


# M6 and the usual ends


def test_m6_when_all_sources_have_finally_ended_there_is_the_end_for_ever(start, eventually):
    mux, _, _ = make()
    first, second = mux.add_lane("a", live=False, capacity=2), mux.add_lane("b", live=True, capacity=2)
    fill(first, 0)
    first.end(Ended("a", 0, "end of file", final=True))
    second.end(Ended("b", 0, "lost", final=False))
    assert len(mux.take().ended) == 2
    waiting = start(mux.take)
    eventually(lambda: mux.stats().waiting == 1)
    second.end(Ended("b", 1, "stopped", final=True))
    assert waiting.result(10).ended[0].epoch == 1
    for _ in range(2):
        with pytest.raises(EndOfChannel):
            mux.take()


def test_cancel_wakes_the_taker_and_the_blocked_readers(start, eventually):
    mux, _, scope = make(max_batch=8, max_wait_s=9)
    lane = mux.add_lane("file", live=False, capacity=1)
    taking = start(mux.take)
    eventually(lambda: mux.stats().waiting == 1)
    scope.cancel()
    assert isinstance(taking.exception(10), Cancelled)
    mux, _, scope = make()
    lane = mux.add_lane("file", live=False, capacity=1)
    fill(lane, 0)
    offering = start(lane.offer, Item("file", 1))
    eventually(lambda: lane.stats().waiting == 1)
    scope.cancel()
    assert isinstance(offering.exception(10), Cancelled)
    with pytest.raises(Cancelled):
        lane.offer(Item("file", 2))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="max_batch=0"):
        make(max_batch=0)
    mux, _, _ = make()
    with pytest.raises(ValueError, match="capacity=0"):
        mux.add_lane("a", live=True, capacity=0)
    mux.add_lane("a", live=True, capacity=1)
    with pytest.raises(ValueError, match="a has a lane already"):
        mux.add_lane("a", live=True, capacity=1)


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
