"""M1, M2 and M4–M6 of the design; M3 is in test_fairness."""

from __future__ import annotations

import pytest
from mux_lanes import Item, fill, holds_m1, indexes, make

from pipeline.flow.batch import Ended
from pipeline.flow.channel import BrokenChannel, ChannelTimeout, ClosedChannel, EndOfChannel
from pipeline.flow.scope import Cancelled

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


def test_m5_a_camera_that_is_back_but_whose_end_is_still_here_makes_nobody_wait():
    """Its frames are of the next epoch, and so of a later batch."""
    mux, _, _ = make(max_wait_s=60.0)
    first, second = mux.add_lane("a", live=True, capacity=2), mux.add_lane("b", live=True, capacity=2)
    fill(first, 0)
    fill(second, 0)
    mux.take(timeout=0)
    second.end(Ended("b", 0, "lost", final=False))
    second.offer(Item("b", 1, epoch=1))
    fill(first, 1)
    batch = mux.take(timeout=0)
    assert ([(item.source, item.index) for item in batch.frames], [end.source for end in batch.ended]) == ([("a", 1)], ["b"])


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
