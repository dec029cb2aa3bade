"""From the start of the process to the first row of a frame, as whoever starts fer-stream sees it."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.child import BenchError
from benchmarks.job import Job

_FRAMES = 40
_MAIN = "from pipeline.cli import main; main()"
"""What the console script fer-stream does."""


def start_s(job: Job) -> float:
    """Seconds until `fer-stream --events -` has written the first row of a frame of `job.clip`."""
    settings = {"detect.interval": job.interval, "detect.imgsz": job.imgsz, **job.settings}
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-c", _MAIN, "--source", job.clip, "--events", "-", "--quiet", "--max-frames", str(_FRAMES), *changes]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if json.loads(line)["kind"] in ("face", "frame"):
                    return time.monotonic() - began
        finally:
            process.kill()
    raise BenchError(f"fer-stream wrote no row for {job.clip}; run it by hand: fer-stream --source {job.clip} --events -")
