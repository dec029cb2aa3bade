"""How the speed changes with what there is to do: faces in a frame, sources at once, resolution, the detector's input size.

Clips are composed so that one thing changes at a time. All points of a curve are measured in turn, round by round, and each is
told as a share of the curve's first point of the same round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import host
from benchmarks.child import run_in_child
from benchmarks.clips import MOST_FACES, compose_faces
from benchmarks.job import Job
from benchmarks.measure import Spread, ratios, spread
from benchmarks.throughput import cost, rate
from engines.errors import UsageError

SCHEMA = 1
HEIGHTS = {360: 640, 480: 854, 720: 1280, 1080: 1920, 1440: 2560, 2160: 3840}
"""Height -> width of 16:9."""


@dataclass(frozen=True)
class Axis:
    """One curve: what changes, and how a job is made for a value of it."""

    title: str
    unit: str
    values: tuple[int, ...]
    known: Collection[int]
    """Values that can be measured."""
    job: Callable[[Job, int, Path, int], Job]
    """(base, value, folder, frames of a clip) -> job."""


def _faces(base: Job, value: int, folder: Path, frames: int) -> Job:
    return replace(base, clip=str(compose_faces(folder / f"faces{value}.mp4", value, frames=frames)))


def _sources(base: Job, value: int, folder: Path, frames: int) -> Job:
    clip = _once(folder / "sources.mp4", frames)
    # Each point decodes about as many frames; a source never fewer than a few times the 12 that the tracker holds back.
    return replace(base, clip=clip, sources=value, max_frames=max(frames // value, 40))


def _resolution(base: Job, value: int, folder: Path, frames: int) -> Job:
    clip = compose_faces(folder / f"height{value}.mp4", 2, width=HEIGHTS[value], height=value, frames=frames)
    return replace(base, clip=str(clip))


def _imgsz(base: Job, value: int, folder: Path, frames: int) -> Job:
    return replace(base, clip=_once(folder / "imgsz.mp4", frames), imgsz=value)


def _once(path: Path, frames: int) -> str:
    return str(path if path.exists() else compose_faces(path, 2, frames=frames))


AXES = {
    "faces": Axis("Faces in a frame", "faces", (0, 1, 2, 4, 8, 16, 32), range(MOST_FACES + 1), _faces),
    "sources": Axis("Sources at once", "sources", (1, 2, 4, 8, 16), range(1, 65), _sources),
    "resolution": Axis("Resolution", "lines", tuple(HEIGHTS), HEIGHTS, _resolution),
    "imgsz": Axis("Longer side of the detector's input", "pixels", (320, 448, 640, 800, 960), range(64, 4097), _imgsz),
}


def measure_scale(
    *, axes: Sequence[str] = tuple(AXES), values: dict[str, Sequence[int]] | None = None, outputs: Any = "events", interval: int = 1,
    runs: int = 2, frames: int = 120, settings: dict[str, Any] | None = None, say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """`values`: other points for an axis. `frames` of each clip (sources: of all together)."""
    values = values or {}
    unknown = [name for name in (*axes, *values) if name not in AXES]
    if unknown or not axes:
        raise UsageError(f"there is no axis {unknown[0] if unknown else ''!r}; known: {', '.join(AXES)}")
    for name, points in values.items():
        if name not in axes:
            raise UsageError(f"points of {name} are named, which is not measured; add it to --axis")
        for value in points:
            if value not in AXES[name].known:
                raise UsageError(f"{AXES[name].title.lower()}: {value} cannot be measured; known: {_told(AXES[name].known)}")
    about = host.manifest()
    found = {}
    for name in axes:
        points = tuple(values.get(name) or AXES[name].values)
        with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
            base = Job("full", "", folder, interval=interval, outputs=outputs, settings=settings or {})
            found[name] = _measure(AXES[name], points, base, Path(folder), frames, runs, say)
    settled = {"outputs": outputs, "interval": interval, "runs": runs, "frames": frames, "settings": settings or {}}
    return {"bench": "scale", "schema": SCHEMA, "axes": found, "settings": settled, "host": about, **_shown(found)}


def _told(known: Collection[int]) -> str:
    return f"{known[0]} to {known[-1]}" if isinstance(known, range) else ", ".join(map(str, known))


def _measure(
    axis: Axis, points: Sequence[int], base: Job, folder: Path, frames: int, runs: int, say: Callable[[str], None]
) -> dict[str, Any]:
    say(f"{axis.title.lower()}: composing {len(points)} clips")
    jobs = {value: axis.job(base, value, folder, frames) for value in points}
    records: dict[int, list[dict[str, Any]]] = {value: [] for value in points}
    for number in range(runs):
        for value in points if number % 2 == 0 else reversed(points):
            records[value].append(run_in_child(jobs[value]))
            last = records[value][-1]
            say(f"round {number + 1}/{runs}: {value} {axis.unit}: {rate(last):.1f} FPS, {cost(last) * 1000:.1f} ms CPU a frame")
    rates = {value: [rate(record) for record in many] for value, many in records.items()}
    costs = {value: [cost(record) * 1000 for record in many] for value, many in records.items()}
    first = points[0]
    return {
        "title": axis.title,
        "unit": axis.unit,
        "points": [
            {
                "value": value, **_spread("fps", spread(rates[value])), **_spread("speed", ratios(rates[value], rates[first])),
                **_spread("cpu_ms_per_frame", spread(costs[value])), **_spread("cpu_cost", ratios(costs[value], costs[first])),
                "peak_mb": round(max(record["peak_mb"] for record in records[value]), 1),
                "faces_per_frame": round(records[value][0]["faces"] / max(records[value][0]["frames"], 1), 2),
            }
            for value in points
        ],
    }  # fmt: skip


def _spread(name: str, value: Spread) -> dict[str, Any]:
    return {name: round(value.median, 3), f"{name}_spread": value.rounded(3)}


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    tables, plots = [], []
    for axis in found.values():
        points = axis["points"]
        tables.append({
            "title": axis["title"],
            "head": [axis["unit"], "FPS", "speed", "CPU ms a frame", "CPU cost", "faces found a frame", "peak MB"],
            "rows": [[p["value"], f"{p['fps']:.1f}", f"{p['speed']:.2f}×", f"{p['cpu_ms_per_frame']:.1f}", f"{p['cpu_cost']:.2f}×",
                      p["faces_per_frame"], f"{p['peak_mb']:.0f}"] for p in points],
        })  # fmt: skip
        for name, label in (("fps", "frames per second"), ("cpu_ms_per_frame", "CPU milliseconds a frame")):
            plots.append({
                "kind": "curves", "caption": f"{axis['title']}: {label}, all sources together; the band is the range of the rounds.",
                "arguments": {
                    "x": [p["value"] for p in points], "x_label": axis["unit"], "y_label": label,
                    "lines": {label: ([p[name] for p in points], [p[f"{name}_spread"][0] for p in points],
                                      [p[f"{name}_spread"][1] for p in points])},
                },
            })  # fmt: skip
    return {"tables": tables, "plots": plots}
