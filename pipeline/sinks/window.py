"""A window with the newest picture of each source. Never in the way: what it cannot show in time is overwritten.

It lives in a process of its own (see _window_child.py), fed through a pipe by a thread that always takes the newest
picture; `write` only swaps a reference, and draws nothing that nobody will see.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.canvas import BgrCanvas
from pipeline.draw import Told, draw_faces
from pipeline.errors import SinkError
from pipeline.flow.batch import Batch
from pipeline.sinks.planes import bgr_of
from pipeline.types import Frame

log = logging.getLogger(__name__)

_WIDEST = 1920


def has_display() -> bool:
    """Is there a screen to open a window on?"""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class WindowSink:
    """Shows every source in a window of its name; `q`, Esc or closing it calls `on_close` once, from another thread.

    If the window's process dies by itself, `write` raises SinkError, which detaches this sink and nothing else.
    `command`: what to run instead of the window (tests).
    """

    name = "window"
    best_effort = True

    def __init__(self, *, top_k: int = 3, on_close: Callable[[], None] | None = None, command: Sequence[str] | None = None) -> None:
        self._top_k, self._on_close = top_k, on_close
        self._told: defaultdict[str, Told] = defaultdict(dict)
        self._command = command or (sys.executable, "-P", str(Path(__file__).with_name("_window_child.py")))
        self._changed = threading.Condition()
        self._newest: dict[str, Frame] = {}
        self._closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._gone = False
        self._feeder: threading.Thread | None = None
        self.shown = 0
        """Pictures handed to the window."""

    def write(self, batch: Batch) -> None:
        if not batch.frames or self._gone:
            self._check()
            return
        if self._child is None:
            self._start()
        with self._changed:
            for frame in batch.frames:
                self._newest[frame.source] = frame
            self._changed.notify()
        self._check()

    def close(self) -> None:
        """The window closes. Waits at most two seconds for its process."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._child is None or self._feeder is None:
            return
        self._feeder.join(2)
        try:
            self._child.wait(2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._feeder.join()
        self._watcher.join()

    def _start(self) -> None:
        try:
            self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError as error:
            self._gone = True
            raise SinkError(f"cannot open a window: {error.strerror or error}") from error
        self._feeder = threading.Thread(target=self._feed, name="window feed", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="window watch", daemon=True)
        self._feeder.start()
        self._watcher.start()

    def _check(self) -> None:
        child = self._child
        if self._gone and child is not None and child.returncode not in (None, 0) and not self._closing:
            raise SinkError(f"the window has gone (exit code {child.returncode}); is there a display that this process may use?")

    def _feed(self) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        reformatter, pipe = VideoReformatter(), self._child.stdin
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._newest or self._closing or self._gone)
                    frames, self._newest = self._newest, {}
                    if (self._closing and not frames) or self._gone:
                        return
                for name, frame in frames.items():
                    pipe.write(self._message(name, frame, reformatter))
                    pipe.flush()
                    self.shown += 1
        except OSError:
            return  # the window has gone; the watcher says why
        finally:
            try:
                pipe.close()
            except OSError:
                log.debug("the window went while a picture was on its way")

    def _message(self, name: str, frame: Frame, reformatter: VideoReformatter) -> bytes:
        image = bgr_of(frame, reformatter).copy()
        draw_faces(BgrCanvas(image), frame.faces, self._top_k, told=self._told[frame.source], time_s=frame.pts_s)
        if image.shape[1] > _WIDEST:
            image = cv2.resize(image, (_WIDEST, image.shape[0] * _WIDEST // image.shape[1]), interpolation=cv2.INTER_AREA)
        title = name.encode()
        return np.array([len(title), *image.shape[:2]], "<u4").tobytes() + title + image.tobytes()

    def _watch(self) -> None:
        assert self._child is not None
        code = self._child.wait()
        with self._changed:
            self._gone = True
            closing = self._closing
            self._changed.notify()
        if code == 0 and not closing and self._on_close is not None:
            self._on_close()
