"""Searches settings for a goal and writes them as a configuration: one setting after the other, each against the best so far.

A candidate and the best so far run in turn; it is taken only where the median of the rounds' ratios is better by more than the
noise of those rounds, so that a busy machine ends with the defaults and not with chance. What an interval that was
chosen changes in the rows is told as `quality`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks import host
from benchmarks.child import run_in_child
from benchmarks.clips import clip_of
from benchmarks.job import Job
from benchmarks.measure import Spread, percentile, ratios, spread
from benchmarks.quality import measure_quality
from benchmarks.throughput import rate
from engines import manifest, select
from engines.errors import UsageError

SCHEMA = 1
_LEAST_GAIN = 0.02


@dataclass(frozen=True)
class Goal:
    """What is better: more frames a second, or a younger frame where there are `fps` of them at least."""

    name: str
    fps: float | None = None

    def score(self, job: Job) -> float:
        """Higher is better: frames per second, or 1 / (95th percentile of the age, seconds); 0 where it misses `fps`."""
        if self.name == "fps":
            return rate(run_in_child(job))
        if self.fps is not None and rate(run_in_child(job)) < self.fps:
            return 0.0
        ages = run_in_child(replace(job, live=True))["ages"]
        return 1 / percentile(ages, 95) if ages else 0.0

    def told(self, score: float) -> str:
        return f"{score:.1f} FPS" if self.name == "fps" else "missed" if not score else f"age p95 {1000 / score:.0f} ms"


def candidates(goal: Goal, intervals: Sequence[int]) -> dict[str, list[Any]]:
    """Setting -> values to try beside the default, in the order of the search. What changes results, the interval, comes last."""
    threads = sorted({1, max(select.cores() // 2, 1), select.cores()})
    found: dict[str, list[Any]] = dict.fromkeys(("detect.parallel", "detect.threads", "classify.threads"), threads)
    if select.default_model("detector") != manifest.DEFAULTS["detector"]:  # it runs in int8, and its twin answers as well
        found["detect.model"] = [manifest.DEFAULTS["detector"]]
    found["max_batch"] = [1, 2, 4]
    if goal.name == "latency":
        found["live.lane"] = [1, 2]
    found["detect.interval"] = [n for n in intervals if n > 1]
    return {name: values for name, values in found.items() if values}


def tune(
    *, source: str = "demo", goal: Goal, outputs: Any = "full", imgsz: int = 640, intervals: Sequence[int] = (), runs: int = 3,
    max_frames: int | None = None, settings: dict[str, Any] | None = None, say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """`intervals`: detection intervals that may be chosen; they change results, so none unless asked for. `settings`: stay as they are."""
    about, fixed = host.manifest(), settings or {}
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        clip = clip_of(source, Path(folder), say)
        base = Job("full", clip, folder, imgsz=imgsz, outputs=outputs, max_frames=max_frames, settings=fixed)
        best: dict[str, Any] = {}
        tried: list[list[str]] = []
        for name, values in candidates(goal, intervals).items():
            if name in fixed:
                continue
            for value in values:
                if best.get(name) == value:
                    continue
                gain = _against(goal, base, best, {**best, name: value}, runs)
                taken = gain is not None and gain.median > 1 + max(_LEAST_GAIN, gain.noise)
                shown = "misses the goal" if gain is None else f"{gain.median:.3f}× ({gain.low:.3f}…{gain.high:.3f})"
                if gain is not None and math.isinf(gain.median):
                    shown = "reaches the goal, which the best so far misses"
                say(f"{name}={value}: {shown}{', taken' if taken else ''}")
                tried.append([f"{name}={value}", shown, "taken" if taken else ""])
                if taken:
                    best = {**best, name: value}
        final = goal.score(_job(base, best))
        quality = measure_quality(_job(base, best), say) if "detect.interval" in best else None  # nothing else changes rows
    reached = goal.told(final)
    said = f"{reached} with {', '.join(f'{k}={v}' for k, v in best.items()) or 'the defaults'}"
    said += f"; {quality.sentence}" if quality else ""
    table = {"title": f"Tried, each against the best so far (goal: {goal.name})", "head": ["setting", "gain", ""], "rows": tried,
             "sentence": said}  # fmt: skip
    return {
        "bench": "tune", "schema": SCHEMA, "goal": goal.name, "wanted_fps": goal.fps, "best": best, "reached": reached, "met": final > 0,
        "quality": quality.as_dict() if quality else None,
        "tables": [table], "plots": [], "settings": {"source": source, "outputs": outputs, "imgsz": imgsz, "runs": runs}, "host": about,
    }  # fmt: skip


def write_config(document: dict[str, Any], imgsz: int, fixed: dict[str, Any], path: Path) -> None:
    """The settings as YAML for `fer-stream --config`."""
    nested: dict[str, Any] = {}
    for dotted, value in {"detect.imgsz": imgsz, **fixed, **document["best"]}.items():
        *parents, last = dotted.split(".")
        section = nested
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    machine = document["host"]
    about = f"# fer-bench tune, goal {document['goal']}: {document['reached']} on {machine['cpu']}, {machine['cores']} cores\n"
    try:
        path.write_text(about + yaml.safe_dump(nested, sort_keys=False))
    except OSError as error:
        raise UsageError(f"the configuration {path} cannot be written: {error.strerror}") from error


def _job(base: Job, settings: dict[str, Any]) -> Job:
    rest = {name: value for name, value in settings.items() if name != "detect.interval"}
    return replace(base, interval=settings.get("detect.interval", base.interval), settings={**base.settings, **rest})


def _against(goal: Goal, base: Job, best: dict[str, Any], candidate: dict[str, Any], runs: int) -> Spread | None:
    """The candidate's score over the best's, round by round; None where it misses the goal."""
    old: list[float] = []
    new: list[float] = []
    for number in range(runs):
        for scores, settings in ((old, best), (new, candidate)) if number % 2 == 0 else ((new, candidate), (old, best)):
            scores.append(goal.score(_job(base, settings)))
    if not min(new):
        return None
    return ratios(new, old) if min(old) else spread([float("inf")])
