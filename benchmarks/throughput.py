"""As fast as possible: the full job and the bare chain in turn, round by round, each in a process of its own.

Order changes from round to round (bare, full, own; own, full, bare), so that a machine that warms up or slows down favours
neither. A round's ratio is formed from runs that lie next to each other; the median of the ratios is the efficiency.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.child import run_in_child
from benchmarks.job import Job
from benchmarks.measure import Spread, Window, ratios, spread
from engines import manifest, select
from engines.errors import UsageError

_MODELS = Path(__file__).parent / "models"
KEPT_MODEL = _MODELS / "yolo11n_face_unpruned.xml"
"""The first, unpruned detector (fp16 OpenVINO), which the bare chain keeps whatever ours becomes."""


@dataclass
class Throughput:
    """The records of all rounds; index i of each list is round i."""

    full_records: list[dict[str, Any]] = field(default_factory=list)
    bare_records: list[dict[str, Any]] = field(default_factory=list)
    own_records: list[dict[str, Any]] = field(default_factory=list)
    """The bare chain with our default detector; empty where that is the kept one."""
    own_detector: str | None = None
    """The model of own_records: its name and the beginning of its SHA-256."""

    @property
    def full(self) -> Spread:
        """Frames per second."""
        return spread(_rates(self.full_records))

    @property
    def bare(self) -> Spread:
        return spread(_rates(self.bare_records))

    @property
    def efficiency(self) -> Spread:
        """The full job's frames per second over the bare chain's, round by round."""
        return ratios(_rates(self.full_records), _rates(self.bare_records))

    @property
    def efficiency_own(self) -> Spread:
        """The same over the chain with our default detector."""
        return ratios(_rates(self.full_records), _rates(self.own_records or self.bare_records))

    @property
    def cpu_efficiency(self) -> Spread:
        """CPU time a frame of the bare chain over the full job's. What else runs on the machine hardly moves it."""
        return ratios(_costs(self.bare_records), _costs(self.full_records))


def measure_throughput(
    job: Job, *, runs: int = 3, bare_model: str | None = None, own: bool = True, budget_s: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Throughput:  # fmt: skip
    """`runs` rounds; fewer where the next one would not end within `budget_s` seconds (one is always run)."""
    bare = replace(job, kind="bare", model=bare_model or str(kept_model()))
    jobs = [(bare, "bare chain"), (job, "full job")]
    entry, result = own_detector(job), Throughput()
    if own and entry is not None and bare_model is None:
        jobs.append((replace(bare, model=str(entry.path)), "bare chain, own detector"))
        result.own_detector = f"{entry.name} {entry.digest[:12]}"
    records = dict(zip((name for _, name in jobs), (result.bare_records, result.full_records, result.own_records), strict=False))
    began = time.monotonic()
    for number in range(runs):
        if budget_s is not None and number and (time.monotonic() - began) * (number + 1) / number > budget_s:
            say(f"time is up: {number} of {runs} rounds")
            break
        for one, name in jobs if number % 2 == 0 else reversed(jobs):
            record = run_in_child(one)
            records[name].append(record)
            say(f"round {number + 1}/{runs}: {name} {rate(record):.1f} FPS, {cost(record) * 1000:.1f} ms CPU a frame")
    return result


def window(record: dict[str, Any]) -> Window:
    """The stable part of a recorded run."""
    return Window(record["counted"], record["begin"], record["end"], record["begin_cpu"], record["end_cpu"])


def rate(record: dict[str, Any]) -> float:
    """Frames per second of the stable window."""
    return window(record).rate


def cost(record: dict[str, Any]) -> float:
    """CPU seconds a frame of the stable window, of the whole process; 0 without a frame."""
    return window(record).cost


def kept_model() -> Path:
    """The bare chain's model; UsageError where an installation left it out."""
    if not KEPT_MODEL.is_file():
        raise UsageError("the bare chain's model is not installed; run fer-bench in a checkout, or give one with --bare-model")
    return KEPT_MODEL


def own_detector(job: Job) -> manifest.Entry | None:
    """The full job's detector; None where it is the kept one itself, or none that OpenVINO reads."""
    name = job.settings.get("detect.model", "auto")
    entry = manifest.find(select.default_model("detector") if name == "auto" else name, "detector")
    kept = json.loads((_MODELS / "models.json").read_text())["yolo11n_face_unpruned"]["made_from_sha256"]
    if entry.digest == kept or entry.path.suffix.lower() not in (".onnx", ".xml"):
        return None
    return entry


def _rates(records: list[dict[str, Any]]) -> list[float]:
    return [rate(record) for record in records]


def _costs(records: list[dict[str, Any]]) -> list[float]:
    return [cost(record) for record in records]
