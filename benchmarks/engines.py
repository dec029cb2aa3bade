"""The engines alone: models × backends × precisions × batch sizes, and why the pipeline is slower than its engine.

All combinations are loaded first, then measured in turn, round by round, so that a machine that slows down slows all of them.
A combination that this machine cannot run is a row that says why.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import host
from benchmarks.measure import percentile, percentiles_ms
from engines import load_classifier, load_detector, manifest, select
from engines.errors import FerError, UsageError

SCHEMA = 1
_CALLS, _TURN_S = 6, 0.5
"""Most calls of one combination, and about how many seconds, before the next one has its turn."""
_WARM_UP = 3


@dataclass
class Combination:
    """One row."""

    task: str
    model: str
    backend: str
    precision: str
    batch: int
    infer: Callable[[], Any] | None = None
    why_not: str | None = None
    first_s: float = 0.0
    """Loading, compiling and the first answer."""
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    """Of all threads of the process."""

    def row(self, base: float | None) -> dict[str, Any]:
        """`base`: median seconds an image of what this is compared with."""
        row: dict[str, Any] = {
            "task": self.task, "model": self.model, "backend": self.backend, "precision": self.precision, "batch": self.batch,
            "why_not": self.why_not, "images_per_s": None, "per_image_ms": None, "per_call_ms": None, "cpu_ms_per_image": None,
            "speed": None, "first_s": round(self.first_s, 3),
        }  # fmt: skip
        if self.seconds:
            each = [seconds / self.batch for seconds in self.seconds]
            middle = percentile(each, 50)
            row.update(
                images_per_s=round(1 / middle, 2), per_image_ms=percentiles_ms(each), per_call_ms=percentiles_ms(self.seconds),
                cpu_ms_per_image=round(statistics.median(self.cpu_s) / self.batch * 1000, 3),
                speed=round(base / middle, 3) if base else None,
            )  # fmt: skip
        return row


def measure_engines(
    *, detectors: Sequence[str] = (), classifiers: Sequence[str] = (), backends: Sequence[str] = ("openvino", "onnxruntime", "torch"),
    precisions: Sequence[str] = ("f32", "bf16"), batches: Sequence[int] = (1, 4, 16), imgsz: int = 640, size: tuple[int, int] = (1280, 720),
    device: str = "auto", seconds: float = 40.0, say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Rounds through all combinations until `seconds` are over. `size`: of the frames, pixels; sets the detector's input."""
    if not backends or not precisions or not batches:
        raise UsageError("nothing to measure: name one backend, one precision and one batch size at least")
    about = host.manifest()
    named = {"detector": detectors, "classifier": classifiers}
    tasks = [(task, names or dict.fromkeys((manifest.DEFAULTS[task], select.default_model(task)))) for task, names in named.items()]
    found: list[Combination] = []
    for task, names in tasks:
        for name, backend, precision in itertools.product(names, backends, precisions):
            say(f"loading {name} on {backend} in {precision}")
            found += _load(task, name, backend, precision, batches, imgsz, size, device)
    end, rounds = time.monotonic() + seconds, 0
    runnable = [one for one in found if one.infer is not None]
    while runnable and (time.monotonic() < end or rounds < 2):
        for one in runnable if rounds % 2 == 0 else reversed(runnable):
            _measure(one)
        rounds += 1
    say(f"{rounds} rounds")
    rows = []
    for one in found:
        first = next((other for other in runnable if (other.task, other.model, other.batch) == (one.task, one.model, one.batch)), None)
        rows.append(one.row(_per_image(first) if first else None))
    settings = {"imgsz": imgsz, "frame": list(size), "rounds": rounds, "device": device}
    return {"bench": "engines", "schema": SCHEMA, "rows": rows, "settings": settings, "host": about, **_shown(rows)}


def _load(
    task: str, name: str, backend: str, precision: str, batches: Sequence[int], imgsz: int, size: tuple[int, int], device: str
) -> list[Combination]:
    """The combinations of one model; they share its engine. Each batch size is compiled and answered once."""
    random = np.random.default_rng(0)
    rows = [Combination(task, name, backend, precision, batch) for batch in batches]
    model: Any
    try:
        began = time.monotonic()
        if task == "detector":
            model = load_detector(name, imgsz=imgsz, backend=backend, device=device, precision=precision)
            g = model.geometry(*size)
            shape: tuple[int, ...] = (g.input_height, g.input_width, 3)
        else:
            model = load_classifier(name, backend=backend, device=device, precision=precision)
            channels, side = (3 if model.contract.colour == "rgb" else 1), model.contract.input_size
            shape = (channels, side, side)
        loading = time.monotonic() - began
        for row in rows:
            images = random.integers(0, 256, (row.batch, *shape), np.uint8)
            began = time.monotonic()
            model.infer(images)
            row.first_s = loading + time.monotonic() - began
            row.infer = lambda model=model, images=images: model.infer(images)
            for _ in range(_WARM_UP):
                row.infer()
    except FerError as error:
        for row in rows:
            row.infer, row.why_not = None, " ".join(str(error).split())
    return rows


def _measure(one: Combination) -> None:
    assert one.infer is not None
    one.infer()  # what others left in the caches is not its fault
    turn = time.monotonic() + _TURN_S
    for number in range(_CALLS):
        if number > 1 and time.monotonic() > turn:
            break
        cpu, began = time.process_time(), time.monotonic()
        one.infer()
        one.seconds.append(time.monotonic() - began)
        one.cpu_s.append(time.process_time() - cpu)


def _per_image(one: Combination) -> float:
    return percentile(one.seconds, 50) / one.batch


def _shown(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tables and a plot for tables and report."""
    names = ["model", "backend", "precision", "batch"]
    head = [*names, "images/s", "ms per image p50 / 95 / 99", "CPU ms per image", "speed", "first answer s"]
    cells, refused = [], []
    for row in rows:
        names = [row["model"], row["backend"], row["precision"], row["batch"]]
        if row["why_not"]:
            refused.append([*names[:3], row["why_not"]])
            continue
        each = " / ".join(f"{row['per_image_ms'][q]:.2f}" for q in ("p50", "p95", "p99"))
        speed = "–" if row["speed"] is None else f"{row['speed']:.2f}×"
        cells.append([*names, f"{row['images_per_s']:.1f}", each, f"{row['cpu_ms_per_image']:.2f}", speed, f"{row['first_s']:.2f}"])
    tables = [{"title": "Engines alone; speed is over the first row of that model and batch", "head": head, "rows": cells}]
    if refused:
        unique = [list(one) for one in dict.fromkeys(tuple(one) for one in refused)]
        tables.append({"title": "What this machine cannot run", "head": ["model", "backend", "precision", "why"], "rows": unique})
    measured = [row for row in rows if row["images_per_s"]]
    plots = [
        {
            "kind": "bars", "caption": f"{task}: one image, median.",
            "arguments": {
                "names": [f"{r['model']} {r['backend']} {r['precision']} ×{r['batch']}" for r in measured if r["task"] == task],
                "values": [r["per_image_ms"]["p50"] for r in measured if r["task"] == task], "x_label": "milliseconds an image",
            },
        }
        for task in ("detector", "classifier") if any(r["task"] == task for r in measured)
    ]  # fmt: skip
    return {"tables": tables, "plots": plots}


def add_explanation(document: dict[str, Any], detector: str | None, say: Callable[[str], None]) -> None:
    """Runs the pipeline with `detector` (None: its own choice) and adds a table to `document`, or a warning why there is none."""
    from benchmarks.runs import run_pipeline

    settings = document["settings"]
    name = detector or select.default_model("detector", device=settings["device"])
    backend = select.for_entry(manifest.find(name, "detector"), "auto", settings["device"])[1].backend
    rows = [row for row in document["rows"] if (row["task"], row["model"], row["backend"]) == ("detector", name, backend)]
    measured = [row for row in rows if row["per_image_ms"]]
    if not measured:
        why = rows[0]["why_not"] if rows else f"add --backend {backend}"
        document.setdefault("warnings", []).append(f"--explain: the pipeline runs {name} on {backend}, which was not measured: {why}")
        return
    changes = f"detect.model={name}", f"device={settings['device']}"
    whole = run_pipeline(imgsz=settings["imgsz"], changes=changes, runs=1, mode="throughput", say=say)
    document["tables"].append(explain(_as_in_pipeline(measured, whole), whole))


def _as_in_pipeline(rows: list[dict[str, Any]], d: dict[str, Any]) -> dict[str, Any]:
    """The row whose batch comes closest to the usual one of document `d`; of its precisions the fastest, which is what engines take."""
    sizes = d["stages"]["detect.model"]["batch_sizes"]
    usual = int(max(sizes, key=lambda size: int(size) * sizes[size]))
    return min(rows, key=lambda row: (abs(row["batch"] - usual), row["per_image_ms"]["p50"]))


def explain(alone: dict[str, Any], d: dict[str, Any]) -> dict[str, Any]:
    """Why the pipeline of document `d` is slower than its detector alone (its row): a table and a sentence."""
    engine_ms, frame_ms, inside = alone["per_image_ms"]["p50"], 1000 / d["fps"], d["stages"]["detect.model"]["ms_per_run_frame"]
    which = f"{alone['model']}, {alone['backend']} {alone['precision']} ×{alone['batch']}"
    rows = [[f"the detector alone, nothing beside it ({which})", f"{engine_ms:.2f}"], ["the same inside the pipeline", f"{inside:.2f}"]]
    rows.append(["the rest of the stage detect (scaling, boxes)", f"{d['stages']['detect']['ms_per_run_frame'] - inside:.2f}"])
    rows.append(["a frame of the pipeline", f"{frame_ms:.2f}"])
    rows += [[f"  CPU of {name}", f"{t['cpu_ms_per_frame']:.2f}"] for name, t in d["threads"].items() if t["cpu_ms_per_frame"] >= 0.05]
    cores, cpu = d["host"]["cores"], d["cpu_ms_per_frame"]
    sentence = (
        f"the detector alone takes {engine_ms:.1f} ms and a frame of the pipeline {frame_ms:.1f} ms: its threads need {cpu:.1f} ms of CPU "
        f"a frame, which {cores} cores give in {cpu / cores:.1f} ms at best, and while they run the detector itself takes {inside:.1f} ms"
    )
    return {"title": "Why the pipeline is slower than its engine", "head": ["", "ms"], "rows": rows, "sentence": sentence}
