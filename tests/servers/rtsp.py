"""RTSP servers for tests: `from rtsp import rtsp_server` in a conftest.py or a test file gives the fixture.

    def test_…(rtsp_server):
        server = rtsp_server(clip=media / "d02_sad_to_laugh.mp4", user="u", password="p", auth="basic")   all optional
        server.url("/live")                   rtsp://127.0.0.1:PORT/live; also /file and /silent (see rtsp_server.py)
        server.url("/live", "u", "p")         with the password in it
        server.kill(); server.start()         the same port again
        server.freeze(); server.thaw()        SIGSTOP, SIGCONT: connections stay, nothing answers

Skips, saying why, where GStreamer's server or its Python binding is missing.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_PYTHON = "/usr/bin/python3"
_SCRIPT = Path(__file__).with_name("rtsp_server.py")
_PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
)


def free_port() -> int:
    """A TCP port of the loopback where nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RtspServer:
    """One server process; `start` returns when it listens."""

    def __init__(self, **options: object) -> None:
        self.port = free_port()
        self._options = {key: value for key, value in options.items() if value is not None}
        self._process: subprocess.Popen[str] | None = None

    def url(self, path: str = "/live", user: str = "", password: str = "") -> str:
        login = f"{user}:{password}@" if user else ""
        return f"rtsp://{login}127.0.0.1:{self.port}{path}"

    def start(self) -> RtspServer:
        options = [f"--{key}={value}" for key, value in self._options.items()]
        self._process = subprocess.Popen(
            [_PYTHON, str(_SCRIPT), f"--port={self.port}", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "READY\n", f"the RTSP server did not start: {line!r}"
        return self

    def kill(self) -> None:
        """SIGKILL, works on a frozen one too; twice is harmless."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@functools.cache
def missing() -> str:
    """Why there can be no server here; empty where there can."""
    check = (
        "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer; Gst.init(None)\n"
        "print([name for name in ('x264enc', 'rtph264pay', 'qtdemux', 'videotestsrc') if Gst.ElementFactory.find(name) is None])"
    )
    try:
        found = subprocess.run([_PYTHON, "-c", check], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{_PYTHON} does not run ({error})"
    return "" if found.stdout.strip() == "[]" else f"no GStreamer RTSP server: apt-get install --no-install-recommends {_PACKAGES}"


@pytest.fixture
def rtsp_server() -> Iterator[Callable[..., RtspServer]]:
    """Starts servers that end with the test."""
    if reason := missing():
        pytest.skip(reason)
    servers: list[RtspServer] = []

    def start(**options: object) -> RtspServer:
        servers.append(RtspServer(**options))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()
