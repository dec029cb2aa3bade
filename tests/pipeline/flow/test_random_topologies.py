"""P1–P5 and the ledger over random pipelines with faults, stops and cancels at random points.

`FER_FLOW_EXAMPLES=5000 pytest …/test_random_topologies.py` tries so many others, at random; a failure prints how to repeat it.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise

from flow_fakes import Item
from flow_plans import PLANS
from flow_random import World
from hypothesis import HealthCheck, given, settings

from pipeline.errors import StageError

EXAMPLES = os.environ.get("FER_FLOW_EXAMPLES")
CHECKED = settings(
    max_examples=int(EXAMPLES or 300), derandomize=EXAMPLES is None, print_blob=True, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)  # fmt: skip


def p1_every_thread_is_joined_and_nobody_was_called_out_of_turn(world):
    assert [thread.name for thread in world.threads if thread.is_alive() and thread.name not in ("MainThread",)] == []
    assert world.wrong == []
    assert len(world.settled) == 1


def p2_the_first_real_error_is_raised_and_nothing_else(world):
    assert (world.error is None) == (not world.fatal), world.error
    if world.error is not None:
        assert isinstance(world.error, StageError)
        blamed = (world.error.stage, world.error.__cause__)
        # Threads that fail at the same instant may be recorded either way; closing is later, and one by one.
        at_work = [(who, error) for phase, who, error in world.fatal if phase == "work"]
        assert blamed in (at_work or [world.fatal[0][1:]])


def p3_what_was_taken_reaches_every_required_sink(world):
    for sink in world.sinks:
        for source in world.sources:
            seen = [(thing.epoch, isinstance(thing, Item)) for thing in sink.seen[source.name]]
            assert all(a < b or (a == b and is_item) for (a, is_item), (b, _) in pairwise(seen))  # an end ends its epoch
            indexes = [item.index for item in sink.items(source.name)]
            assert indexes == (sorted(set(indexes)) if source.live else list(range(len(indexes))))
            finals = [thing for thing in sink.seen[source.name] if not isinstance(thing, Item) and thing.final]
            if world.drained and not sink.raised:
                assert len(finals) == 1
                assert sink.seen[source.name][-1] is finals[0]
                if not source.live:
                    assert len(indexes) == source.decoded - source.refused


def p4_sources_without_a_fault_complete(world):
    for source in world.sources:
        if world.complete and source.plan.fault in (None, "close"):
            assert source.decoded == sum(source.plan.epochs)
            gone_stale = source.last_is_old and world.plan.options["max_age_s"] is not None
            for sink in world.sinks:
                if source.live and source.last is not None and not gone_stale and not sink.raised:
                    assert sink.items(source.name)[-1] is source.last  # the newest survives


def p5_what_was_opened_is_closed_once_in_reverse(world):
    assert [source.closed for source in world.sources] == [source.begun for source in world.sources]
    assert max(source.begun for source in world.sources) <= 1
    stages = sorted(world.opened, reverse=True)
    assert len(set(stages)) == len(stages)
    sinks = sorted((sink.name for sink in world.sinks), reverse=True)
    assert [name for name in world.closed if not name.startswith("source")] == [*sinks, *stages]
    assert all(name.startswith("source") for name in world.closed[: sum(source.closed for source in world.sources)])


def the_ledger_balances_and_is_true(world):
    snapshot = world.pipeline.ledger.snapshot()
    assert world.settled == [snapshot]
    required = [sink for sink in world.sinks if not sink.best_effort]
    for source in world.sources:
        account = snapshot.sources[source.name]
        dropped = Counter(account.dropped)
        assert account.decoded == account.shown + dropped.total()
        assert account.decoded == source.decoded + source.strided
        assert (dropped["stride"], dropped["refused"]) == (source.strided, source.refused)
        assert set(dropped) <= {"stride", "refused", "discarded", *(("evicted", "stale") if source.live else ())}
        if required:
            assert account.shown == min(len(sink.items(source.name)) for sink in required)
        if world.drained:
            assert not dropped["discarded"]


def the_result_tells_who_failed_and_who_was_detached(world):
    result = world.result
    if result is None:
        return
    assert set(result.detached) == {sink.name for sink in world.sinks if sink.best_effort and sink.raised}
    told, faulty = set(result.failures), {source.name for source in world.sources if source.faulty}
    if not result.stopped and not result.cancelled and not world.unconnected:
        assert told == faulty
    assert told <= faulty | world.unconnected
    assert result.stopped == any(what == "stop" for what, _ in world.acted)


def viewers_see_what_is_newest_and_count_what_they_missed(world):
    for sink in world.sinks:
        for viewer in sink.viewers:
            looks = [item for look in viewer.looks for item in look.values()]
            for source, put in sink.put.items():
                saw = [item.index for item in looks if item.source == source]
                assert saw == sorted(set(saw))
                if not viewer.leaves_after:
                    assert saw[-1] == put[-1].index
            if not viewer.leaves_after:
                assert len(looks) + viewer.reader.missed == sum(map(len, sink.put.values()))


def what_happened(world):
    snapshot, result = world.pipeline.ledger.snapshot(), world.result
    yield from snapshot.total.dropped
    yield f"{sum(not sink.best_effort for sink in world.sinks)} required sinks"
    yield f"{len(world.stages)} stages"
    if any(viewer.reader.missed for sink in world.sinks for viewer in sink.viewers):
        yield "a viewer missed something"
    if result is None:
        yield f"{world.fatal[0][0]} failed"
        return
    yield "cancelled" if result.cancelled else "stopped" if result.stopped else "unconnected" if world.unconnected else "ended"
    yield from ["a source failed"] * bool(result.failures) + ["a sink was detached"] * bool(result.detached)
    if world.stalled and world.complete:
        yield "a source stalled, the others completed"


def test_whatever_fails_is_stopped_or_cancelled_wherever_nothing_hangs_and_every_promise_holds():
    happened = Counter()

    @CHECKED
    @given(plan=PLANS)
    def check(plan):
        world = World(plan)
        world.run()
        result = world.result
        world.unconnected = {name for name, why in result.failures.items() if why.startswith("no source connected")} if result else set()
        world.drained = result is not None and not any(what == "cancel" and when != "close" for what, when in world.acted)
        others = [when for what, when in world.acted if (what, when) != ("stop", "all at rest") and when != "close"]
        world.complete = world.drained and not others and not world.unconnected
        happened.update(set(what_happened(world)))
        p1_every_thread_is_joined_and_nobody_was_called_out_of_turn(world)
        p2_the_first_real_error_is_raised_and_nothing_else(world)
        p3_what_was_taken_reaches_every_required_sink(world)
        p4_sources_without_a_fault_complete(world)
        p5_what_was_opened_is_closed_once_in_reverse(world)
        the_ledger_balances_and_is_true(world)
        the_result_tells_who_failed_and_who_was_detached(world)
        viewers_see_what_is_newest_and_count_what_they_missed(world)

    check()
    print(dict(happened))
    missing = {
        "ended", "stopped", "cancelled", "unconnected", "work failed", "close failed", "a source failed", "a sink was detached",
        "a source stalled, the others completed", "evicted", "stale", "stride", "refused", "discarded", "a viewer missed something",
        "0 required sinks", "3 required sinks", "0 stages", "4 stages",
    } - set(happened)  # fmt: skip
    assert not missing, f"these plans prove nothing about {missing}; more happened: {happened}"
