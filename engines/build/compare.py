"""Every backend and precision that this machine has, side by side: speed, deviation from fp32, accuracy, size, time to load."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engines import cpu, fit, load_classifier, load_detector, manifest, select
from engines.build import parity as check
from engines.build.calibration import parity_samples
from engines.build.measure import example_batch, ms_per_image
from engines.errors import EngineError, FerError
from engines.sidecar import read_description

BATCHES = (1, 4, 8, 16)
SIDES = (384, 640)
"""Height and width that detectors are timed at: a 16:9 video at 640."""
PRECISIONS: dict[str, tuple[str | None, ...]] = {
    "openvino": ("f32", "bf16", "f16"), "torch": ("f32", "bf16"), "onnxruntime": ("f32",), "tensorrt": (None,), "tensorrt-rtx": (None,),
}  # fmt: skip
"""What each backend computes in at run time; int8 is in the model's file."""
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "torch": {"eager": {"cuda_graphs": False}, "compiled": {"compile": True}},
    "onnxruntime": {"with tensorrt": {"provider": "tensorrt"}},
}
"""On a GPU also these ways to run a backend: name -> its options."""


@dataclass
class Row:
    """One line of the table."""

    task: str
    model: str
    backend: str
    precision: str
    device: str = ""
    size_mb: float = 0.0
    load_s: float = 0.0
    """From the file to the first answer, the library already imported."""
    ms: dict[int, float] = field(default_factory=dict)
    """Batch -> milliseconds per image."""
    max_deviation: float | None = None
    mean_deviation: float | None = None
    agreement: float | None = None
    score: float | None = None
    """Accuracy, or AP50 of faces from 16 px."""
    problem: str = ""
    """Why there is no figure."""


def compare(
    *, data: Path | None = None, batches: Sequence[int] = BATCHES, models: Sequence[str] = (), deviations: bool = True,
    budget_s: float = 20.0, threads: int | None = None, say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """A row for each shipped model (or those named), backend and precision. `data`: labelled images, for accuracy.

    What cannot run here is a row that says why. `budget_s`: seconds for the timing of one model at one batch. Raises UsageError for
    `data` that cannot be read.
    """
    entries = [entry for entry in manifest.shipped().values() if not models or entry.name in models]
    for task in sorted({entry.task for entry in entries}) if data is not None else ():
        _labelled(task, data, 1)  # what cannot be read is said before minutes of timing
    return [row for entry in entries for row in _of_model(entry, data, batches, deviations, budget_s, threads, say)]


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows with what they were measured on."""
    import platform

    machine = {"processor": processor(), "system": platform.platform(), "gpus": select.gpu_count()}
    return {"machine": machine, "rows": [asdict(row) for row in rows]}


def processor() -> str:
    """Its name, and what it has for small numbers."""
    import os

    return f"{cpu.name()}, {os.cpu_count()} cores, {' '.join(cpu.units())}"


def _of_model(
    entry: manifest.Entry, data: Path | None, batches: Sequence[int], deviations: bool, budget_s: float, threads: int | None,
    say: Callable[[str], None],
) -> list[Row]:
    load: Any = load_detector if entry.task == "detector" else load_classifier
    rows: list[Row] = []
    loaded: dict[str, tuple[Row, Any]] = {}
    for backend, precision, variant in _cases(entry, select.gpu_count()):
        row = Row(entry.task, entry.name, f"{backend} {variant}".strip(), precision or "int8")
        rows.append(row)
        say(f"{entry.name} {row.backend} {row.precision}")
        try:
            started = time.perf_counter()
            model: Any = entry.name
            if backend in select.GPU_ONLY:
                model = _engine_of(entry, backend)
                row.precision = read_description(model).precision
            one = load(model, backend=backend, precision=precision, threads=threads, options=VARIANTS.get(backend, {}).get(variant))
            one._engine.infer([example_batch(one._engine.inputs[0].shape, 1, SIDES)])
            row.load_s, row.device = time.perf_counter() - started, one.device
            row.size_mb = entry.size / 1e6
            loaded[f"{row.backend} {precision}"] = (row, one)
        except FerError as error:
            row.problem = str(error)
    for batch in batches:
        say(f"{entry.name}: batch {batch}")
        runs = {name: _run(one, example_batch(one._engine.inputs[0].shape, batch, SIDES)) for name, (_, one) in loaded.items()}
        for name, ms in ms_per_image(runs, batch, budget_s=budget_s).items():
            loaded[name][0].ms[batch] = round(ms, 3)
    if deviations and loaded:
        _add_deviations(entry, data, loaded, say)
    for _, one in loaded.values():
        one.close()
    return rows


def _engine_of(entry: manifest.Entry, backend: str) -> Path:
    """The engine that `auto` would take. Raises EngineError where there is none."""
    found, refused = fit.find_engine(entry, "cuda:0")
    if found is not None and found[1] == backend:
        return found[0]
    raise EngineError("; ".join(refused) or "the engine that fits is for another backend")


def _cases(entry: manifest.Entry, gpus: int) -> list[tuple[str, str | None, str]]:
    """(backend, precision, variant) for all that is installed."""
    cases: list[tuple[str, str | None, str]] = []
    for backend, precisions in PRECISIONS.items():
        if select.installed(backend) and (gpus or backend not in select.GPU_ONLY):
            # An int8 file says what is int8; for the rest the backend takes what is fastest.
            halves = ("f16",) if gpus and backend == "torch" else ()
            wanted = (None,) if entry.source.get("precision") == "int8" else (*precisions, *halves)
            variants = ("", *(VARIANTS.get(backend, ()) if gpus else ()))
            cases += [(backend, precision, variant) for variant in variants for precision in wanted]
    return cases


def _run(one: Any, batch: np.ndarray) -> Callable[[], object]:
    return lambda: one._engine.infer([batch])


def _add_deviations(entry: manifest.Entry, data: Path | None, loaded: dict[str, Any], say: Callable[[str], None]) -> None:
    task: Any = check.detector_parity if entry.task == "detector" else check.classifier_parity
    original = entry.source.get("quantised_from", entry.name)
    load: Any = load_detector if entry.task == "detector" else load_classifier
    reference = load(original, backend="openvino", precision="f32")
    samples = parity_samples(reference, data, None)
    labelled = None
    for row, one in loaded.values():
        say(f"{entry.name} {row.backend} {row.precision}: deviation from fp32")
        try:
            found = task(reference, one, samples)
            row.max_deviation, row.mean_deviation, row.agreement = found.max_deviation, found.mean_deviation, found.agreement
            if data is not None:
                labelled = _labelled(entry.task, data) if labelled is None else labelled
                row.score = _score(entry.task, one, labelled)
        except FerError as error:
            row.problem = str(error)
    reference.close()


def _labelled(task: str, data: Path, limit: int | None = None) -> Any:
    from engines.build.labelled import read_faces, read_pictures

    return read_faces(data, "PublicTest", limit) if task == "classifier" else read_pictures(data, "val", limit)


def _score(task: str, one: Any, labelled: Any) -> float:
    from engines.build.accuracy import FLOOR, score_classifier, score_detector
    from engines.detector import Detector

    if task == "classifier":
        return score_classifier(one, labelled)
    return float(score_detector(Detector(one._engine, one.entry, conf=FLOOR), labelled, (16,))["ap50"][16])
