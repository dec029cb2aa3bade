"""A video on standard input: read as it comes, without seeking."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from clips import FRAMES, RATE, film, needs_ffmpeg
from command import fer, rows, start, until
from reading import read

from pipeline.errors import SourceError

pytestmark = needs_ffmpeg
X264 = ("-c:v", "libx264", "-preset", "ultrafast")


def fed(path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What is written to the process's standard input as fast as it takes it."""
    with path.open("rb") as file:
        return fer("--source", "-", *arguments, "--quiet", stdin=file, timeout=60)


def piped(path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same through a real pipe: a file can be sought in, a pipe cannot."""
    cat = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
    try:
        return fer("--source", "-", *arguments, "--quiet", stdin=cat.stdout, timeout=60)
    finally:
        assert cat.stdout
        cat.stdout.close()
        cat.wait()


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
def test_a_stream_is_read_from_a_pipe(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, *X264, *(("-movflags", "+faststart") if name == "a.mp4" else ()))
    done = piped(path, "--events", tmp_path / "rows.jsonl", "--output", tmp_path / "seen.mp4")
    assert done.returncode == 0, done.stderr
    found = [row for row in rows(tmp_path / "rows.jsonl") if row["kind"] == "face"]
    assert [row["frame"] for row in found] == list(range(FRAMES))
    assert [row["pts_s"] - found[0]["pts_s"] for row in found] == pytest.approx([k / RATE for k in range(FRAMES)], abs=0.0015)
    assert {row["source"] for row in found} == {"-"}


def test_an_mp4_with_its_index_at_the_end_says_that_it_needs_seeking(tmp_path: Path) -> None:
    done = piped(film(tmp_path / "a.mp4", *X264), "--events", tmp_path / "rows.jsonl")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("fer-stream: standard input cannot be read as a video")
    assert "needs seeking" in line
    assert "faststart" in line
    assert not (tmp_path / "rows.jsonl").exists()


def test_what_is_no_video_and_nothing_at_all_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no video\n" * 100)
    for path, said in ((tmp_path / "text", "cannot be read as a video"), (Path("/dev/null"), "is empty (0 bytes)")):
        done = fed(path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"fer-stream: standard input {said}")
        assert len(done.stderr.splitlines()) == 1


def test_standard_input_is_read_once() -> None:
    done = fer("--source", "-", "--source", "-", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "named twice" in done.stderr


def fifo(path: Path, data: bytes) -> Path:
    """A named pipe, written by a thread that waits for its reader."""
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(data,), daemon=True).start()
    return path


def test_a_named_pipe_is_read_once_and_as_it_comes(tmp_path: Path) -> None:
    data = film(tmp_path / "a.ts", *X264, "-c:a", "mp2", sound=True).read_bytes()
    frames, ended = read(fifo(tmp_path / "pipe", data))
    assert (len(frames), ended.reason) == (FRAMES, "end of file")
    assert (frames[0].info.path, frames[0].info.has_audio) == (None, True)


def test_a_named_pipe_with_nothing_in_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"^{tmp_path}/pipe is empty \(0 bytes\)"):
        read(fifo(tmp_path / "pipe", b""))


def test_a_stop_ends_a_read_that_waits(tmp_path: Path) -> None:
    """The writer stays, and says nothing more."""
    data = film(tmp_path / "a.ts", *X264, frames=100).read_bytes()
    process = start("--source", "-", "--events", tmp_path / "rows.jsonl", "--quiet", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.buffer.write(data)
    process.stdin.flush()
    until(lambda: (tmp_path / "rows.jsonl").exists() and len(rows(tmp_path / "rows.jsonl")) > 10, process=process)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    process.stdin.close()
    assert rows(tmp_path / "rows.jsonl")[-1]["kind"] == "run"
