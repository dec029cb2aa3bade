"""Standard input or a named pipe as a file that FFmpeg reads but cannot seek in. A stop ends a read that waits."""

from __future__ import annotations

import os
import select
import sys
import threading
from pathlib import Path

STDIN = "-"
_POLL_S = 0.1


def is_pipe(path: str) -> bool:
    """"-", a named pipe or what `<(…)` of a shell names: can be read once, and from its beginning only."""
    return path == STDIN or Path(path).is_fifo()


class Pipe:
    """What av.open takes: `read(n)`, and no `seek`."""

    def __init__(self, path: str, stop: threading.Event) -> None:
        """Raises OSError. A named pipe without a writer is opened at once, so that a stop ends the wait for one."""
        self._own = None if path == STDIN else open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)  # noqa: SIM115
        self._stop = stop
        self.begun = False
        """Whether a byte has come."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end, and after a stop."""
        data = self._read(size)
        self.begun = self.begun or bool(data)
        return data

    def _read(self, size: int) -> bytes:
        if sys.platform == "win32":  # select knows only sockets there
            return b"" if self._stop.is_set() else sys.stdin.buffer.read1(size)
        number = (self._own or sys.stdin.buffer).fileno()
        while not self._stop.is_set():
            if select.select([number], [], [], _POLL_S)[0]:
                return os.read(number, size)
        return b""

    def close(self) -> None:
        """Standard input stays open."""
        if self._own is not None:
            self._own.close()


def unreadable(path: str, said: str) -> str:
    """Why no video can be read from a pipe; `said`: FFmpeg's words."""
    return (
        f"{shown(path)} cannot be read as a video ({said}); a container that needs seeking, such as an MP4 with its index (moov) at "
        "the end, must come as a file: save it first, or send MKV, MPEG-TS or an MP4 made with -movflags +faststart"
    )


def empty(path: str) -> str:
    """Why there is nothing in a pipe."""
    return f"{shown(path)} is empty (0 bytes); expected a video: look whether the command before the pipe failed"


def shown(path: str) -> str:
    """What people call it."""
    return "standard input" if path == STDIN else path
