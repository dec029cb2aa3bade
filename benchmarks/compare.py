"""The full job against what a user would pick instead: the same clip, machine and run, alternating.

The rivals need torch and ultralytics, which the run time does not have: they run in a Python of their own (`--python`). One that
cannot run is a row that says why.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import host
from benchmarks.child import ROOT, BenchError, run_in_child, run_module
from benchmarks.clips import clip_of
from benchmarks.job import Job, probe
from benchmarks.measure import ratios, spread
from benchmarks.options import settings_of
from benchmarks.quality import Quality, measure_quality
from benchmarks.rivals import KINDS
from benchmarks.throughput import cost, rate
from engines import manifest
from engines.errors import UsageError

SCHEMA = 1
OURS = "fer-stream"


def measure_compare(
    *, source: str = "demo", python: str | None = None, fer_python: str | None = None, checkpoint: str | None = None, interval: int = 1,
    imgsz: int = 640, outputs: Any = "full", runs: int = 3, max_frames: int | None = None, changes: tuple[str, ...] = (),
    budget_s: float = 600.0, rivals: Sequence[str] = (), say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """`python`: of an environment with torch and ultralytics; `fer_python`: of one with the fer package. `interval` is ours alone:
    the rivals detect on every frame. What our rows lose by it and by the other settings is told as `quality`."""
    unknown = [name for name in rivals if name not in KINDS]
    if unknown:
        raise UsageError(f"there is no rival {unknown[0]!r}; known: {', '.join(KINDS)}")
    settings = settings_of(changes, "detect.interval", "detect.imgsz", "stride")
    about, began = host.manifest(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        clip = clip_of(source, Path(folder), say)
        info = probe(clip)
        ours = Job("full", clip, folder, interval, imgsz, outputs, max_frames=max_frames, settings=settings)
        g = info.geometry(imgsz)
        shared = {"clip": clip, "folder": folder, "imgsz": imgsz, "export_imgsz": [g.input_height, g.input_width], "outputs": outputs,
                  "max_frames": max_frames, "rate": info.rate, "checkpoint": checkpoint,
                  "conf": manifest.find(None, "detector").contract.conf}  # type: ignore[union-attr]  # fmt: skip
        jobs: dict[str, Callable[[], dict[str, Any]]] = {OURS: lambda: run_in_child(ours)}
        skipped: dict[str, str] = {}
        for kind in rivals or KINDS:
            try:
                jobs[kind] = _prepared(kind, shared, python, fer_python, say)
            except (BenchError, UsageError) as error:
                skipped[kind] = str(error)
                say(f"{kind} is left out: {error}")
        quality = measure_quality(ours, say)
        records = _rounds(jobs, skipped, runs, budget_s - (time.monotonic() - began), say)
    return _document(records, skipped, quality, about, source, ours, info)


def _prepared(
    kind: str, shared: dict[str, Any], python: str | None, fer_python: str | None, say: Callable[[str], None]
) -> Callable[[], dict[str, Any]]:
    """How it is run; raises with the reason where it cannot be."""
    own = kind.startswith("fer-")
    chosen = fer_python if own else python
    if chosen is None:
        packages, option = ("the fer package", "--fer-python") if own else ("torch and ultralytics", "--python")
        raise UsageError(f"it needs {packages}: name the Python of an environment that has them with {option}")
    if os.path.dirname(chosen):  # else it is looked up in PATH
        chosen = os.path.abspath(chosen)
    job = {**shared, "kind": kind}
    if not own and shared["checkpoint"] is None:
        raise UsageError("it needs the detector's checkpoint: name the .pt with --checkpoint")
    if kind == "track-openvino":
        say("exporting the detector with ultralytics")
        job["export"] = _run_rival({**shared, "kind": "export"}, chosen)["export"]
    return lambda: _run_rival(job, chosen)


def _run_rival(job: dict[str, Any], python: str) -> dict[str, Any]:
    question, answer = Path(job["folder"]) / "rival.json", Path(job["folder"]) / "rival-result.json"
    question.write_text(json.dumps(job))
    ours = Path(job["folder"]) / "ours"  # where we are installed our own dependencies lie beside us, and would go before the rival's
    ours.mkdir(exist_ok=True)
    for name in ("benchmarks", "engines"):
        if not (ours / name).exists():
            (ours / name).symlink_to(ROOT / name, target_is_directory=True)
    run_module("benchmarks.rivals", [str(question), str(answer)], f"rival {job['kind']}", python, ours)
    return json.loads(answer.read_text())


def _rounds(
    jobs: dict[str, Callable[[], dict[str, Any]]], skipped: dict[str, str], runs: int, budget_s: float, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    began = time.monotonic()
    for number in range(runs):
        if number and (time.monotonic() - began) * (number + 1) / number > budget_s:
            say(f"time is up: {number} of {runs} rounds")
            break
        for name in list(records) if number % 2 == 0 else list(reversed(records)):
            try:
                record = jobs[name]()
            except BenchError as error:
                if name == OURS:
                    raise
                skipped[name] = str(error)
                del records[name]
                say(f"{name} is left out: {error}")
                continue
            records[name].append(record)
            say(f"round {number + 1}/{runs}: {name} {rate(record):.1f} FPS, {cost(record) * 1000:.1f} ms CPU a frame")
    return records


def _document(
    records: dict[str, list[dict[str, Any]]], skipped: dict[str, str], quality: Quality, about: dict[str, Any], source: str, job: Job,
    info: Any,
) -> dict[str, Any]:  # fmt: skip
    rates = {name: [rate(record) for record in many] for name, many in records.items()}
    costs = {name: [cost(record) for record in many] for name, many in records.items()}
    found = {}
    for name, many in records.items():
        times, cheaper = ratios(rates[OURS], rates[name]), ratios(costs[name], costs[OURS])
        found[name] = {
            "fps": round(spread(rates[name]).median, 2), "fps_spread": spread(rates[name]).rounded(2),
            "ours_is_faster_by": round(times.median, 3), "ours_is_faster_by_spread": times.rounded(3),
            "ours_needs_less_cpu_by": round(cheaper.median, 3), "ours_needs_less_cpu_by_spread": cheaper.rounded(3),
            "cpu_ms_per_frame": round(spread(costs[name]).median * 1000, 3), "peak_mb": round(max(r["peak_mb"] for r in many), 1),
            "faces_per_frame": round(many[0]["faces"] / max(many[0]["frames"], 1), 2),
        }  # fmt: skip
    names = {OURS: "fer-stream, the full job", **KINDS}
    rows = [
        [names[name], f"{one['fps']:.1f}", f"{one['ours_is_faster_by']:.2f}×", "{:.2f}…{:.2f}".format(*one["ours_is_faster_by_spread"]),
         f"{one['ours_needs_less_cpu_by']:.2f}×", f"{one['cpu_ms_per_frame']:.1f}", one["faces_per_frame"], f"{one['peak_mb']:.0f}"]
        for name, one in found.items()
    ]  # fmt: skip
    head = ["", "FPS", "ours is faster by", "range", "by CPU time", "CPU ms a frame", "faces found a frame", "peak MB"]
    tables = [{"title": "The same clip, in turn", "head": head, "rows": rows}, quality.table()]
    if skipped:
        tables.append({"title": "Left out", "head": ["", "why"], "rows": [[KINDS[name], why] for name, why in skipped.items()]})
    others = [one for one in found if one != OURS]
    values = [found[name]["ours_is_faster_by"] for name in others]
    ranges = [found[name]["ours_is_faster_by_spread"] for name in others]
    pairs = list(zip(values, ranges, strict=True))
    errors = [[value - low for value, (low, _) in pairs], [high - value for value, (_, high) in pairs]]
    plot = {"kind": "bars", "caption": "How many times faster than each; the line is the range of the rounds.",
            "arguments": {"names": others, "values": values, "x_label": "times as fast", "errors": errors}}  # fmt: skip
    return {
        "bench": "compare", "schema": SCHEMA, "compared": found, "quality": quality.as_dict(), "skipped": skipped, "tables": tables,
        "plots": [plot] if others else [], "warnings": [] if quality.equal else [quality.sentence],
        "settings": {"source": source, "width": info.width, "height": info.height, "interval": job.interval, "imgsz": job.imgsz,
                     "outputs": job.outputs, "runs": len(records[OURS]), "max_frames": job.max_frames},
        "host": about,
    }  # fmt: skip
