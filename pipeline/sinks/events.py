"""Event rows as JSON lines or CSV, readable up to the last row whatever happens to the process.

Each batch of rows goes out in one unbuffered write, so a killed run leaves at most one line unfinished (a write of a
few kilobytes to a file is not torn by SIGKILL at all). Rows of sources that failed before any frame came wait until the
first frame opens the file: a run that decodes nothing leaves nothing behind.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import SinkError, UsageError
from pipeline.events import COLUMNS, EventRows, run_row
from pipeline.flow.batch import Batch
from pipeline.sinks.outputs import is_stream

_FORMATS = {".jsonl": "jsonl", ".csv": "csv"}


def events_format(path: str) -> str:
    """"jsonl" or "csv", from the suffix; devices, pipes and "-" take JSON lines. UsageError for anything else."""
    if is_stream(path):
        return "jsonl"
    suffix = Path(path).suffix.lower()
    if suffix == ".parquet":
        raise UsageError(f"cannot write {path}: Parquet is not there yet; use .jsonl or .csv, which hold the same columns")
    if suffix not in _FORMATS:
        raise UsageError(f"cannot write events to {path}: its suffix must be .jsonl or .csv, got {suffix or 'none'}")
    return _FORMATS[suffix]


def jsonl_from_rows(rows: Iterable[dict[str, Any]]) -> bytes:
    """A JSON object per line, strict: no NaN, every column, in order."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")


def csv_from_rows(rows: Iterable[dict[str, Any]], header: bool = False) -> bytes:
    """Comma-separated, UTF-8, "\\n"; None is empty, booleans are true and false."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_csv_value(row[column]) for column in COLUMNS])
    return text.getvalue().encode(errors="backslashreplace")


class EventsSink:
    """Writes rows to `path` (.jsonl or .csv; "-", a device or a pipe: JSON lines).

    With `info` it goes into the first `run` row, and the file stays open after `close()` for the last one: the ledger is
    known only when every sink has closed, so `finish(info)` is called after the run. Without `info`, `close()` closes.
    With `source` only that source's rows are written. Raises UsageError for an unknown suffix, SinkError when writing fails.
    """

    best_effort = False

    def __init__(self, path: str | os.PathLike[str], *, info: dict[str, Any] | None = None, source: str | None = None,
                 overwrite: bool = False) -> None:  # fmt: skip
        self.path = os.fspath(path)
        self.format = events_format(self.path)
        self.name = "events" if source is None else f"events of {source}"
        self.source = source
        self.rows_written = 0
        self._info = info
        self._overwrite = overwrite
        self._rows = EventRows()
        self._pending: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._finished = False

    def write(self, batch: Batch) -> None:
        if self._finished:
            return
        mine = batch if self.source is None else Batch(
            [frame for frame in batch.frames if frame.source == self.source],
            [ended for ended in batch.ended if ended.source == self.source],
        )  # fmt: skip
        rows = list(self._rows.rows(mine))
        if self._file is None:
            if not mine.frames:
                self._pending += rows
                return
            self._open()
            first = [] if self._info is None else [run_row(self._info)]
            rows = [*first, *self._pending, *rows]
            self._pending = []
        self._append(rows)

    def close(self) -> None:
        """Every row is with the system already."""
        if self._info is None:
            self.finish()

    def finish(self, info: dict[str, Any] | None = None) -> None:
        """The last `run` row, then the end. Idempotent; nothing where no frame ever came."""
        if self._finished:
            return
        self._finished = True
        if self._file is None:
            return
        try:
            if info is not None:
                self._append([run_row(info)])
        finally:
            file, self._file = self._file, None
            if file is not getattr(sys.stdout, "buffer", None):
                _translated(self.path, file.close)

    def _open(self) -> None:
        if self.path == "-":
            self._file = sys.stdout.buffer
            return
        mode = "wb" if self._overwrite or is_stream(self.path) else "xb"
        self._file = _translated(self.path, lambda: open(self.path, mode, buffering=0))  # noqa: SIM115 (closed by finish)
        if self.format == "csv":
            self._send(csv_from_rows([], header=True))

    def _append(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._send(jsonl_from_rows(rows) if self.format == "jsonl" else csv_from_rows(rows))
            self.rows_written += len(rows)

    def _send(self, data: bytes) -> None:
        file = self._file
        assert file is not None

        def send() -> None:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) or 0 :]
            file.flush()

        _translated(self.path, send)


def _translated(path: str, action: Callable[[], Any]) -> Any:
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

