"""Progress on standard error."""

from __future__ import annotations

import io
from fractions import Fraction

import pytest
from rich.console import Console

from pipeline.flow.batch import Batch
from pipeline.sinks.progress import ProgressSink, frames_of
from pipeline.types import SourceInfo


def test_off_a_terminal_a_line_every_ten_seconds(make):
    text, now = io.StringIO(), [0.0]
    info = SourceInfo("clip.mp4", "video", average_rate=Fraction(25), duration_s=4.0)
    sink = ProgressSink(console=Console(file=text, width=100), clock=lambda: now[0])
    for i in range(31):
        now[0] = float(i)
        sink.write(Batch([make.frame(i, info=info)]))
    sink.close()
    assert text.getvalue().splitlines() == ["11 of 100 frames, 1.1 fps", "21 of 100 frames, 1.1 fps", "31 of 100 frames, 1.0 fps"]


def test_on_a_terminal_a_bar_that_leaves_nothing_behind(make):
    text = io.StringIO()
    sink = ProgressSink(console=Console(file=text, force_terminal=True, width=120))
    for i in range(2):
        sink.write(Batch([make.frame(i, info=SourceInfo("clip.mp4", "video", frames=2), faces=make.faces([[1, 1, 9, 9]]))]))
    sink.close()
    sink.close()
    assert "2/2" in text.getvalue()
    assert "1 face" in text.getvalue()


def test_without_frames_it_says_nothing():
    text = io.StringIO()
    ProgressSink(console=Console(file=text)).close()
    assert text.getvalue() == ""


@pytest.mark.parametrize(("info", "frames"), [
    (SourceInfo("a", "video", frames=50, average_rate=Fraction(30), duration_s=9.0), 50),
    (SourceInfo("a", "video", average_rate=Fraction(30000, 1001), duration_s=10.01), 300),
    (SourceInfo("a", "video", duration_s=10.0), None),
    (SourceInfo("a", "live", frames=50), None),
    (SourceInfo("a", "image", frames=3), 3),
])  # fmt: skip
def test_what_a_source_promises(info, frames):
    assert frames_of(info) == frames


def test_several_sources_have_an_end_together_once_all_are_known(make):
    sink = ProgressSink(2, console=Console(file=io.StringIO()))
    sink.write(Batch([make.frame(0, source="a", info=SourceInfo("a", "video", frames=10))]))
    assert sink._expected is None
    sink.write(Batch([make.frame(0, source="b", info=SourceInfo("b", "video", frames=5))]))
    assert sink._expected == 15
    for i in range(1, 20):
        sink.write(Batch([make.frame(i, source="a", info=SourceInfo("a", "video", frames=10))]))
    assert sink._expected == 21  # the container promised too little
