"""The file that a video grows in. Ours and not libavformat's, because a failed write must be the last.

Finishing a hybrid MP4 on a full disk would first fail to write the index at the end, then overwrite the head, and with it
what was readable. PyAV writes no trailer into a file object that is closed, and hands on the system's own error.
"""

from __future__ import annotations

from typing import Any


class GrowingFile:
    """What libavformat writes to: unbuffered, made exclusively unless `overwrite`, dead after `close`."""

    def __init__(self, path: str, overwrite: bool) -> None:
        self._file = open(path, "w+b" if overwrite else "x+b", buffering=0)  # noqa: SIM115 (closed by close)
        self.closed = False

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError("the output is closed")
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
        return len(data)

    def read(self, count: int = -1) -> bytes:
        return self._file.read(count) or b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def cut_torn_fragment(self) -> None:
        """Drop what a failed write left of an MP4's last fragment: strict players stop with an error there."""
        self.closed = True
        size, whole, at = self._file.seek(0, 2), 0, 0
        while at + 8 <= size:
            self._file.seek(at)
            head = self._file.read(8)
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if length < 8 or at + length > size:
                break
            at += length
            if kind != b"moof":  # a fragment is a moof and its mdat
                whole = at
        if whole:
            self._file.truncate(whole)
