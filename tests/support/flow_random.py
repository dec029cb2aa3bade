"""Plug-ins that carry out a random plan (see `flow_plans`), and keep account of what they did and what was done to them.

Nothing here sleeps. A stop or a cancel comes when a counter of items reaches a number, or when the statistics of a channel or lane
show a state; a source that stalls is let go when every other source has come to rest.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter, defaultdict, deque

from flow_fakes import Item
from flow_plans import STATES

from pipeline.flow.batch import Batch, Ended
from pipeline.flow.channel import EndOfChannel
from pipeline.flow.graph import Pipeline
from pipeline.flow.latest import Latest
from pipeline.flow.ledger import Ledger

LIMIT_S = 20.0
"""A run takes milliseconds; only one that hangs gets here."""


class Hang(BaseException):
    """Not an Exception: hypothesis would try to shrink a plan that hangs, at `LIMIT_S` a try."""


class World:
    """One plan carried out: `run()`, then look at what is in here."""

    def __init__(self, plan):
        self.plan, self.ledger = plan, Ledger()
        self.lock = threading.Lock()
        self.counts, self.acted = Counter(), []
        self.threads, self.wrong = set(), []
        self.fatal = []  # (while "work" or "close", whose, error), in order
        self.opened, self.closed, self.settled = [], [], []
        self.resting, self.stalled = set(), set()
        self.sources = [RandomSource(self, f"source{n}", one) for n, one in enumerate(plan.sources)]
        self.stages = [RandomStage(self, f"stage{n}", one) for n, one in enumerate(plan.stages)]
        self.sinks = [RandomSink(self, f"sink{n}", one) for n, one in enumerate(plan.sinks)]
        groups = []
        for stage, new in zip(self.stages, plan.new_thread, strict=False):
            if new or not groups:
                groups.append([])
            groups[-1].append(stage)
        self.pipeline = Pipeline(self.sources, groups, self.sinks, ledger=self.ledger, on_ledger=self.settle, **plan.options)
        self.result = self.error = None

    def run(self):
        """Returns when the run and every viewer has ended. Hang, with everyone's stack, when they do not."""
        over = threading.Event()

        def body():
            try:
                self.result = self.pipeline.run()
            except BaseException as error:
                self.error = error
            finally:
                over.set()

        self.count("before")
        watchers = [threading.Thread(target=self.watch, args=(act, over), daemon=True) for act in self.plan.acts if act.when in STATES]
        viewers = [viewer for sink in self.sinks for viewer in sink.viewers]
        threads = [threading.Thread(target=body, daemon=True), *watchers, *(viewer.thread for viewer in viewers)]
        for thread in threads:
            thread.start()
        limit = time.monotonic() + LIMIT_S
        for thread in threads:
            thread.join(max(limit - time.monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            stacks = "\n".join(f"{names[i]}:\n{''.join(traceback.format_stack(f))}" for i, f in sys._current_frames().items() if i in names)
            raise Hang(f"not over after {LIMIT_S} s: {self.plan}\n{self.pipeline.stats()}\n{stacks}")

    def watch(self, act, over):
        while not over.is_set():
            if STATES[act.when](self.pipeline.stats()):
                self.act(act.what, act.when)
                return
            time.sleep(0)

    def act(self, what, when):
        self.acted.append((what, when))
        getattr(self.pipeline, what)()

    def count(self, place):
        """One more item at that place; from the plug-ins' own threads."""
        with self.lock:
            self.threads.add(threading.current_thread())
            self.counts[place] += 1
            due = [act for act in self.plan.acts if act.when == place and (act.at == self.counts[place] or place == "before")]
        for act in due:
            self.act(act.what, act.when)

    def rest(self, source, stalls):
        """The source gives nothing more by itself. When that holds for all, and some only wait to be interrupted, the run is ended."""
        with self.lock:
            self.resting.add(source)
            if stalls:
                self.stalled.add(source)
            let_go = self.stalled and len(self.resting) == len(self.sources) and self.plan.ending != "time-out"
        if let_go:
            self.act(self.plan.ending, "all at rest")

    def fail(self, phase, who, kind):
        error = kind(f"{who} in {phase}")
        with self.lock:
            self.fatal.append((phase, who, error))
        raise error

    def settle(self, snapshot):
        self.settled.append(snapshot)
        if self.plan.ledger_fault:
            self.fail("close", "on_ledger", OSError)


class RandomSource:
    def __init__(self, world, name, plan):
        self.world, self.name, self.plan = world, name, plan
        self.live, self.state = plan.live, "CONNECTING"
        self.interrupted = threading.Event()
        self.decoded = self.strided = self.refused = self.begun = self.closed = 0
        self.faulty = False
        """It has raised, or said that it failed."""
        self.last, self.last_is_old = None, False

    def interrupt(self):
        self.interrupted.set()

    def frames(self):
        if self.plan.fault == "frames":
            self.world.rest(self.name, stalls=False)
            self.faulty = True
            raise self.plan.error(self.name)
        return self.read()

    def read(self):
        self.begun += 1
        try:
            yield from self.items()
        finally:
            self.closed += 1
            self.world.closed.append(self.name)
            self.world.rest(self.name, stalls=False)
            if self.plan.fault == "close":
                self.faulty = True
                raise self.plan.error(self.name)

    def items(self):
        plan, last, count = self.plan, len(self.plan.epochs) - 1, 0
        at = min(plan.at, sum(plan.epochs))
        for epoch, items in enumerate(plan.epochs):
            for _ in range(items):
                if count == at and (yield from self.trouble(epoch)):
                    return
                if self.interrupted.is_set() and not plan.deaf:
                    return
                yield self.item(epoch, count)
                count += 1
            if epoch == last and count == at and (yield from self.trouble(epoch)):
                return
            yield Ended(self.name, epoch, "over", final=epoch == last)

    def item(self, epoch, index):
        self.state = "RUNNING"
        if self.plan.stride:
            self.world.ledger.drop(self.name, "stride", self.plan.stride)
            self.strided += self.plan.stride
        self.decoded += 1
        self.last_is_old = bool(self.plan.old_every) and index % self.plan.old_every == 0
        self.last = Item(self.name, index, epoch, time.monotonic() - 10_000 * self.last_is_old)
        self.world.count("read")
        return self.last

    def trouble(self, epoch):
        """True when it has come to its end."""
        fault = self.plan.fault
        if fault == "says so":
            self.faulty = True
            yield Ended(self.name, epoch, "failed: it says", final=True, failed=True)
            return True
        if fault == "refused":
            self.faulty = True
            self.decoded += 1
            self.refused += 1
            yield Item(f"not {self.name}", 0, epoch)
        if fault in ("stall", "stall and raise"):
            self.world.rest(self.name, stalls=True)
            if not self.interrupted.wait(LIMIT_S):
                self.world.wrong.append(f"{self.name} was never interrupted")
        if fault in ("read", "stall and raise"):
            self.faulty = True
            raise self.plan.error(self.name)
        return fault == "stall"


class _PlugIn:
    """A stage or a sink: checks that it is called in order and by one thread, and closed once."""

    def __init__(self, world, name, plan):
        self.world, self.name, self.plan = world, name, plan
        self.calls = 0
        self.caller = None
        self.is_closed = False

    def called(self):
        me = threading.current_thread()
        if self.is_closed or self.caller not in (None, me):
            self.world.wrong.append(f"{self.name} was called by {me.name} after {self.caller} closed={self.is_closed}")
        self.caller = me

    def close(self):
        self.called()
        self.is_closed = True
        self.world.count("close")
        self.world.closed.append(self.name)
        if self.plan.fault == "close":
            self.broken("close")

    def broken(self, phase):
        self.world.fail(phase, self.name, self.plan.error)


class RandomStage(_PlugIn):
    def __init__(self, world, name, plan):
        super().__init__(world, name, plan)
        self.lookahead, self.held = plan.lookahead, defaultdict(deque)
        self.live = {f"source{n}" for n, source in enumerate(world.plan.sources) if source.live}

    def open(self):
        self.called()
        self.world.count("open")
        if self.plan.fault == "open":
            self.broken("work")
        self.world.opened.append(self.name)

    def process(self, batch):
        self.called()
        out = []
        for item in batch.frames:
            self.world.count("process")
            if self.plan.fault == "process" and self.calls == self.plan.at:
                self.broken("work")
            self.calls += 1
            held = self.held[item.source]
            held.append(item)
            if item.source in self.live or len(held) > self.lookahead:
                out.append(held.popleft())
        for end in batch.ended:
            out += self.held.pop(end.source, ())
        return Batch(out, batch.ended)


class RandomSink(_PlugIn):
    def __init__(self, world, name, plan):
        super().__init__(world, name, plan)
        self.best_effort = plan.best_effort
        self.raised = False
        self.seen = defaultdict(list)  # items and ends by source, in order
        self.put = defaultdict(list)  # what its viewers could have seen
        self.latest = Latest()
        self.viewers = [Viewer(self.latest, leaves_after) for leaves_after in plan.viewers]

    def write(self, batch):
        self.called()
        for item in batch.frames:
            self.world.count("write")
            self.latest.put(item.source, item)
            self.put[item.source].append(item)
        if self.plan.fault == "write" and self.calls == self.plan.at:
            self.broken("work")
        self.calls += 1
        for thing in (*batch.frames, *batch.ended):
            self.seen[thing.source].append(thing)

    def close(self):
        self.latest.close()
        super().close()

    def broken(self, phase):
        self.raised = True
        if self.best_effort and issubclass(self.plan.error, Exception):
            raise self.plan.error(self.name)
        super().broken(phase)

    def items(self, source):
        return [thing for thing in self.seen[source] if isinstance(thing, Item)]


class Viewer:
    """Looks at the latest items on a thread of its own."""

    def __init__(self, latest, leaves_after):
        self.latest, self.reader, self.leaves_after = latest, latest.reader(), leaves_after
        self.looks = []
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        while not self.leaves_after or len(self.looks) < self.leaves_after:
            try:
                self.looks.append(self.reader.get())
            except EndOfChannel:
                return
