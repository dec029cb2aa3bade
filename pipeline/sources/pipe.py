"""Standard input as a file that FFmpeg reads but cannot seek in. A stop ends a read that waits."""

from __future__ import annotations

import os
import select
import sys
import threading
from typing import BinaryIO

_POLL_S = 0.1
NOTHING = "standard input is empty (0 bytes); expected a video: look whether the command before the pipe failed"


class Pipe:
    """What av.open takes: `read(n)`, and no `seek`."""

    def __init__(self, stream: BinaryIO, stop: threading.Event) -> None:
        self._stream, self._stop = stream, stop
        self.begun = False
        """Whether a byte has come."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end, and after a stop."""
        data = self._read(size)
        self.begun = self.begun or bool(data)
        return data

    def _read(self, size: int) -> bytes:
        if sys.platform == "win32":  # select knows only sockets there
            return b"" if self._stop.is_set() else self._stream.read1(size)  # type: ignore[attr-defined]
        number = self._stream.fileno()
        while not self._stop.is_set():
            if select.select([number], [], [], _POLL_S)[0]:
                return os.read(number, size)
        return b""


def stdin_failure(said: str) -> str:
    """Why a video cannot be read from standard input; `said`: FFmpeg's words."""
    return (
        f"standard input cannot be read as a video ({said}); a container that needs seeking, such as an MP4 with its index (moov) at "
        "the end, must come as a file: save it first, or send MKV, MPEG-TS or an MP4 made with -movflags +faststart"
    )
