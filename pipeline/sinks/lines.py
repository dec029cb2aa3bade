"""Rows as JSON lines or CSV, readable up to the last row whatever happens to the process.

Each batch of rows goes out in one unbuffered write, so a killed run leaves at most one line unfinished (a write of a
few kilobytes to a file is not torn by SIGKILL at all).
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from pipeline.errors import SinkError
from pipeline.events import COLUMNS
from pipeline.sinks.outputs import is_stream

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def jsonl_from_rows(rows: Iterable[dict[str, Any]]) -> bytes:
    """A JSON object per line, strict: no NaN, every column, in order."""
    return "".join(f"{_JSON.encode(row)}\n" for row in rows).encode(errors="backslashreplace")


def csv_from_rows(rows: Iterable[dict[str, Any]], header: bool = False) -> bytes:
    """Comma-separated, UTF-8, "\\n"; None is empty, booleans are true and false."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_csv_value(row[column]) for column in COLUMNS])
    return text.getvalue().encode(errors="backslashreplace")


class Lines:
    """An open file of rows, "jsonl" or "csv"; "-" is standard output. SinkError when opening or writing fails."""

    def __init__(self, path: str, format: str, *, overwrite: bool = False) -> None:
        self.path, self._encode = path, jsonl_from_rows if format == "jsonl" else csv_from_rows
        if path == "-":
            self.file: Any = sys.stdout.buffer
            return
        mode = "wb" if overwrite or is_stream(path) else "xb"
        self.file = translated(path, lambda: open(path, mode, buffering=0))  # noqa: SIM115 (closed by close)
        if format == "csv":
            self._send(csv_from_rows([], header=True))

    def append(self, rows: list[dict[str, Any]]) -> None:
        self._send(self._encode(rows))

    def close(self) -> None:
        if self.file is not getattr(sys.stdout, "buffer", None):
            translated(self.path, self.file.close)

    def _send(self, data: bytes) -> None:
        def send() -> None:
            rest = memoryview(data)
            while rest:
                rest = rest[self.file.write(rest) or 0 :]
            self.file.flush()

        translated(self.path, send)


def translated(path: str, action: Callable[[], Any]) -> Any:
    """What `action` gives; what the system says against it as a SinkError about `path`."""
    try:
        return action()
    except FileExistsError as error:
        raise SinkError(f"{path} exists; --overwrite replaces it") from error
    except BrokenPipeError as error:
        raise SinkError(f"cannot write events to {path}: its reader has gone") from error
    except (OSError, ValueError) as error:  # ValueError: the file was closed under us
        reason = getattr(error, "strerror", None) or str(error)
        raise SinkError(f"cannot write events to {path}: {reason}") from error


def _csv_value(value: Any) -> Any:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value
