"""The command line as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FER_STREAM = str(Path(sys.executable).with_name("fer-stream"))


def fer(*arguments: object, timeout: float = 120, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run fer-stream to its end, output captured."""
    return subprocess.run([FER_STREAM, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False, **kwargs)


def start(*arguments: object, **kwargs: Any) -> subprocess.Popen[str]:
    """Start fer-stream in the background."""
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([FER_STREAM, *map(str, arguments)], text=True, **(pipe | kwargs))


def rows(path: Path) -> list[dict[str, Any]]:
    """The event rows of a .jsonl file; a last line cut off by a kill is left out."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def faces(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of tracked faces."""
    return [row for row in found if row["kind"] == "face" and row["tracker_id"] is not None]


def until(condition: Callable[[], Any], timeout: float = 60, process: subprocess.Popen[str] | None = None) -> Any:
    """What `condition` gives as soon as it is true; fails when time is up or the process has ended."""
    end = time.monotonic() + timeout
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {timeout} s in vain"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended early with {process.returncode}: {process.stderr.read() if process.stderr else ''}")
        pause.wait(0.02)
    return value


def last_time(path: Path) -> float:
    """PTS of the last whole row of a growing .jsonl, −1 before any."""
    if not path.exists():
        return -1.0
    return max((row["pts_s"] for row in rows(path)[-20:] if row["pts_s"] is not None), default=-1.0)
