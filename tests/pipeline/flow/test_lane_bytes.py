"""M2 in bytes: a file's lane holds so many, whatever its capacity in frames; a live one does not count them."""

from __future__ import annotations

import pytest
from flow_fakes import FakeSource
from mux_lanes import Item, fill, indexes, make

from pipeline.flow.batch import Ended
from pipeline.flow.channel import ChannelTimeout
from pipeline.flow.graph import Pipeline


def offer(lane, nbytes, count):
    for index in range(count):
        item = Item(lane.source, index)
        item.nbytes = nbytes
        lane.offer(item, timeout=0)


def test_m2_a_file_lane_holds_so_many_bytes_and_a_few_frames_however_large():
    mux, _, _ = make(max_batch=16)
    small, large, plain = (mux.add_lane(name, live=False, capacity=16, most_bytes=100) for name in ("small", "large", "plain"))
    offer(small, 10, 10)  # the tenth fills it
    offer(large, 1000, 4)  # each is too much, but a few have to be let in
    for lane, nbytes in ((small, 10), (large, 1000)):
        with pytest.raises(ChannelTimeout):
            offer(lane, nbytes, 1)
    fill(plain, 0, 1)
    batch = mux.take()
    assert [len(indexes(batch, name)) for name in ("small", "large", "plain")] == [10, 4, 2]
    offer(small, 10, 10)  # what left makes room again
    offer(large, 1000, 4)


def test_m2_a_batch_leaves_when_its_only_file_has_no_room_for_more_bytes():
    mux, _, _ = make(max_batch=16, max_wait_s=60.0)
    lane = mux.add_lane("file", live=False, capacity=16, most_bytes=1)
    offer(lane, 1000, 4)
    assert indexes(mux.take(timeout=0)) == [0, 1, 2, 3]


def test_m2_nor_does_it_wait_for_files_that_have_not_begun_or_are_over():
    mux, _, _ = make(max_batch=16, max_wait_s=60.0)
    lane, over, _ = (mux.add_lane(name, live=False, capacity=16, most_bytes=1) for name in ("file", "over", "to come"))
    over.end(Ended("over", 0, "end of file", final=True))
    mux.take(timeout=0)
    offer(lane, 1000, 4)
    assert indexes(mux.take(timeout=0)) == [0, 1, 2, 3]


def test_m2_a_live_lane_is_not_bounded_in_bytes():
    mux, _, _ = make()
    lane = mux.add_lane("cam", live=True, capacity=6, most_bytes=1)
    offer(lane, 1000, 6)
    assert (lane.stats().depth, lane.stats().dropped) == (6, {})


def test_the_bytes_of_files_are_shared_out_among_their_lanes():
    pipeline = Pipeline([FakeSource("a"), FakeSource("b"), FakeSource("cam", live=True)], [], [], file_bytes=100)
    assert [lane._most_bytes for lane in pipeline._mux._lanes] == [50, 50, float("inf")]
