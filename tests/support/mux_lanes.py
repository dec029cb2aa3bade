"""A mux on a manual clock, and filling its lanes."""

from __future__ import annotations

from flow_fakes import Item

from pipeline.flow.ledger import Ledger
from pipeline.flow.mux import Mux
from pipeline.flow.scope import ManualClock, Scope


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
