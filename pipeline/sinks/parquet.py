"""Event rows as Parquet, and the journal that keeps them until the file is whole.

A Parquet file can be read only once its footer is written, at the very end. So it grows as NAME.parquet.part, is renamed
when the footer is there, and until then a journal NAME.parquet.jsonl beside it holds every row as a line of JSON. After a
crash the journal stays; the next run that writes to NAME.parquet turns it into NAME.recovered.parquet first, and says so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from engines.contract import LABELS
from pipeline.errors import SinkError, UsageError
from pipeline.events import COLUMNS, SCHEMA_VERSION
from pipeline.sinks.lines import Lines, translated

try:
    import fcntl
except ImportError:  # Windows: two runs that write one file are then not told apart
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

GROUP = 50_000
"""Rows of a row group: some 5 MB as columns, a minute of crowd or half an hour of one face."""
_CHUNK = 1000
"""Rows kept as Python values (2.5 kB each) before they become columns (0.1 kB)."""


def check_pyarrow(path: str) -> None:
    """UsageError where pyarrow is missing; it is imported only when rows come."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"cannot write {path}: pyarrow is not installed; pip install 'fer-stream[parquet]', or use .jsonl or .csv")


def journal_of(path: str | os.PathLike[str]) -> Path:
    """Where the rows of `path` are until it is whole."""
    return Path(f"{os.fspath(path)}.jsonl")


class Parquet:
    """Rows on their way to `path`: to the journal at once, as row groups into NAME.parquet.part.

    `close` writes the footer, renames and removes the journal; after a failed `append` it leaves the journal as it is.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self.path, self._overwrite = path, overwrite
        recover(path)
        self._journal = Lines(str(journal_of(path)), "jsonl")
        _lock(self._journal.file, path)
        self._failed = False
        self._columns = _Columns(path)

    def append(self, rows: list[dict[str, Any]]) -> None:
        try:
            self._journal.append(rows)
            self._columns.append(rows)
        except BaseException:
            self._failed = True
            raise

    def close(self) -> None:
        whole = False
        try:
            if not self._failed:
                if not self._overwrite and os.path.exists(self.path):
                    raise SinkError(f"{self.path} was made by another while the run went on; its rows are in {self._journal.path}")
                self._columns.finish()
                whole = True
        finally:
            self._journal.close()
            if whole:
                os.unlink(self._journal.path)
            else:
                self._columns.abandon()


def recover(path: str) -> None:
    """Turn the journal that a killed run left for `path` into NAME.recovered.parquet; says so in one line.

    Nothing where there is none. A line cut off by the kill is left out. SinkError: another run writes to `path` right now.
    """
    journal = journal_of(path)
    if not journal.exists():
        return
    with translated(str(journal), lambda: journal.open("rb")) as file:
        _lock(file, path)
        target, number = Path(path).with_suffix(".recovered.parquet"), 1
        while target.exists():
            number += 1
            target = Path(path).with_suffix(f".recovered_{number}.parquet")
        columns, count, chunk = _Columns(str(target)), 0, []
        try:
            for row in _rows_of(file):
                count += 1
                chunk.append(row)
                if len(chunk) == _CHUNK:
                    columns.append(chunk)
                    chunk = []
            columns.append(chunk)
            columns.finish()
        except BaseException:
            columns.abandon()
            raise
    log.warning("a run that wrote %s did not end properly; its %d rows, kept in %s, are now in %s", path, count, journal, target)
    journal.unlink()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.part")


def _rows_of(file: Any) -> Iterator[dict[str, Any]]:
    for line in file:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield {column: row.get(column) for column in COLUMNS}


def _lock(file: Any, path: str) -> None:
    """Held until the file is closed, by a crash too."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SinkError(f"another run is writing to {path}; name another file") from error
    except OSError as error:  # a network file system without locks
        log.debug("cannot lock the journal of %s: %s", path, error)


class _Columns:
    """`path`, growing as `path`.part."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa, self._path, self._part = pa, path, f"{path}.part"
        self._schema = schema()
        self._rows: list[dict[str, Any]] = []
        self._chunks: list[Any] = []
        self._file = translated(path, lambda: open(self._part, "wb"))  # noqa: SIM115 (closed by finish or abandon)
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")

    def append(self, rows: list[dict[str, Any]]) -> None:
        self._rows += rows
        if len(self._rows) >= _CHUNK:
            self._to_columns()
            if sum(map(len, self._chunks)) >= GROUP:
                self._write_group()

    def finish(self) -> None:
        """The last row group, the footer, the name."""
        self._to_columns()
        self._write_group()

        def end() -> None:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())  # the journal goes next
            self._file.close()
            os.replace(self._part, self._path)

        translated(self._path, end)

    def abandon(self) -> None:
        self._file.close()  # first: no footer is written into a file that is closed
        with contextlib.suppress(Exception):
            self._writer.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part)

    def _to_columns(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            columns = [
                self._pa.array([_typed(name, row[name]) for row in rows], kind)
                for name, kind in zip(COLUMNS, self._schema.types, strict=True)
            ]
            self._chunks.append(self._pa.record_batch(columns, schema=self._schema))

    def _write_group(self) -> None:
        chunks, self._chunks = self._chunks, []
        if chunks:
            table = self._pa.Table.from_batches(chunks)
            translated(self._path, lambda: self._writer.write_table(table, row_group_size=len(table)))


def schema() -> Any:
    """The columns' types: numbers as 64 bits (they are the same digits as in the other formats), time in UTC milliseconds."""
    import pyarrow as pa

    kinds = {
        **dict.fromkeys(("source", "kind", "emotion", "info"), pa.string()),
        **dict.fromkeys(("epoch", "frame", "tracker_id"), pa.int64()),
        "time_utc": pa.timestamp("ms", "UTC"), "observed": pa.bool_(),
    }  # fmt: skip
    numbers = {"pts_s", "x1", "y1", "x2", "y2", "detection_confidence", "quality", "confidence"}
    numbers |= {f"{what}_{label}" for what in ("p", "raw") for label in LABELS}
    kinds |= dict.fromkeys(numbers, pa.float64())
    return pa.schema([(name, kinds[name]) for name in COLUMNS], {"fer_stream_schema_version": str(SCHEMA_VERSION)})


def _typed(name: str, value: Any) -> Any:
    if name == "time_utc" and value is not None:
        return datetime.fromisoformat(value)
    # As in the other formats: names of files need not be UTF-8, a Parquet string must.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
