"""A real browser, over WebDriver's plain HTTP (W3C WebDriver, 2018): Debian's chromium and chromedriver."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required", "--allow-file-access-from-files",
)  # fmt: skip


class Browser:
    """One session."""

    def __init__(self, port: int, profile: str, width: int, height: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        options = {"args": [*_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]}
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})
        self._base += f"/session/{answer['sessionId']}"
        self._call("POST", "/timeouts", {"script": 30000})
        exact = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}  # a window is never narrower than 500
        self._call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": exact})

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def script(self, text: str, *arguments: Any) -> Any:
        """Runs `text`; its last argument is a function to call with the result."""
        return self._call("POST", "/execute/async", {"script": text, "args": list(arguments)})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser(width: int = 1200, height: int = 900) -> Iterator[Browser]:
    """Skips where chromium or chromedriver is absent."""
    if not shutil.which("chromedriver") or not shutil.which("chromium"):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        try:
            assert driver.stdout
            line = next(line for line in driver.stdout if "started successfully on port" in line)
            session = Browser(int(line.rsplit(" ", 1)[1].strip(". \n")), profile, width, height)
            yield session
        finally:
            # The whole group at once: nothing of it is needed any more, and a browser outlives its driver.
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
