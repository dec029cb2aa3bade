"""What can be measured: how many frames a clip has, what a source names; and what is cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.bare_chain import _encode
from benchmarks.clips import clip_of
from benchmarks.job import probe
from engines.errors import UsageError
from pipeline.flow.channel import open_channel
from pipeline.flow.scope import Scope

ROOT = Path(__file__).resolve().parents[2]


def copied(clip: Path, path: Path, cut: int = 0, **options: str) -> Path:
    """The packets of `clip`, the first `cut` frames before the beginning."""
    with av.open(str(clip)) as source, av.open(str(path), "w", **options) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                before = int(cut / 30 / packet.time_base)
                packet.stream, packet.pts, packet.dts = stream, packet.pts - before, packet.dts - before
                out.mux(packet)
    return path


@pytest.mark.parametrize(("name", "cut", "frames"), [("a.mkv", 0, 40), ("a.h264", 0, 40), ("a.mp4", 0, 40), ("cut.mp4", 10, 30)])
def test_the_frames_of_a_clip_are_those_that_are_decoded(name: str, cut: int, frames: int, clip: Path, tmp_path: Path) -> None:
    path = copied(clip, tmp_path / name, cut)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames
    assert probe(path).frames == frames


def test_a_source_is_the_file_that_it_names(clip: Path, tmp_path: Path) -> None:
    for source in (str(clip), f"{clip.parent}/two*.mp4", f"file://{clip.as_posix().replace(' ', '%20')}"):
        assert clip_of(source, tmp_path) == str(clip.resolve())
    with pytest.raises(UsageError, match="- cannot be measured: it is not a video file"):
        clip_of("-", tmp_path)


def test_the_bare_chain_writes_odd_sizes_as_even_ones(tmp_path: Path) -> None:
    frames, received = open_channel(1, Scope())
    picture = av.VideoFrame.from_ndarray(np.zeros((361, 641, 3), np.uint8), format="bgr24")
    picture.pts, picture.time_base = 0, Fraction(1, 30)
    frames.send(picture)
    frames.close()
    _encode(tmp_path / "odd.mp4", received)
    assert (probe(tmp_path / "odd.mp4").width, probe(tmp_path / "odd.mp4").height) == (642, 362)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_child_and_no_folder(number: int, clip: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cli", "pipeline", "--source", str(clip), "--set", "backend=fake"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # these tests may run under nohup
    )  # fmt: skip
    assert process.stderr is not None
    assert "paced run" in process.stderr.readline()
    while not list(tmp_path.glob("*/full.jsonl")):  # the child is at work
        time.sleep(0.01)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    process.stderr.close()
    assert not Path(f"/proc/{child}").exists()
    assert not list(tmp_path.iterdir())
