"""Sources, stages and sinks that do as they are told, and tell what was done to them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pipeline.flow.batch import Ended
from pipeline.flow.scope import MonotonicClock


@dataclass(eq=False)
class Item:
    source: str
    index: int
    epoch: int = 0
    captured_at: float = 0.0


class Log:
    """What happened, in order, from any thread."""

    def __init__(self):
        self.entries = []

    def __call__(self, *entry):
        self.entries.append(entry)

    def of(self, what):
        return [entry[1:] for entry in self.entries if entry[0] == what]


class FakeSource:
    """`script`: how many frames, or a list of: an int (so many frames), an exception, an Ended-maker, a callable to call."""

    def __init__(self, name, script=0, live=False, log=None):
        self.name, self.live, self.state = name, live, "CONNECTING"
        self.script = script if isinstance(script, list) else [script]
        self.interrupted = threading.Event()
        self.log = log or Log()
        self.closed = 0

    def frames(self):
        index = epoch = 0
        try:
            for step in self.script:
                if isinstance(step, int):
                    for _ in range(step):
                        if self.interrupted.is_set():
                            return
                        self.state = "RUNNING"
                        yield Item(self.name, index, epoch, MonotonicClock().now())
                        index += 1
                elif isinstance(step, BaseException):
                    raise step
                elif step == "lost":
                    yield Ended(self.name, epoch, "lost", final=False)
                    epoch += 1
                elif step == "failed":
                    yield Ended(self.name, epoch, "failed: no more", final=True, failed=True)
                    return
                elif step == "until interrupted":
                    assert self.interrupted.wait(20)
                    return
                else:
                    step()
            yield Ended(self.name, epoch, "end of file", final=True)
        finally:
            self.closed += 1
            self.log("closed", self.name)

    def interrupt(self):
        self.interrupted.set()


class FakeStage:
    lookahead = 0

    def __init__(self, name, log=None, on_item=None, on_open=None, on_close=None):
        self.name, self.log = name, log or Log()
        self.on_item, self.on_open, self.on_close = on_item, on_open, on_close

    def open(self):
        if self.on_open:
            self.on_open()
        self.log("opened", self.name)

    def process(self, batch):
        for item in batch.frames:
            if self.on_item:
                self.on_item(item)
        return batch

    def close(self):
        self.log("closed", self.name)
        if self.on_close:
            self.on_close()


class FakeSink:
    def __init__(self, name, log=None, best_effort=False, on_write=None, on_close=None):
        self.name, self.best_effort, self.log = name, best_effort, log or Log()
        self.on_write, self.on_close = on_write, on_close
        self.items, self.ended, self.threads = [], [], set()

    def write(self, batch):
        self.threads.add(threading.current_thread().name)
        if self.on_write:
            self.on_write(batch)
        self.items += batch.frames
        self.ended += batch.ended

    def close(self):
        self.threads.add(threading.current_thread().name)
        self.log("closed", self.name)
        if self.on_close:
            self.on_close()

    def indexes(self, source):
        return [item.index for item in self.items if item.source == source]


def fail_at(index, error):
    def check(item):
        if item.index == index:
            raise error

    return check


def run(start, pipeline):
    return start(pipeline.run).result(30)


def failure(start, pipeline):
    return start(pipeline.run).exception(30)


def threads_named(*names):
    return [thread for thread in threading.enumerate() if thread.name in names]
