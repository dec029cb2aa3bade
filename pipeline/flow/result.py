"""What a run says of itself, while it runs and when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.flow.channel import ChannelStats
from pipeline.flow.lane import LaneStats
from pipeline.flow.ledger import LedgerSnapshot


@dataclass(frozen=True)
class WorkStats:
    """What one source, stage or sink did so far. The bottleneck is the one that is busy while others starve or are blocked."""

    thread: str
    """Which thread it runs on; stages of a group share one, and with it `starved_s` and `blocked_s`."""
    busy_s: float
    """Seconds inside its own code; a call in progress is not counted yet. A live source's include waiting for the camera."""
    starved_s: float
    """Seconds its thread waited for input."""
    blocked_s: float
    """Seconds its thread waited for room in what comes next."""
    batches: int
    """Batches it was given; for a source, frames."""
    frames: int
    """Frames it was given; for a source, frames it gave."""


@dataclass(frozen=True)
class PipelineStats:
    """A look at a run; each entry is consistent in itself, together they are not of one instant."""

    elapsed_s: float
    """Seconds since the sources were started (0 before)."""
    lanes: dict[str, LaneStats]
    """By source."""
    channels: dict[str, ChannelStats]
    """By the thread that receives."""
    sources: dict[str, WorkStats]
    stages: dict[str, WorkStats]
    sinks: dict[str, WorkStats]

    @property
    def bottleneck(self) -> str | None:
        """The thread that was busy longest, of stages and sinks, or the source whose reading was; None before anything was."""
        busy: dict[str, float] = {}
        for work in (*self.sources.values(), *self.stages.values(), *self.sinks.values()):
            busy[work.thread] = busy.get(work.thread, 0.0) + work.busy_s
        return max(busy, key=lambda name: busy[name]) if any(busy.values()) else None


@dataclass(frozen=True)
class RunResult:
    """How a run ended that ended without an error of its own."""

    ledger: LedgerSnapshot
    """Where every frame went; balanced."""
    failures: dict[str, str] = field(default_factory=dict)
    """Sources that ended in a fault, and why in words for people. The exit code says that there are any."""
    errors: dict[str, BaseException] = field(default_factory=dict)
    """The same sources: what they raised, or a SourceError with those words."""
    stopped: bool = False
    """`stop()` was called."""
    cancelled: bool = False
    """`cancel()` was called before everything was done: what was in flight is booked as discarded."""
    detached: dict[str, str] = field(default_factory=dict)
    """Best-effort sinks that failed, and why; the run went on without them."""
    stats: PipelineStats | None = None
    """The last look at the run."""
