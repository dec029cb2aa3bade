"""What `fer-bench pipeline` does, from options to document; `check` does the same."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import host
from benchmarks.child import run_in_child
from benchmarks.clips import clip_of
from benchmarks.document import SCHEMA, latency_part, pipeline_document
from benchmarks.job import Job, probe
from benchmarks.measure import spread
from benchmarks.options import settings_of
from benchmarks.startup import start_s
from benchmarks.throughput import measure_throughput


def run_pipeline(
    *, source: str = "demo", interval: int = 1, imgsz: int = 640, outputs: Any = "full", runs: int = 3, max_frames: int | None = None,
    changes: tuple[str, ...] = (), bare_model: str | None = None, mode: str = "both", budget_s: float = 200.0, paced_s: float = 20.0,
    starts: int = 3, say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Measures and tells; see `document` for what comes back. `starts`: how often the time to the first row is measured."""
    settings = settings_of(changes, "detect.interval", "detect.imgsz", "stride")
    about = host.manifest()  # before: the load it tells must not be ours
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        clip = clip_of(source, Path(folder), say)
        job = Job("full", clip, folder, interval, imgsz, outputs, max_frames=max_frames, settings=settings)
        info = probe(clip)
        latency = None
        if mode == "throughput":  # else the paced run does it: files of models and packages come into the page cache
            say("warming up (not counted)")
            run_in_child(replace(job, max_frames=40))
        else:
            frames = min(n for n in (round(paced_s * info.rate), max_frames, info.frames) if n)
            say(f"paced run through a live lane: {frames / info.rate:.0f} s")
            latency = run_in_child(replace(job, live=True, max_frames=frames))
        if mode == "latency":
            assert latency is not None
            return _latency_document(job, latency, about, source)
        first_rows = [start_s(job) for _ in range(starts)] if mode == "both" else []
        left = max(budget_s - (time.monotonic() - began), 1.0)
        result = measure_throughput(job, runs=runs, bare_model=bare_model, budget_s=left, say=say)
        document = pipeline_document(job, result, latency, about, source, bare_model)
        document["start_s"] = round(spread(first_rows).median, 3) if first_rows else None
        document["start_s_spread"] = spread(first_rows).rounded() if first_rows else None
        return document


def _latency_document(job: Job, record: dict[str, Any], about: dict[str, Any], source: str) -> dict[str, Any]:
    settings = {"source": source, "interval": job.interval, "imgsz": job.imgsz, "outputs": job.outputs}
    return {"bench": "latency", "schema": SCHEMA, **latency_part(record, probe(job.clip).rate), "settings": settings, "host": about}
