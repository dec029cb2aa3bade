"""What a run keeps in memory: its own peak, and no decoded picture longer than it is needed."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import av
import pytest
from clips import film, needs_ffmpeg

from benchmarks.clips import compose_faces
from pipeline.sources.uri import open_source

_JOB = """
import sys
from benchmarks.measure import peak_mb
from pipeline.api import run
from pipeline.config import Config

clip, folder, interval = sys.argv[1:]
config = Config.model_validate({"detect": {"interval": int(interval)}})
run(clip, config=config, output=f"{folder}/out.mp4", events=f"{folder}/rows.jsonl", report=f"{folder}/page.html")
print(peak_mb())
"""


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@needs_ffmpeg
def test_a_picture_is_freed_when_it_is_let_go_and_not_when_the_garbage_collector_comes(tmp_path: Path, no_collector: None) -> None:
    source, most = open_source(str(film(tmp_path / "clip.mp4", frames=40))), 0
    for count, _ in enumerate(source.frames()):
        if count % 8 == 7:
            most = max(most, sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()))
    assert count == 40  # and the end
    assert most < 8


def peak(clip: Path, folder: Path, interval: int) -> float:
    command = [sys.executable, "-c", _JOB, str(clip), str(folder), str(interval)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_the_full_job_with_a_report_stays_under_a_gigabyte(tmp_path: Path) -> None:
    clip = tmp_path / "two.mp4"
    compose_faces(clip, 2, frames=200)
    assert 100 < peak(clip, tmp_path, 1) < 1000


@needs_ffmpeg
def test_large_frames_and_rare_looks_do_not_pile_up(tmp_path: Path) -> None:
    """Two hundred frames of 2160p are 2.5 GB, and a detection on every thirtieth makes batches of 120 where frames are small."""
    clip = film(tmp_path / "large.mp4", "-vf", "scale=3840:2160", "-preset", "ultrafast", frames=200)
    assert 100 < peak(clip, tmp_path, 30) < 1800
