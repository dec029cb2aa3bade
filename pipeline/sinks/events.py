"""Event rows, written to a file of the format that its suffix names.

Rows of sources that failed before any frame came wait until the first frame opens the file: a run that decodes nothing
leaves nothing behind.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import UsageError
from pipeline.events import EventRows, run_row
from pipeline.flow.batch import Batch
from pipeline.sinks.lines import Lines
from pipeline.sinks.outputs import is_stream
from pipeline.sinks.parquet import Parquet, check_pyarrow

_FORMATS = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class RowsFile(Protocol):
    """An open file of rows."""

    def append(self, rows: list[dict[str, Any]]) -> None: ...
    def close(self) -> None: ...


def events_format(path: str) -> str:
    """ "jsonl", "csv" or "parquet", from the suffix; devices, pipes and "-" take JSON lines. UsageError for anything else."""
    if is_stream(path):
        return "jsonl"
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise UsageError(f"cannot write events to {path}: its suffix must be .jsonl, .csv or .parquet, got {suffix or 'none'}")
    if suffix == ".parquet":
        check_pyarrow(path)
    return _FORMATS[suffix]


class EventsSink:
    """Writes rows to `path` (.jsonl, .csv or .parquet; "-", a device or a pipe: JSON lines).

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
        self._file: RowsFile | None = None
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
            self._file = self._opened()
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
            self._file.close()

    def _opened(self) -> RowsFile:
        if self.format == "parquet":
            return Parquet(self.path, overwrite=self._overwrite)
        return Lines(self.path, self.format, overwrite=self._overwrite)

    def _append(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            assert self._file is not None
            self._file.append(rows)
            self.rows_written += len(rows)
