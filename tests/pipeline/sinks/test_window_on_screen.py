"""The window for real, on a virtual screen: a picture is on it, `q` ends the run, and its death harms nothing.

Needs Xvfb and xdotool; skips where they are absent.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from command import fer, start, until

pytestmark = pytest.mark.skipif(not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs the Debian packages xvfb and xdotool")


class Screen:
    """A virtual screen; `env` for what shall appear on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        read, write = os.pipe()
        # -noreset: a server starts anew when its last client leaves, xdotool as well, and kills a window that connects at that moment.
        self.server = subprocess.Popen(
            ["Xvfb", "-noreset", "-displayfd", str(write), "-screen", "0", "1024x768x24", "-fbdir", str(folder), "-nolisten", "tcp"],
            pass_fds=(write,), stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(write)
        with os.fdopen(read) as told:  # the number comes when the screen is ready
            self.env = {**os.environ, "DISPLAY": f":{told.readline().strip()}", "QT_LOGGING_RULES": "*=false"}
        self.env.pop("WAYLAND_DISPLAY", None)

    def windows(self, name: str) -> list[str]:
        found = subprocess.run(["xdotool", "search", "--onlyvisible", "--name", f"^{name}$"], env=self.env, capture_output=True, text=True)
        return found.stdout.split()

    def press(self, window: str, key: str) -> None:
        # Not checked: the window may be gone before the key is let go, which xdotool counts as an error.
        subprocess.run(["xdotool", "key", "--window", window, key], env=self.env, capture_output=True)

    def colours(self) -> int:
        """How many different ones are on it."""
        data = (self.folder / "Xvfb_screen0").read_bytes()
        head, colours = (int.from_bytes(data[at : at + 4], "big") for at in (0, 76))
        return len(np.unique(np.frombuffer(data, np.uint8, 1024 * 768 * 4, head + 12 * colours).view(np.uint32)))

    def close(self) -> None:
        self.server.terminate()
        self.server.wait()


@pytest.fixture
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    made = Screen(tmp_path_factory.mktemp("screen"))
    yield made
    made.close()


def child_of(process: subprocess.Popen[str]) -> int | None:
    """The window's own process."""
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and f"\nPPid:\t{process.pid}\n" in (entry / "status").read_text()
                and b"_window_child" in (entry / "cmdline").read_bytes()
            ):
                return int(entry.name)
        except OSError:
            continue
    return None


def test_the_picture_is_on_the_screen_and_q_ends_the_run(screen: Screen, tmp_path: Path) -> None:
    # Without a window manager Qt leaves one window in six unpainted, whoever pokes it; eight in a row are a fault of ours.
    painted = False
    for attempt in range(8):
        output = tmp_path / f"{attempt}.mp4"
        process = start("--source", "demo", "--realtime", "--backend", "fake", "--show", "--output", output, "--quiet", env=screen.env)
        (window,) = until(lambda: screen.windows("demo"), process=process)
        with suppress(AssertionError):  # time is up
            if painted := until(lambda: screen.colours() > 500, timeout=8, process=process):
                break
        process.kill()
        process.communicate()
        until(lambda: not screen.windows("demo"))
    assert painted
    screen.press(window, "q")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    with av.open(str(output)) as container:
        assert 0 < container.streams.video[0].frames < 300  # ended early, and whole


@pytest.mark.parametrize("victim", ["window", "screen"])
def test_its_death_harms_nothing(screen: Screen, tmp_path: Path, victim: str) -> None:
    process = start("--source", "demo", "--realtime", "--backend", "fake", "--show", "--max-frames", 90, "--output", tmp_path / "a.mp4",
                    env=screen.env)  # fmt: skip
    until(lambda: screen.windows("demo"), process=process)
    child = child_of(process)
    assert child
    if victim == "window":
        os.kill(child, signal.SIGKILL)
    else:
        screen.close()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "window: the window has gone" in errors
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].frames == 90
    assert child_of(process) is None


def test_without_a_screen_the_run_goes_on(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = fer("--source", "demo", "--backend", "fake", "--show", "--max-frames", 5, "--events", tmp_path / "a.csv", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("fer-stream: --show: no display is set")
    assert (tmp_path / "a.csv").read_text().count(",face,") > 0
