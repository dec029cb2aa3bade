"""Random pipelines with faults, stops and cancels, as hypothesis draws them. `flow_random` carries them out."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from pipeline.flow.channel import BrokenChannel, ClosedChannel, EndOfChannel
from pipeline.flow.scope import Cancelled


class Fatal(BaseException):
    """What `except Exception` does not catch, as SystemExit."""


ERRORS = (OSError, RuntimeError, Cancelled, BrokenChannel, ClosedChannel, EndOfChannel)
STATES = {
    "a sender waits": lambda stats: any(channel.waiting_senders for channel in stats.channels.values()),
    "a receiver waits": lambda stats: any(channel.waiting_receivers for channel in stats.channels.values()),
    "a channel is full": lambda stats: any(channel.depth == channel.capacity for channel in stats.channels.values()),
    "a reader is blocked": lambda stats: any(lane.waiting for lane in stats.lanes.values()),
    "a lane has dropped": lambda stats: any(lane.dropped for lane in stats.lanes.values()),
}


@dataclass(frozen=True)
class SourcePlan:
    live: bool
    epochs: list[int]
    """Items of each epoch."""
    fault: str | None
    at: int
    """Items before the fault."""
    error: type[BaseException]
    deaf: bool
    """Goes on after interrupt()."""
    old_every: int
    """Each so-many-th item is too old for a live lane; 0: none."""
    stride: int
    """Drops of its own before each item."""


@dataclass(frozen=True)
class StagePlan:
    lookahead: int
    fault: str | None
    at: int
    error: type[BaseException]


@dataclass(frozen=True)
class SinkPlan:
    best_effort: bool
    viewers: list[int]
    """Lossy viewers: after how many looks each leaves; 0: it stays to the end."""
    fault: str | None
    at: int
    error: type[BaseException]


@dataclass(frozen=True)
class Act:
    what: str
    """stop | cancel"""
    when: str
    """A place whose items are counted, or one of STATES."""
    at: int


@dataclass(frozen=True)
class Plan:
    sources: list[SourcePlan]
    stages: list[StagePlan]
    new_thread: list[bool]
    """For each stage, whether it begins a group."""
    sinks: list[SinkPlan]
    acts: list[Act]
    ending: str
    """What ends a run in which a source stalls: stop | cancel | the time-out for connecting."""
    ledger_fault: bool
    options: dict = field(default_factory=dict)
    """Of the Pipeline."""


_fatal = st.sampled_from([*ERRORS, Fatal])


def _fault(*kinds):
    return st.sampled_from([None] * (2 * len(kinds) + 1) + list(kinds))


_either = st.booleans()
_source_fault = _fault("frames", "read", "says so", "stall", "stall and raise", "close", "refused")
_early = st.integers(0, 12)
_ending = st.sampled_from(["stop", "stop", "cancel"])


def _sources(live=_either, fault=_source_fault, at=_early):
    plan = st.builds(
        SourcePlan, live=live, epochs=st.lists(st.integers(0, 12), min_size=1, max_size=3), fault=fault, at=at, deaf=_either,
        error=st.sampled_from(ERRORS), old_every=st.sampled_from([0, 0, 2, 3]), stride=st.sampled_from([0, 0, 2]),
    )  # fmt: skip
    return st.lists(plan, min_size=1, max_size=5)


def _plans(sources, *, stage_faults=(), sink_faults=(), best_effort=_either, acts=0, ending=_ending, connect_timeout_s=1000.0):
    stage = st.builds(StagePlan, lookahead=st.integers(0, 3), fault=_fault(*stage_faults), at=st.integers(0, 20), error=_fatal)
    sink = st.builds(
        SinkPlan, best_effort=best_effort, viewers=st.lists(st.integers(0, 2), max_size=2), fault=_fault(*sink_faults),
        at=_early, error=_fatal if stage_faults else st.sampled_from(ERRORS),
    )  # fmt: skip
    when = st.sampled_from(["before", "open", "read", "process", "write", "close", *STATES])
    act = st.builds(Act, what=st.sampled_from(["stop", "cancel"]), when=when, at=st.integers(1, 30))
    options = {
        "max_batch": st.integers(1, 4), "channel_capacity": st.integers(1, 4), "live_lane": st.integers(1, 4),
        "file_lane": st.integers(1, 4), "max_wait_s": st.sampled_from([0, 0.001]), "max_age_s": st.sampled_from([None, 1000.0]),
    }  # fmt: skip
    return st.builds(
        Plan, sources=sources, stages=st.lists(stage, max_size=4), new_thread=st.lists(_either, min_size=4, max_size=4),
        sinks=st.lists(sink, min_size=1, max_size=3), acts=st.lists(act, min_size=min(acts, 1), max_size=acts),
        ending=ending, ledger_fault=st.sampled_from([False] * 9 + [True] * bool(stage_faults)),
        options=st.fixed_dictionaries(options | {"connect_timeout_s": st.just(connect_timeout_s)}),
    )  # fmt: skip


_at_work = {"stage_faults": ("open", "process", "process"), "sink_faults": ("write", "write")}
_at_close = {"stage_faults": ("close",), "sink_faults": ("close",)}
_unreachable = _sources(live=st.just(True), fault=st.just("stall"), at=st.just(0))

PLANS = st.one_of(
    _plans(_sources()),  # only sources fail
    _plans(_sources(), sink_faults=("write", "close"), best_effort=st.just(True)),
    _plans(_sources(), acts=2),
    _plans(_unreachable, ending=st.just("time-out"), connect_timeout_s=0.0),
    _plans(_sources(), **_at_work),
    _plans(_sources(), **_at_work, acts=2),
    _plans(_sources(), **_at_close, acts=1),
)
"""Kinds side by side: with everything drawn at once, most runs would end at their first fault."""
