"""What cheaper settings cost: event rows of a run against those of a reference run of the same clip.

The reference detects on every frame and reads every face. Faces of a frame are matched by IoU, the largest overlap first; F1 is
formed over all frames together, and of the matched faces it is told how many have the same label. A speed-up by cheaper settings
is worth telling only where both are ≥ .95: at equal event quality.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import host
from benchmarks.child import run_in_child
from benchmarks.clips import clip_of
from benchmarks.job import Job, probe
from engines.preprocess import iou_with

EQUAL = 0.95
LEAST_IOU = 0.5
REFERENCE = {"classify.max_faces": 1000, "classify.max_age_s": 0.0, "stride": 1}
"""Every frame, every face."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Quality:
    """Shares, 0…1."""

    precision: float
    """Of our faces, those that the reference has too; 1 without any."""
    recall: float
    """Of the reference's faces, those that are among ours; 1 without any."""
    face_f1: float
    label_agreement: float | None
    """Of the matched faces, those with the same `emotion`; None where none is matched."""
    matched: int
    """Faces, all frames together."""

    @property
    def equal(self) -> bool:
        return self.face_f1 >= EQUAL and (self.label_agreement is None or self.label_agreement >= EQUAL)

    @property
    def sentence(self) -> str:
        labels = "no face to compare labels of" if self.label_agreement is None else f"label agreement {self.label_agreement:.3f}"
        not_equal = f"NOT equal event quality (both ≥ {EQUAL:g}), so a speed-up by these settings says little"
        return f"face F1 {self.face_f1:.3f}, {labels}: {'equal event quality' if self.equal else not_equal}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: round(value, 4) if value is not None else None for name, value in asdict(self).items()} | {"equal": self.equal}

    def table(self) -> dict[str, Any]:
        """For `tables.print_tables` and the report."""
        shares = (self.face_f1, self.precision, self.recall, self.label_agreement)
        return {
            "title": f"Event quality against every frame and face (IoU ≥ {LEAST_IOU:g})",
            "head": ["face F1", "precision", "recall", "label agreement", "matched faces"],
            "rows": [[*("–" if share is None else f"{share:.3f}" for share in shares), self.matched]], "sentence": self.sentence,
        }  # fmt: skip


def measure_quality(job: Job, say: Callable[[str], None] = lambda text: None) -> Quality:
    """Runs `job` and its reference, rows alone and as fast as possible; the size of the detector's input is the same for both."""
    say("event quality: our settings, then every frame and every face")
    return event_quality(_rows_of(job), _reference_rows(job))


def measure_intervals(
    sources: Sequence[str], intervals: Sequence[int], *, imgsz: int = 640, settings: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Per clip, what is lost where the detector looks at every n-th frame only; a document with a table and curves."""
    about, found = host.manifest(), []
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        clips = [clip_of(source, Path(folder), say) for source in sources]
        for clip in clips:  # all of them, before the first is measured
            probe(clip)
        for source, clip in zip(sources, clips, strict=True):
            say(f"{Path(source).name}: every frame and face, then every {', '.join(map(str, intervals))} frames")
            job = Job("full", clip, folder, imgsz=imgsz, settings=settings or {})
            reference = _reference_rows(job)
            lost = {n: event_quality(_rows_of(replace(job, interval=n)), reference) for n in intervals}
            found.append({"clip": Path(source).name, "intervals": {str(n): quality.as_dict() for n, quality in lost.items()}})
    head = ["clip", *(f"every {n}: face F1 / labels" for n in intervals)]
    rows = [[one["clip"], *(_shares(one["intervals"][str(n)]) for n in intervals)] for one in found]
    lines = {"face F1": _curve(found, intervals, "face_f1")}
    if all(any(one["intervals"][str(n)]["matched"] for one in found) for n in intervals):
        lines["label agreement"] = _curve(found, intervals, "label_agreement")
    caption = "Median of the clips against a run that looks at every frame and reads every face; the band is their range."
    curves = {"x": list(intervals), "x_label": "detection on every n-th frame", "y_label": "share", "lines": lines}
    return {
        "bench": "quality", "schema": 1, "clips": found, "plots": [{"kind": "curves", "caption": caption, "arguments": curves}],
        "tables": [{"title": f"Event quality against every frame and face (IoU ≥ {LEAST_IOU:g})", "head": head, "rows": rows}],
        "settings": {"intervals": list(intervals), "imgsz": imgsz, "settings": settings or {}}, "host": about,
    }  # fmt: skip


def _reference_rows(job: Job) -> list[Row]:
    return _rows_of(replace(job, interval=1, settings={**job.settings, **REFERENCE}))


def _rows_of(job: Job) -> list[Row]:
    """Runs `job` for its rows alone, as fast as possible."""
    run_in_child(replace(job, outputs="events", live=False))
    return read_rows(Path(job.folder) / "full.jsonl")


def _shares(quality: dict[str, Any]) -> str:
    label = quality["label_agreement"]
    return f"{quality['face_f1']:.3f} / {'–' if label is None else f'{label:.3f}'}"


def _curve(found: list[dict[str, Any]], intervals: Sequence[int], key: str) -> tuple[list[float], list[float], list[float]]:
    """Median, least and most of the clips that have a value, per interval."""
    per = [[one["intervals"][str(n)][key] for one in found] for n in intervals]
    known = [[value for value in values if value is not None] for values in per]
    return [float(np.median(values)) for values in known], [min(values) for values in known], [max(values) for values in known]


def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl that a run has written."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def event_quality(rows: Iterable[Row], reference: Iterable[Row], least_iou: float = LEAST_IOU) -> Quality:
    """Rows of kind "face" are compared frame by frame (source, epoch, frame); others are left out."""
    ours, theirs = _by_frame(rows), _by_frame(reference)
    pairs = [pair for key in ours.keys() & theirs.keys() for pair in _matched(ours[key], theirs[key], least_iou)]
    found, there = (sum(map(len, side.values())) for side in (ours, theirs))
    same = sum(a["emotion"] == b["emotion"] for a, b in pairs)
    return Quality(
        precision=len(pairs) / found if found else 1.0, recall=len(pairs) / there if there else 1.0,
        face_f1=2 * len(pairs) / (found + there) if found + there else 1.0,
        label_agreement=same / len(pairs) if pairs else None, matched=len(pairs),
    )  # fmt: skip


def _by_frame(rows: Iterable[Row]) -> dict[Any, list[Row]]:
    frames: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "face":
            frames[row["source"], row["epoch"], row["frame"]].append(row)
    return frames


def _matched(ours: list[Row], theirs: list[Row], least_iou: float) -> list[tuple[Row, Row]]:
    """Each face once at most, the largest overlap first."""
    overlap, pairs = iou_with(_boxes(ours), _boxes(theirs)), []
    while overlap.size and overlap.max() >= least_iou:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        pairs.append((ours[i], theirs[j]))
        overlap[i], overlap[:, j] = -1, -1
    return pairs


def _boxes(rows: list[Row]) -> np.ndarray:
    """(N, 4) xyxy, pixels."""
    return np.array([[row[side] for side in ("x1", "y1", "x2", "y2")] for row in rows], np.float64)
