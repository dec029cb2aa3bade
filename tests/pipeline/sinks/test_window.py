"""The window's plumbing, with a stand-in for its process (no display in tests)."""

from __future__ import annotations

import ast
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import pipeline.sinks.window as window_module
from pipeline.errors import SinkError
from pipeline.flow.batch import Batch
from pipeline.labels import COLOURS
from pipeline.sinks.window import WindowSink, has_display

KEEP = """
import sys
sys.path.insert(0, {folder!r})
import threading
from _window_child import read
newest = {{}}
read(newest, threading.Event())
newest.pop(None)
import numpy
numpy.savez({out!r}, **newest)
"""


def stand_in(tmp_path, code):
    out = tmp_path / "seen.npz"
    folder = str(Path(window_module.__file__).parent)
    return out, [sys.executable, "-P", "-c", code.format(folder=folder, out=str(out))]


def test_the_newest_picture_of_every_source_arrives(tmp_path, make):
    out, command = stand_in(tmp_path, KEEP)
    sink = WindowSink(command=command, on_close=lambda: pytest.fail("closed by us, not by a person"))
    for i in range(5):  # each brighter than the one before
        plain = make.frame(i, source="a", image=make.picture(shade=40 + 30 * i))
        odd = make.frame(i, source="b", image=make.picture(63, 47, shade=40 + 30 * i), faces=make.faces([[5, 5, 20, 20]]))
        sink.write(Batch([plain, odd]))
    sink.close()
    seen = np.load(out)
    assert set(seen) == {"a", "b"}
    assert np.array_equal(seen["a"], plain.bgr)
    assert seen["b"].shape == (47, 63, 3)
    assert np.array_equal(seen["b"][:, 50:], odd.bgr[:, 50:])  # beside the face and its words
    assert tuple(seen["b"][14, 4]) == COLOURS["happy"][::-1]  # the box
    assert 2 <= sink.shown <= 10


def test_a_window_that_reads_nothing_never_blocks_the_run(tmp_path, make):
    _, command = stand_in(tmp_path, "import sys, time; sys.stdin.buffer.raw.read(1); time.sleep(30)")
    sink = WindowSink(command=command)
    big = make.picture(1280, 720)
    for i in range(50):  # 140 MB; a pipe holds 64 kB
        sink.write(Batch([make.frame(i, image=big)]))
    assert sink.shown <= 1
    sink.close()  # and a child that does not end is ended


def test_closing_the_window_is_told_once(tmp_path, make):
    closed = threading.Semaphore(0)
    _, command = stand_in(tmp_path, "import sys; sys.stdin.buffer.raw.read(1)")
    sink = WindowSink(command=command, on_close=closed.release)
    sink.write(Batch([make.frame()]))
    assert closed.acquire(timeout=20)
    sink.write(Batch([make.frame(1)]))  # the run may go on
    sink.close()
    assert not closed.acquire(blocking=False)


FAKE_CV2 = """
WINDOW_NORMAL = WINDOW_KEEPRATIO = WINDOW_GUI_NORMAL = WND_PROP_VISIBLE = 0
namedWindow = resizeWindow = imshow = destroyAllWindows = lambda *_: None
getWindowProperty = lambda *_: 1
waitKey = lambda _: ord("q")
"""


def test_q_ends_the_real_child_and_is_told_as_closing(tmp_path, make, monkeypatch):
    (tmp_path / "cv2.py").write_text(FAKE_CV2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    closed = threading.Event()
    sink = WindowSink(on_close=closed.set)
    sink.write(Batch([make.frame()]))
    assert closed.wait(20)
    sink.close()


def test_a_window_that_dies_detaches_itself_with_a_sentence(tmp_path, make):
    _, command = stand_in(tmp_path, "raise SystemExit(134)")
    sink = WindowSink(command=command, on_close=lambda: pytest.fail("nobody closed it"))

    def write_until_it_is_noticed() -> None:
        sink.write(Batch([make.frame()]))  # on a slow machine it is dead already
        sink._watcher.join(20)
        sink.write(Batch([make.frame(1)]))

    with pytest.raises(SinkError, match=r"the window has gone .exit code 134.; is there a display"):
        write_until_it_is_noticed()
    sink.close()


def test_a_sink_that_was_never_used_closes():
    WindowSink().close()
    assert WindowSink.best_effort


def test_the_child_imports_neither_the_project_nor_av():
    source = Path(window_module.__file__).with_name("_window_child.py").read_text()
    names = {alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"os", "sys", "threading", "cv2", "numpy"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(ast.parse(source)))


def test_a_display_is_looked_for_in_the_environment(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_display()
