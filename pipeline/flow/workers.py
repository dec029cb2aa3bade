"""The threads of a run: one a source, one a group of stages, one a sink. How a thread ends: see `control`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.flow.batch import Batch, Ended
from pipeline.flow.channel import BrokenChannel, EndOfChannel, Receiver, Sender
from pipeline.flow.control import CONSEQUENCES, Control, Work, Worker
from pipeline.flow.lane import Lane
from pipeline.flow.ledger import REFUSED, Ledger
from pipeline.flow.protocols import Sink, Source, Stage
from pipeline.flow.scope import Cancelled


class SourceWorker(Worker):
    """Reads one source into its lane, and sees to it that its final Ended comes, whatever the source does."""

    def __init__(self, source: Source, lane: Lane, control: Control) -> None:
        super().__init__(source.name, control)
        self.source = source
        self.lane = lane
        self.stats = Work()
        self.failure: BaseException | None = None
        """Why the source failed: what it raised, or None when it only said so in its Ended."""
        self.end: Ended | None = None
        """The final Ended."""

    def work(self) -> None:
        ended: Ended | None = None
        error: BaseException | None = None
        try:
            if not self.control.stopping:
                ended = self._read()
        except CONSEQUENCES:
            if self.control.scope.cancelled:
                raise
            error = RuntimeError(f"{self.name} raised what only the flow may raise")  # else its lane would never end
        except Exception as raised:
            error = raised
        self.failure = error
        self.end = self._final(ended, error)
        self.lane.end(self.end)

    def _read(self) -> Ended | None:
        """Frames into the lane; returns the source's final Ended once its generator is closed, or None where it gave none."""
        control, lane = self.control, self.lane
        frames = iter(self.source.frames())
        try:
            while not control.scope.cancelled:
                began = time.perf_counter()
                item = next(frames, None)
                got = time.perf_counter()
                self.stats.busy_s += got - began
                if item is None:
                    return None
                if isinstance(item, Ended):
                    if item.final:
                        return item
                    lane.end(item)
                else:
                    control.ledger.decode(self.name)
                    self.stats.frames += 1
                    self.stats.batches += 1
                    try:
                        lane.offer(item)
                    except ValueError:  # not of this source, or of an epoch that is over
                        control.ledger.lose(self.name, REFUSED)
                        raise
                    self.blocked_s += time.perf_counter() - got
                del item  # megabytes, else kept while the next one is awaited
                if control.stopping or control.unconnected is not None:
                    return None
            raise Cancelled
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()

    def _final(self, ended: Ended | None, error: BaseException | None) -> Ended:
        """The end as this run tells it: an interrupted source may end any way it likes, it was stopped."""
        added = ended.added if ended is not None else []
        epoch = max(self.lane.epoch, ended.epoch) if ended is not None and not self.lane.is_open else self.lane.epoch
        if self.control.stopping:
            return Ended(self.name, epoch, "stopped", final=True, added=added)
        said = None
        if error is not None:
            said = str(error) or type(error).__name__
        elif ended is not None and ended.failed:
            said = ended.reason
        if self.control.unconnected is not None:
            why = said or getattr(self.source, "trouble", None)
            reason = self.control.unconnected + (f": {why}" if why else f": {self.name}")
            return Ended(self.name, epoch, reason, final=True, failed=True, added=added)
        if said is not None:
            return Ended(self.name, epoch, said, final=True, failed=True, added=added)
        if ended is not None:
            return replace(ended, epoch=epoch)
        return Ended(self.name, epoch, "ended", final=True)


class _Conservation:
    """Holds a stage to S1: what it gives back are the frames it got, in order, no more held back than it declared.

    One `is` a frame; without it a plug-in that loses a frame shows up as a ledger that doesn't balance, with nobody to blame.
    """

    def __init__(self, stage: Stage, live: frozenset[str]) -> None:
        self._stage = stage
        self._live = live
        self._held: dict[str, deque[Any]] = {}

    def process(self, batch: Batch) -> Batch:
        ended = list(batch.ended)
        for frame in batch.frames:
            self._held.setdefault(frame.source, deque()).append(frame)
        result = self._stage.process(batch)
        for frame in result.frames:
            held = self._held.get(frame.source)
            if not held or held.popleft() is not frame:
                raise RuntimeError(f"it gave out a frame of {frame.source} that is not the next one it got (S1)")
        if len(result.ended) != len(ended) or any(a is not b for a, b in zip(result.ended, ended, strict=True)):
            raise RuntimeError("it changed which sources ended (S1)")
        for end in ended:
            if self._held.pop(end.source, None):
                raise RuntimeError(f"it still holds frames of {end.source} at that source's end (S1)")
        for source, held in self._held.items():
            allowed = 0 if source in self._live else self._stage.lookahead
            if len(held) > allowed:
                raise RuntimeError(f"it holds back {len(held)} frames of {source}, {allowed} are allowed (S1)")
        return result


class GroupWorker(Worker):
    """Stages that share a thread: takes a batch, takes it through them in order, passes it on."""

    def __init__(
        self,
        stages: Sequence[Stage],
        take: Callable[[], Batch],
        close_input: Callable[[], None],
        output: Callable[[Batch], None],
        close_output: Callable[[], None],
        live: frozenset[str],
        control: Control,
    ) -> None:
        super().__init__("+".join(stage.name for stage in stages) or "mux", control)
        self.stages = stages
        self.ready = False
        """Every stage is open."""
        self.stats = {stage.name: Work() for stage in stages}
        self._take, self._close_input, self._output, self._close_output = take, close_input, output, close_output
        self._live = live
        self._opened: list[Stage] = []

    def work(self) -> None:
        control = self.control
        for stage in self.stages:
            control.scope.check()
            # A stage whose open() raised has nothing to close; those before it have.
            with control.blame(stage.name):
                stage.open()
            self._opened.append(stage)
        self.ready = True
        control.ring()
        steps = [(stage.name, _Conservation(stage, self._live), self.stats[stage.name]) for stage in self.stages]
        clock = time.perf_counter
        while True:
            began = clock()
            try:
                batch = self._take()
            except EndOfChannel:
                return
            last = clock()
            self.starved_s += last - began
            for name, step, stats in steps:
                stats.batches += 1
                stats.frames += len(batch.frames)
                with control.blame(name):
                    batch = step.process(batch)
                now = clock()
                stats.busy_s += now - last
                last = now
                if not batch:
                    break
            control.scope.check()
            if batch:
                self._output(batch)
                self.blocked_s += clock() - last
            del batch  # megabytes, else kept while the next one is awaited

    def release(self) -> None:
        self._close_input()
        self._close_output()

    def close_opened(self) -> None:
        for stage in reversed(self._opened):
            try:
                stage.close()
            except BaseException as error:
                self.control.fail(stage.name, error)


class Parcel:
    """A batch on its way to the sinks; its frames are shown when the last required sink has written it."""

    def __init__(self, batch: Batch, required: int, ledger: Ledger) -> None:
        self.batch = batch
        self._left = required
        self._ledger = ledger
        self._lock = threading.Lock()

    def written(self) -> None:
        with self._lock:
            self._left -= 1
            done = self._left == 0
        if done:
            self.show()

    def show(self) -> None:
        for frame in self.batch.frames:
            self._ledger.show(frame.source)


class SinkWorker(Worker):
    """Writes what comes. A best-effort sink that fails takes itself out; the run goes on without it."""

    def __init__(self, sink: Sink, receiver: Receiver[Parcel], control: Control) -> None:
        super().__init__(sink.name, control)
        self.sink = sink
        self.stats = Work()
        self.detached: str | None = None
        """Why a best-effort sink left the run."""
        self._receiver = receiver

    def work(self) -> None:
        control, clock = self.control, time.perf_counter
        while True:
            began = clock()
            try:
                parcel = self._receiver.receive()
            except EndOfChannel:
                return
            got = clock()
            self.starved_s += got - began
            control.scope.check()  # nothing more is written after a fault
            if not self._guard(self.sink.write, parcel.batch):
                return
            self.stats.busy_s += clock() - got
            self.stats.batches += 1
            self.stats.frames += len(parcel.batch.frames)
            if not self.sink.best_effort:
                parcel.written()
            del parcel

    def release(self) -> None:
        self._receiver.close()

    def close_opened(self) -> None:
        self._guard(self.sink.close)

    def _guard(self, call: Callable[..., None], *arguments: Any) -> bool:
        """False: it failed, and is detached or has ended the run."""
        try:
            call(*arguments)
        except BaseException as error:
            if self.sink.best_effort and isinstance(error, Exception):
                self.detached = self.detached or str(error) or type(error).__name__
            else:
                self.control.fail(self.name, error)
            return False
        return True


class FanOut:
    """The last group's output: a channel to each sink."""

    def __init__(self, senders: list[tuple[Sink, Sender[Parcel]]], ledger: Ledger) -> None:
        self._senders = senders
        self._required = sum(not sink.best_effort for sink, _ in senders)
        self._ledger = ledger

    def send(self, batch: Batch) -> None:
        """Waits for room in every sink's channel. Passes over best-effort sinks that have detached."""
        parcel = Parcel(batch, self._required, self._ledger)
        for sink, sender in self._senders:
            try:
                sender.send(parcel)
            except BrokenChannel:
                if not sink.best_effort:
                    raise
        if not self._required:  # nobody to wait for: it is shown when it has passed the last stage
            parcel.show()

    def close(self) -> None:
        for _, sender in self._senders:
            sender.close()
