"""Progress on standard error."""

from __future__ import annotations

import io

from rich.console import Console

from pipeline.flow.batch import Batch
from pipeline.sinks.progress import ProgressSink


def test_off_a_terminal_a_line_every_ten_seconds(make):
    text, now = io.StringIO(), [0.0]
    sink = ProgressSink(100, console=Console(file=text, width=100), clock=lambda: now[0])
    for i in range(31):
        now[0] = float(i)
        sink.write(Batch([make.frame(i)]))
    sink.close()
    assert text.getvalue().splitlines() == ["11 of 100 frames, 1.1 fps", "21 of 100 frames, 1.1 fps", "31 of 100 frames, 1.0 fps"]


def test_on_a_terminal_a_bar_that_leaves_nothing_behind(make):
    text = io.StringIO()
    sink = ProgressSink(2, console=Console(file=text, force_terminal=True, width=120))
    for i in range(2):
        sink.write(Batch([make.frame(i, faces=make.faces([[1, 1, 9, 9]]))]))
    sink.close()
    sink.close()
    assert "2/2" in text.getvalue()
    assert "1 face" in text.getvalue()


def test_without_frames_it_says_nothing():
    text = io.StringIO()
    ProgressSink(console=Console(file=text)).close()
    assert text.getvalue() == ""
