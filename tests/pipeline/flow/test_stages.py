"""S1–S4 of the design, over whole runs of simple stages."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import StageError
from pipeline.flow.batch import Batch, Ended
from pipeline.flow.graph import Pipeline


@dataclass(eq=False)
class Item:
    source: str
    index: int
    epoch: int = 0
    captured_at: float = 0.0
    notes: list = field(default_factory=list)


class Clip:
    """`lengths`: frames of each epoch."""

    state = "RUNNING"

    def __init__(self, name, *lengths, live=False):
        self.name, self.lengths, self.live = name, lengths, live

    def frames(self):
        index = 0
        for epoch, length in enumerate(self.lengths):
            for _ in range(length):
                yield Item(self.name, index, epoch)
                index += 1
            yield Ended(self.name, epoch, "over", final=epoch == len(self.lengths) - 1)

    def interrupt(self):
        pass


class Plain:
    lookahead = 0

    def __init__(self, name):
        self.name = name

    def open(self):
        pass

    def process(self, batch):
        return batch

    def close(self):
        pass


class Totals(Plain):
    """A running sum per (source, epoch), forgotten after its end: what a tracker is, in small."""

    def __init__(self, name):
        super().__init__(name)
        self.sums = Counter()

    def process(self, batch):
        for item in batch.frames:
            self.sums[item.source, item.epoch] += item.index
            item.notes.append((self.name, self.sums[item.source, item.epoch]))
        for end in batch.ended:
            end.added.append((self.name, self.sums.pop((end.source, end.epoch), 0)))
        return batch


class Ahead(Plain):
    """Holds back `lookahead` frames of each source, to note on each how many come after it: interpolation, in small."""

    def __init__(self, name, lookahead):
        super().__init__(name)
        self.lookahead = lookahead
        self.held = defaultdict(deque)

    def process(self, batch):
        out = []
        for item in batch.frames:
            held = self.held[item.source, item.epoch]
            held.append(item)
            if len(held) > self.lookahead:
                out.append(self.release(held))
        for end in batch.ended:
            held = self.held.pop((end.source, end.epoch), deque())
            while held:
                out.append(self.release(held))
        return Batch(out, batch.ended)

    def release(self, held):
        item = held.popleft()
        item.notes.append((self.name, len(held)))
        return item


class Keep:
    best_effort = False

    def __init__(self, name="keep"):
        self.name = name
        self.rows, self.ends, self.batches = defaultdict(list), defaultdict(list), []

    def write(self, batch):
        self.batches.append(batch)
        for item in batch.frames:
            self.rows[item.source].append((item.epoch, item.index, tuple(item.notes)))
        for end in batch.ended:
            self.ends[end.source].append((end.epoch, end.reason, end.final, tuple(end.added)))

    def close(self):
        pass


def stages(lookahead):
    return [[Totals("t")], [Ahead("a", lookahead), Totals("u")]]


def output(start, clips, lookahead=0, **options):
    keep, groups = Keep(), stages(lookahead)
    result = start(Pipeline(clips, groups, [keep], max_wait_s=0, **options).run).result(30)
    assert result.ledger.balanced
    return keep, groups


lengths = st.lists(st.integers(0, 12), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clips=st.lists(lengths, min_size=1, max_size=3), lookahead=st.integers(0, 5), max_batch=st.integers(1, 6))
def test_s1_same_frames_same_order_same_ends_whatever_is_held_back(start, clips, lookahead, max_batch):
    keep, _ = output(start, [Clip(f"c{n}", *c) for n, c in enumerate(clips)], lookahead, max_batch=max_batch)
    for n, clip in enumerate(clips):
        assert [row[1] for row in keep.rows[f"c{n}"]] == list(range(sum(clip)))
        assert [end[0] for end in keep.ends[f"c{n}"]] == list(range(len(clip)))
    for batch in keep.batches:  # an epoch's last frame is there before, or with, its end
        assert batch
        for end in batch.ended:
            assert all(item.epoch <= end.epoch for item in batch.frames if item.source == end.source)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("loses", "still holds frames"),
        ("swaps", "not the next one"),
        ("repeats", "not the next one"),
        ("invents", "not the next one"),
        ("hoards", "holds back 3 frames of c, 2 are allowed"),
        ("forgets the end", "which sources ended"),
        ("replaces the end", "which sources ended"),
    ],
)
def test_s1_a_stage_that_breaks_it_is_blamed(start, what, words):
    class Bad(Plain):
        lookahead = 2

        def __init__(self):
            super().__init__("bad")
            self.held = []

        def process(self, batch):
            if what == "loses":
                return Batch([item for item in batch.frames if item.index != 4], batch.ended)
            if what == "swaps" and len(batch.frames) > 1:
                return Batch(batch.frames[::-1], batch.ended)
            if what == "repeats":
                return Batch(batch.frames * 2, batch.ended)
            if what == "invents":
                return Batch([*batch.frames, Item("c", 99)], batch.ended)
            if what == "hoards":
                self.held += batch.frames
                return Batch([], batch.ended)
            if what == "forgets the end":
                return Batch(batch.frames, [])
            if what == "replaces the end":
                return Batch(batch.frames, [Ended(end.source, end.epoch, end.reason, end.final) for end in batch.ended])
            return batch

    batch = 5 if what == "swaps" else 1
    raised = start(Pipeline([Clip("c", 5)], [[Bad()]], [Keep()], max_batch=batch, max_wait_s=9).run).exception(30)
    assert isinstance(raised, StageError)
    assert raised.stage == "bad"
    assert words in str(raised)


def test_s1_nothing_of_a_live_source_may_be_held_back(start):
    raised = start(Pipeline([Clip("cam", 5, live=True)], [[Ahead("a", 2)]], [Keep()], max_age_s=None).run).exception(30)
    assert "holds back 1 frames of cam, 0 are allowed" in str(raised)


def test_s2_state_keyed_by_source_and_epoch_is_forgotten_after_the_end(start):
    keep, groups = output(start, [Clip("a", 3, 3), Clip("b", 4)], lookahead=2, max_batch=3)
    assert [stage.sums for stage in (groups[0][0], groups[1][1])] == [Counter(), Counter()]
    assert groups[1][0].held == {}
    totals = [dict(notes)["t"] for _, _, notes in keep.rows["a"]]
    assert totals == [0, 1, 3, 3, 7, 12]  # the second epoch starts anew
    assert [dict(added)["t"] for *_, added in keep.ends["a"]] == [3, 12]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clips=st.lists(lengths, min_size=2, max_size=4), lookahead=st.integers(0, 4), max_batch=st.integers(1, 5))
def test_s3_a_source_gives_the_same_alone_and_among_others(start, clips, lookahead, max_batch):
    together, _ = output(start, [Clip(f"c{n}", *c) for n, c in enumerate(clips)], lookahead, max_batch=max_batch)
    for n, clip in enumerate(clips):
        alone, _ = output(start, [Clip(f"c{n}", *clip)], lookahead)
        assert together.rows[f"c{n}"] == alone.rows[f"c{n}"]
        assert together.ends[f"c{n}"] == alone.ends[f"c{n}"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clips=st.lists(lengths, min_size=1, max_size=3),
    lookahead=st.integers(0, 4),
    splits=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 8), st.integers(1, 4)), min_size=2, max_size=3),
)
def test_s4_how_batches_fall_changes_nothing_in_the_output(start, clips, lookahead, splits):
    outputs = []
    for max_batch, file_lane, capacity in splits:
        sources = [Clip(f"c{n}", *c) for n, c in enumerate(clips)]
        keep, _ = output(start, sources, lookahead, max_batch=max_batch, file_lane=file_lane, channel_capacity=capacity)
        outputs.append((dict(keep.rows), dict(keep.ends)))
    assert all(one == outputs[0] for one in outputs)
