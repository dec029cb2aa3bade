"""The demo clip: deterministic, moving, made of what is installed."""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.flow.batch import Ended
from pipeline.sources.demo import FPS, FRAMES, HEIGHT, WIDTH, DemoClip, DemoSource, compose_demo
from pipeline.sources.uri import open_source
from pipeline.types import Frame


def test_it_behaves_like_a_file_of_ten_seconds() -> None:
    source = open_source("demo")
    *frames, ended = source.frames()
    assert isinstance(ended, Ended)
    assert (len(frames), ended.reason, ended.final, ended.failed, source.live) == (FRAMES, "end of the demo", True, False, False)
    assert [(frame.index, frame.pts, frame.time_base) for frame in frames] == [(k, k, Fraction(1, FPS)) for k in range(FRAMES)]
    assert {(frame.image.format.name, frame.width, frame.height) for frame in frames} == {("yuv420p", WIDTH, HEIGHT)}
    info = frames[0].info
    assert (info.kind, info.frames, info.duration_s, info.path, info.has_audio) == ("demo", 300, 10.0, None, False)


def test_a_frame_depends_on_its_index_alone() -> None:
    one, two = DemoClip(), DemoClip()
    later = one.frame(200).to_ndarray()
    one.frame(3)
    assert np.array_equal(two.frame(200).to_ndarray(), later)
    assert not np.array_equal(two.frame(201).to_ndarray(), later)


def test_start_end_and_max_frames_cut_it_as_they_cut_files() -> None:
    *frames, ended = open_source("demo", start_s=2.0, end_s=3.0).frames()
    assert [frame.pts for frame in frames] == list(range(60, 90))
    assert (frames[0].index, frames[0].info.frames, ended.reason) == (0, 30, "end of the part that was asked for")
    *frames, _ = open_source("demo", start_s=9.9, max_frames=2).frames()
    assert [frame.pts for frame in frames] == [297, 298]
    with pytest.raises(UsageError, match="the demo has 10 s"):
        open_source("demo", start_s=10.0)


def test_realtime_waits_for_each_frame() -> None:
    now = [5.0]

    def wait(seconds: float) -> bool:
        now[0] += seconds
        return False

    source = DemoSource(realtime=True, start_s=1.0, max_frames=4, clock=lambda: now[0], wait=wait)
    frames = [frame for frame in source.frames() if isinstance(frame, Frame)]
    assert [frame.captured_at for frame in frames] == pytest.approx([5 + k / 30 for k in range(4)])


def test_an_interrupt_stops_it() -> None:
    source = open_source("demo")
    items = source.frames()
    next(items)
    source.interrupt()
    (ended,) = items
    assert ended.reason == "stopped"


def test_it_is_composed_in_well_under_eight_milliseconds_of_processor_time() -> None:
    clip = DemoClip()
    clip.frame(0)
    begun = time.process_time()
    for index in range(0, 60):
        clip.frame(index)
    assert (time.process_time() - begun) / 60 < 0.020, "measured 3 ms; the bound leaves room for slow machines"


def test_without_the_optional_packages_one_photograph_takes_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find(name) if name == "matplotlib" else None)
    assert DemoClip().frame(100).width == WIDTH
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install scikit-image"):
        open_source("demo")


def test_making_it_imports_none_of_the_packages_it_takes_photographs_from() -> None:
    code = (
        "import sys; from pipeline.sources.demo import DemoClip; DemoClip().frame(0)\n"
        "print([name for name in ('matplotlib', 'skimage', 'ultralytics', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_composed_file_has_the_same_frames_and_times(
    tmp_path: Path, plain_pts: Callable[[Path], list[tuple[int, Fraction]]]
) -> None:
    path = compose_demo(tmp_path / "demo.mp4", frames=12)
    assert [float(pts * base) for pts, base in plain_pts(path)] == pytest.approx([k / FPS for k in range(12)])
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.width, stream.codec_context.height) == ("h264", WIDTH, HEIGHT)
        picture = next(container.decode(stream)).to_ndarray(format="gray")
    assert np.abs(picture.astype(int) - DemoClip().frame(0).to_ndarray(format="gray").astype(int)).mean() < 2
