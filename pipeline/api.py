"""The same from Python: `run` does what the command line does, `stream` hands out frames and faces.

from pipeline.api import run, stream

summary = run("talk.mp4", output="talk-faces.mp4", events="talk.csv")

for frame in stream("talk.mp4"):
    for box, track, emotion in zip(frame.faces.xyxy, frame.faces.tracker_id, frame.faces.data["emotion"]):
        print(f"{frame.pts_s:.2f} s  #{track} {emotion}  {box}")
"""

from __future__ import annotations

import _thread
import atexit
import difflib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pipeline.build import Options, Run, build
from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.flow.batch import Batch
from pipeline.flow.channel import BrokenChannel, EndOfChannel, open_channel
from pipeline.flow.scope import Scope

if TYPE_CHECKING:
    from pipeline.flow.channel import Sender
    from pipeline.types import Frame

__all__ = ["Config", "load_config", "run", "stream"]

Sources = str | os.PathLike[str] | int | Sequence[str | os.PathLike[str] | int]


def run(
    source: Sources, *, config: Config | None = None, on_frame: Callable[[Frame], None] | None = None, **options: Any
) -> dict[str, Any]:
    """Watch to the end; returns the summary that `--json` prints (fps, frames, faces, tracks, sources, labels, tracks_detail).

    `options`: output, events, report, show, start, end (seconds), max_frames, realtime, overwrite, as on the command line, and the others
    of pipeline.build.Options: models, and sinks of your own (pipeline.flow.protocols.Sink).
    `on_frame` is called with every finished frame, on a thread of its own; what it raises ends the run.
    Raises FerError (UsageError for what makes no sense) with one sentence, also when a source failed.
    """
    sinks = (_Callback(on_frame),) if on_frame else ()
    job = _job(source, config, options, sinks)
    summary = job.run()
    _raise(job)
    return summary


def stream(source: Sources, *, config: Config | None = None, **options: Any) -> Iterator[Frame]:
    """Finished frames, one by one, with `frame.faces` (see pipeline.types.Faces), `frame.pts_s` and `frame.bgr`.

    The pipeline works ahead by a few frames and waits when nobody asks for more; leaving the loop ends it. Raises as `run`.
    """
    scope = Scope()
    sender, receiver = open_channel(4, scope)
    job = _job(source, config, options, (_Forward(sender),))
    error: list[BaseException] = []

    def work() -> None:
        try:
            job.run()
            _raise(job)
        except BaseException as raised:
            error.append(raised)
        finally:
            sender.close()

    thread = threading.Thread(target=work, name="fer-stream", daemon=True)

    def end() -> None:
        receiver.close()
        job.cancel()
        thread.join()
        atexit.unregister(end)

    # A generator that somebody still holds is not closed when Python ends, and native threads under it would abort the process.
    atexit.register(end)
    thread.start()
    asked_by = threading.get_ident()
    try:
        while True:
            try:
                frame = receiver.receive()
            except EndOfChannel:
                break
            asked_by = threading.get_ident()
            yield frame
            asked_by = threading.get_ident()
    finally:
        if threading.get_ident() == asked_by:
            end()
        else:  # the garbage collector is closing this, perhaps on a thread of this very run, which must not wait for itself
            _thread.start_new_thread(end, ())
    if error:
        raise error[0]


def _raise(job: Run) -> None:
    for error in job.failures():
        raise error


def _job(source: Sources, config: Config | None, options: dict[str, Any], sinks: tuple[Any, ...]) -> Run:
    named = list(source) if isinstance(source, Sequence) and not isinstance(source, str | bytes) else [source]
    for one in named:
        if not isinstance(one, str | os.PathLike | int):
            kind = type(one).__name__
            raise UsageError(f"the source is a {kind}; expected a path or an address, a webcam's number, or a list of them")
    texts = [os.fspath(one) if isinstance(one, str | os.PathLike) else str(one) for one in named]
    known = [field.name for field in fields(Options)]
    if unknown := [name for name in options if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(known)}"
        raise UsageError(f"unknown option {unknown[0]!r}; {hint}")
    if config is not None and not isinstance(config, Config):
        raise UsageError(f"config is a {type(config).__name__}; expected what load_config() gives, e.g. load_config(Path('my.yaml'))")
    for name in ("output", "events", "report"):
        if options.get(name) is not None:
            options[name] = os.fspath(options[name])
    own = options.get("sinks", ())
    if not isinstance(own, Sequence):
        raise UsageError(f"sinks is a {type(own).__name__}; expected a list of objects with name, best_effort, write(batch) and close()")
    options["sinks"] = (*own, *sinks)
    return build(config or load_config(), texts, Options(**options))


class _Callback:
    """Calls a function of the user's with each frame."""

    name = "on_frame"
    best_effort = False

    def __init__(self, function: Callable[[Frame], None]) -> None:
        self._function = function

    def write(self, batch: Batch) -> None:
        for frame in batch.frames:
            self._function(frame)

    def close(self) -> None:
        pass


class _Forward:
    """Hands frames to whoever iterates; when nobody does any more, the rest passes by."""

    name = "stream"
    best_effort = False

    def __init__(self, sender: Sender[Frame]) -> None:
        self._sender = sender

    def write(self, batch: Batch) -> None:
        for frame in batch.frames:
            try:
                self._sender.send(frame)
            except BrokenChannel:
                return

    def close(self) -> None:
        pass
