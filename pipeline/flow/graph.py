"""A run: sources → mux → groups of stages → sinks, each on a thread of its own, and what ends it.

`run()` is the only place that decides. It waits on a bell that anyone may ring, looks at what has changed, and acts: so `stop()` and
`cancel()` merely set a flag, which makes them fit for signal handlers (a handler that notified a condition could dead-lock with the
very code it interrupted), and every ending goes the same way:

    stages open → sources start → … → every thread has done its work → the ledger is settled → sinks close, then stages,
    in reverse → threads are joined → the first real error is raised
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pipeline.errors import SourceError, StageError
from pipeline.flow.batch import Batch
from pipeline.flow.channel import Receiver, Sender, open_channel
from pipeline.flow.control import Control, Work, Worker
from pipeline.flow.ledger import Ledger, LedgerSnapshot
from pipeline.flow.mux import Mux
from pipeline.flow.protocols import Sink, Source, Stage
from pipeline.flow.result import PipelineStats, RunResult, WorkStats
from pipeline.flow.scope import Clock, Scope
from pipeline.flow.workers import FanOut, GroupWorker, Parcel, SinkWorker, SourceWorker

__all__ = ["Pipeline", "PipelineStats", "RunResult", "WorkStats"]


class Pipeline:
    """Built once, run once.

    `stages`: groups of stages; a group shares a thread. `sinks` get every batch, all the same object: they only read it.
    A frame is shown when every required sink has written it (with none, when it has passed the last stage).

    `max_batch` frames, `max_wait_s`, `max_age_s`: see `mux`. `live_lane`, `file_lane`: frames a lane holds (a file's at least
    `max_batch`, but of all files together not much more than `file_bytes`, so large frames come in smaller batches).
    `channel_capacity`: batches between threads. `connect_timeout_s`: when by then no source has delivered a frame or is RUNNING, and all
    that have not ended are live, the sources are interrupted and end as failed. `ledger`: give one to share it with sources that
    count their own drops, or with sinks that write it. `on_ledger`: called from `run()`'s thread with the settled ledger, when every
    frame is written and before the sinks close.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        stages: Sequence[Sequence[Stage]],
        sinks: Sequence[Sink],
        *,
        max_batch: int = 1,
        max_wait_s: float = 0.02,
        live_lane: int = 2,
        file_lane: int = 8,
        file_bytes: int = 48 << 20,
        max_age_s: float | None = 1.0,
        connect_timeout_s: float = 10.0,
        channel_capacity: int = 2,
        clock: Clock | None = None,
        ledger: Ledger | None = None,
        on_ledger: Callable[[LedgerSnapshot], None] | None = None,
    ) -> None:
        groups = [list(group) for group in stages if group] or [[]]
        _check_unique("source", [source.name for source in sources])
        _check_unique("stage", [stage.name for group in groups for stage in group])
        _check_unique("sink", [sink.name for sink in sinks])
        self._scope = Scope(clock)
        self._ledger = Ledger() if ledger is None else ledger
        self._control = Control(self._scope, self._ledger)
        self._mux = Mux(self._scope, self._scope.clock, max_batch, max_wait_s, max_age_s, self._ledger)
        self._on_ledger = on_ledger
        self._connect_timeout_s = connect_timeout_s
        self._channels: dict[str, Receiver[Batch] | Receiver[Parcel]] = {}

        self._sources: list[SourceWorker] = []
        most_bytes = file_bytes / max(1, sum(not source.live for source in sources))
        for source in sources:
            self._ledger.open(source.name)
            lane = self._mux.add_lane(source.name, source.live, live_lane if source.live else max(file_lane, max_batch), most_bytes)
            self._sources.append(SourceWorker(source, lane, self._control))

        self._sinks: list[SinkWorker] = []
        outlets: list[tuple[Sink, Sender[Parcel]]] = []
        for sink in sinks:
            outlet: Sender[Parcel]
            outlet, inlet = open_channel(channel_capacity, self._scope)
            self._channels[sink.name] = inlet
            outlets.append((sink, outlet))
            self._sinks.append(SinkWorker(sink, inlet, self._control))
        fan_out = FanOut(outlets, self._ledger)

        self._groups: list[GroupWorker] = []
        live = frozenset(source.name for source in sources if source.live)
        take, close_input = self._mux.take, self._mux.close
        for position, group in enumerate(groups):
            if position == len(groups) - 1:
                self._groups.append(GroupWorker(group, take, close_input, fan_out.send, fan_out.close, live, self._control))
                break
            sender: Sender[Batch]
            sender, receiver = open_channel(channel_capacity, self._scope)
            self._channels["+".join(stage.name for stage in groups[position + 1])] = receiver
            self._groups.append(GroupWorker(group, take, close_input, sender.send, sender.close, live, self._control))
            take, close_input = receiver.receive, receiver.close

        self._ran = False
        self._cancel_requested = False
        self._cancelled = False
        self._interrupted: set[str] = set()
        self._connected = False
        self._started_at: float | None = None  # on the run's clock
        self._began = 0.0  # perf_counter

    def stop(self) -> None:
        """End by draining: sources are interrupted, everything they handed in reaches every required sink.

        From any thread or signal handler, at any time (before `run()`: it ends at once, without a frame). Idempotent, never waits.
        """
        self._control.stopping = True
        self._control.ring()

    def cancel(self) -> None:
        """End now: what is in flight is discarded, and `run()` returns after the longest call in progress. As `stop()` otherwise."""
        self._cancel_requested = True
        self._control.ring()

    def run(self) -> RunResult:
        """Run until the sources have ended, or `stop()`, `cancel()`, or an error. Returns after every thread is joined.

        Raises StageError for the first error of a stage or a required sink; a source's only makes that source end. Signal handlers
        run meanwhile when this is the main thread; an exception from one (KeyboardInterrupt) cancels the run, then passes on.
        """
        if self._ran:
            raise RuntimeError("a Pipeline runs once; build another")
        self._ran = True
        try:
            try:
                self._work()
            except BaseException:
                self._scope.cancel()
                self._until(lambda: all(worker.finished for worker in self._workers if worker.started))
                raise
        finally:
            self._finish()
        if self._control.error is not None:
            name, error = self._control.error
            raise StageError(name, error) from error
        ledger = self._ledger.snapshot()
        if not ledger.balanced:
            raise RuntimeError(f"frames are unaccounted for, which is a bug of the flow or of a source: {ledger}")
        failed = {worker.name: worker for worker in self._sources if worker.end is not None and worker.end.failed}
        return RunResult(
            ledger=ledger,
            failures={name: worker.end.reason for name, worker in failed.items() if worker.end is not None},
            errors={name: self._error_of(worker) for name, worker in failed.items()},
            stopped=self._control.stopping,
            cancelled=self._cancelled,
            detached={worker.name: worker.detached for worker in self._sinks if worker.detached is not None},
            stats=self.stats(),
        )

    def stats(self) -> PipelineStats:
        """How it goes, from any thread, at any time. Costs microseconds."""

        def stats(worker: Worker, work: Work) -> WorkStats:
            return WorkStats(worker.name, work.busy_s, worker.starved_s, worker.blocked_s, work.batches, work.frames)

        return PipelineStats(
            elapsed_s=time.perf_counter() - self._began if self._began else 0.0,
            lanes=self._mux.stats().lanes,
            channels={name: receiver.stats() for name, receiver in self._channels.items()},
            sources={worker.name: stats(worker, worker.stats) for worker in self._sources},
            stages={name: stats(worker, work) for worker in self._groups for name, work in worker.stats.items()},
            sinks={worker.name: stats(worker, worker.stats) for worker in self._sinks},
        )

    @property
    def ledger(self) -> Ledger:
        """The run's books, live."""
        return self._ledger

    @property
    def _workers(self) -> list[Worker]:
        """In the order in which they are closed, the reverse of that in which they start to matter."""
        return [*self._sources, *reversed(self._sinks), *reversed(self._groups)]

    def _work(self) -> None:
        for worker in (*self._sinks, *self._groups):
            worker.start()
        # Models load before the first frame is read: a live lane would only drop meanwhile, and a model that is missing is told
        # before anything is written.
        self._until(lambda: all(group.ready or group.finished for group in self._groups))
        if not self._scope.cancelled:
            self._started_at, self._began = self._scope.clock.now(), time.perf_counter()
            for worker in self._sources:
                worker.start()
        self._until(lambda: all(worker.finished for worker in self._workers if worker.started))

    def _until(self, done: Callable[[], bool]) -> None:
        """Attend to the run until `done`."""
        while True:
            self._attend()
            if done():
                return
            # Whatever changes rings. The time-outs are for what can't: a source's state, and signals where (on Windows) a
            # waiting lock doesn't let their handlers run.
            self._control.wait_for_ring(0.25 if self._connected else 0.05)

    def _attend(self) -> None:
        control = self._control
        if self._cancel_requested and not self._scope.cancelled:
            self._cancelled = not all(worker.finished for worker in self._workers)
            self._scope.cancel()
        self._check_connected()
        if self._scope.cancelled:
            self._interrupt("cancelled")
        elif control.stopping:
            self._interrupt("stopping")
        elif control.unconnected is not None:
            self._interrupt("unconnected")

    def _interrupt(self, why: str) -> None:
        """Once for each reason: cancelling after stopping may find a source that still drains."""
        if self._started_at is None or why in self._interrupted:
            return
        self._interrupted.add(why)
        for worker in self._sources:
            try:
                worker.source.interrupt()
            except Exception as error:
                self._control.fail(worker.name, error)

    def _check_connected(self) -> None:
        if self._connected or self._started_at is None or self._control.unconnected is not None:
            return
        if any(worker.stats.frames or worker.source.state == "RUNNING" for worker in self._sources):
            self._connected = True
            return
        waiting = [worker for worker in self._sources if not worker.finished]
        late = self._scope.clock.now() >= self._started_at + self._connect_timeout_s
        if late and waiting and all(worker.source.live for worker in waiting):
            self._control.unconnected = f"no source connected within {self._connect_timeout_s:g} s"

    def _finish(self) -> None:
        """Every thread has done its work: settle the books, close in reverse, join."""
        if self._scope.cancelled:
            self._ledger.discard_in_flight()
        if self._on_ledger is not None:
            try:
                self._on_ledger(self._ledger.snapshot())
            except Exception as error:
                self._control.fail("on_ledger", error)
        for worker in self._workers:
            if worker.started:
                worker.close()
                self._until(lambda worker=worker: worker.closed)  # type: ignore[misc]
                worker.join()

    def _error_of(self, worker: SourceWorker) -> BaseException:
        """What to raise or print for a source that failed."""
        if worker.failure is not None and self._control.unconnected is None:
            return worker.failure
        assert worker.end is not None
        source, reason = worker.end.source, worker.end.reason
        error = SourceError(f"{source}: {reason.removeprefix('failed: ')}" if reason.startswith("failed: ") else reason)
        error.__cause__ = worker.failure
        return error


def _check_unique(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each {what} of a run needs a name of its own; got more than one {', '.join(twice)}")
