"""Event files: golden rows of both formats, growth, faults."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import SinkError, UsageError
from pipeline.events import COLUMNS
from pipeline.flow.batch import Batch
from pipeline.sinks.events import EventsSink
from pipeline.types import TrackEnd

GOLDEN = Path(__file__).parent / "golden"


def story(make):
    """A run in seven batches: faces, none, a track that ends, a camera that is lost and fails."""
    two = make.faces([[1, 2, 30.126, 40], [5, 5, 9, 9]], ["happy", "uncertain"], ids=[1, -1], observed=[True, False])
    unread = make.faces([[1, 2, 30, 40]], ["sad"], ids=[1], classified=False)
    late = make.frame(4, faces=make.faces([[8, 8, 20, 20]], ids=[2]))
    late.ended_tracks.append(TrackEnd(1, 0.033333, "lost"))
    noon = datetime(2025, 1, 2, 12, 0, 0, 250000, tzinfo=UTC)
    return [
        Batch([], [make.end_of("gone", reason="failed: no such camera", failed=True)]),
        Batch([make.frame(0, faces=two)]),
        Batch([make.frame(1, faces=unread), make.frame(0, source="cam", kind="live", time_utc=noon)]),
        Batch([make.frame(2, faces=make.faces([]))], [make.end_of("cam", reason="lost: time-out", final=False)]),
        Batch([make.frame(1, source="cam", kind="live", epoch=1, time_utc=noon)]),
        Batch([late, make.frame(0, source="photos", kind="image", origin="photos/a.png", faces=make.faces([[0, 0, 9, 9]]))]),
        Batch([], [make.end_of("clip.mp4", added=[TrackEnd(2, 0.133333, "source ended")]), make.end_of("cam", epoch=1, reason="stopped")]),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_rows_are_the_golden_ones(tmp_path, make, suffix):
    out = tmp_path / f"events{suffix}"
    sink = EventsSink(out, info={"run_id": "r1", "purpose": "a test", "ratio": float("nan")})
    for batch in story(make):
        sink.write(batch)
    sink.close()
    sink.finish({"ledger": {"clip.mp4": {"decoded": 4, "shown": 4, "dropped": {}}}})
    assert out.read_text() == (GOLDEN / f"events{suffix}").read_text()


def test_both_formats_say_the_same(tmp_path):
    lines = [json.loads(line) for line in (GOLDEN / "events.jsonl").read_text().splitlines()]
    with (GOLDEN / "events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(tuple(line) == COLUMNS for line in lines)
    assert tuple(rows[0]) == COLUMNS

    def text(value):
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    assert [{column: text(value) for column, value in line.items()} for line in lines] == rows


def test_every_row_is_readable_after_a_kill(tmp_path, make):
    out = tmp_path / "events.jsonl"
    code = f"""
import os, signal, sys
sys.path[:0] = [{str(Path.cwd())!r}, {str(Path(__file__).parent)!r}]
from conftest import faces, frame
from pipeline.flow.batch import Batch
from pipeline.sinks.events import EventsSink
sink = EventsSink({str(out)!r}, info={{}})
for i in range(20):
    sink.write(Batch([frame(i, faces=faces([[0, 0, 9, 9]]))]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["frame"] for row in rows if row["kind"] == "face"] == list(range(20))


def test_nothing_is_made_before_a_frame_and_early_rows_wait_for_it(tmp_path, make):
    out = tmp_path / "events.jsonl"
    sink = EventsSink(out, info={"run_id": "r"})
    sink.write(Batch([], [make.end_of("gone", reason="failed: x", failed=True)]))
    assert not out.exists()
    sink.write(Batch([make.frame()]))
    sink.finish()
    assert [json.loads(line)["kind"] for line in out.read_text().splitlines()] == ["run", "source_state", "source_state", "frame"]


def test_a_run_without_frames_leaves_nothing(tmp_path, make):
    sink = EventsSink(tmp_path / "events.csv", info={})
    sink.write(Batch([], [make.end_of("gone")]))
    sink.close()
    sink.finish({"ledger": {}})
    assert not list(tmp_path.iterdir())


def test_only_its_sources_rows(tmp_path, make):
    out = tmp_path / "a.jsonl"
    sink = EventsSink(out, source="a")
    sink.write(Batch([make.frame(source="b"), make.frame(source="a")], [make.end_of("b")]))
    sink.close()
    assert {json.loads(line)["source"] for line in out.read_text().splitlines()} == {"a"}


def test_a_full_device_is_one_sentence(make):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(SinkError, match=r"^cannot write events to /dev/full: No space left on device$"):
        EventsSink("/dev/full").write(Batch([make.frame()]))


def test_a_pipe_takes_json_lines_and_is_never_existing(tmp_path, make):
    fifo, lines = tmp_path / "events.csv", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: lines.extend(fifo.read_text().splitlines()))
    reader.start()
    sink = EventsSink(fifo)
    sink.write(Batch([make.frame()]))
    sink.close()
    reader.join(10)
    assert [json.loads(line)["kind"] for line in lines] == ["source_state", "frame"]


def test_a_reader_that_has_gone_is_one_sentence(make):
    read, write = os.pipe()
    os.close(read)
    try:
        with pytest.raises(SinkError, match="its reader has gone"):
            EventsSink(f"/dev/fd/{write}").write(Batch([make.frame()]))
    finally:
        os.close(write)


def test_dash_is_standard_output(capfdbinary, make):
    sink = EventsSink("-", info={})
    sink.write(Batch([make.frame()]))
    sink.finish({"ledger": {}})
    assert [json.loads(line)["kind"] for line in capfdbinary.readouterr().out.splitlines()] == ["run", "source_state", "frame", "run"]


def test_an_existing_file_is_not_replaced_unless_asked(tmp_path, make):
    out = tmp_path / "events.jsonl"
    out.write_text("precious")
    with pytest.raises(SinkError, match="exists; --overwrite"):
        EventsSink(out).write(Batch([make.frame()]))
    assert out.read_text() == "precious"
    EventsSink(out, overwrite=True).write(Batch([make.frame()]))
    assert "precious" not in out.read_text()


@pytest.mark.parametrize(
    ("name", "why"), [("a.txt", r"\.jsonl, \.csv or \.parquet, got \.txt"), ("a", "got none")]
)
def test_other_suffixes_are_refused(name, why):
    with pytest.raises(UsageError, match=why):
        EventsSink(name)
