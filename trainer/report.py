"""A report in a folder: metrics.json, the pictures as PNG, and one page that holds all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.contract import HEADS
from engines.errors import UsageError
from trainer import plots
from trainer.judge import Judged
from trainer.predictor import Predictor, views
from trainer.report_page import page

_CHARTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "confusion_counts": ("Confusion matrix: faces for each true and predicted label", plots.confusion_counts),
    "confusion_rates": ("Confusion matrix: shares of each true label", plots.confusion_rates),
    "roc": ("ROC curve of each label against the others", plots.roc),
    "reliability": ("Reliability diagram: accuracy over probability, and a histogram", plots.reliability),
    "risk_coverage": ("Share of wrong answers over the share of faces answered", plots.risk_coverage),
    "f1": ("F1 of each label", plots.f1_bars),
}
_MISTAKES = 8
"""Faces in a row of the grid of mistakes."""


def write_report(
    folder: Path, report: Mapping[str, Any], judged: Sequence[Judged], *, faces: bool = True, predictor: Predictor | None = None,
    say: Callable[[str], Any] = lambda text: None,
) -> list[Path]:
    """Writes `report` (what metrics.json holds) and its pictures to `folder`; returns the files, the page last.

    Without `faces` no picture of the data is made: no grid of mistakes, no Grad-CAM. `predictor`: for Grad-CAM and training curves,
    which only a run has. Raises UsageError where `folder` cannot be written.
    """
    _writing(folder, folder.mkdir, parents=True, exist_ok=True)
    notes: list[str] = []
    pictures: dict[str, dict[str, tuple[str, bytes]]] = {}
    for one in judged:
        say(f"drawing {one.head}")
        mine = {name: (words, plots.png(draw, one.figures)) for name, (words, draw) in _CHARTS.items()}
        if faces:
            mine["misclassified"] = ("Faces that were read wrongly", plots.png(mistakes, one))
            try:
                mine["gradcam"] = ("Grad-CAM: where the network looks", plots.png(looks, one, predictor))
            except UsageError as error:
                notes += [f"{error}."] if f"{error}." not in notes else []
        pictures[one.head] = mine
    if not faces:
        notes.append("Pictures of the data (misclassified faces, Grad-CAM) were left out (--no-faces).")
    if predictor and predictor.run and (log := read_log(predictor.run / "log.jsonl")):
        pictures[""] = {"training": ("Losses and scores over the epochs of training", plots.png(plots.training_curves, log))}
    files = {"metrics.json": json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n"}
    for head, mine in pictures.items():
        files |= {f"{head}_{name}.png" if head else f"{name}.png": data for name, (_, data) in mine.items()}
    files["index.html"] = page(report, pictures, notes).encode()
    for name, data in files.items():
        part = folder / f"{name}.part"
        _writing(folder, part.write_bytes, data)
        _writing(folder, part.replace, folder / name)
    return [folder / name for name in files]


def mistakes(judged: Judged) -> Any:
    """The surest wrong answers to the faces of each true label."""
    labels, p = judged.figures["confusion"]["labels"], judged.probabilities
    predicted = p.argmax(1)
    rows: dict[str, list[Any]] = {}
    for k, label in enumerate(labels):
        wrong = np.flatnonzero((judged.truth == k) & (predicted != k))
        wrong = wrong[np.argsort(-p[wrong].max(1), kind="stable")][:_MISTAKES]
        rows[label] = [(judged.images[i], f"{labels[predicted[i]]} {p[i].max():.0%}\n{label} {p[i, k]:.0%}", False) for i in wrong]
    title = "Misclassified faces, the surest of each true label: predicted label and its probability, below it the true one's"
    return plots.face_grid(title, rows, _MISTAKES)


def looks(judged: Judged, predictor: Predictor | None) -> Any:
    """Pairs of a face and its Grad-CAM, explaining the predicted label: the surest and the middle one (the two surest are often copies
    of one image) of right and of wrong answers. UsageError where the model has no gradients to ask."""
    if predictor is None or predictor.module is None:
        name = predictor.name if predictor else "this model"
        raise UsageError(f"There is no Grad-CAM: it needs gradients, which the engine {name} lacks; give its run's folder as --model")
    from trainer.gradcam import gradcam, overlay

    labels, predicted = judged.figures["confusion"]["labels"], judged.probabilities.argmax(1)
    rows: dict[str, list[Any]] = {}
    for k, label in enumerate(labels):
        mine = np.flatnonzero(judged.truth == k)
        sure = mine[np.argsort(-judged.probabilities[mine].max(1), kind="stable")]
        right = predicted[sure] == k
        chosen = [i for some in (sure[right], sure[~right]) for i in dict.fromkeys(some[[0, len(some) // 2]] if len(some) else [])]
        rows[label] = []
        if not chosen:
            continue
        (batch,) = views(judged.images[chosen], predictor.input_size)
        head = HEADS.index(judged.head)
        for i, view, heat in zip(chosen, batch, gradcam(predictor.module, batch, head, predicted[chosen]), strict=True):
            face = view[0] if len(view) == 1 else view.transpose(1, 2, 0)
            hit = bool(predicted[i] == k)
            caption = f"{labels[predicted[i]]} {judged.probabilities[i].max():.0%}"
            rows[label] += [(face, caption, hit), (overlay(face, heat), "looks here", hit)]
    title = "Grad-CAM of the predicted label: of each true label the surest and a middling answer, right and wrong"
    return plots.face_grid(title, rows, 8)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl, the last of each epoch (a resumed run may have repeated one); none where there is no log."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return sorted({row["epoch"]: row for row in rows}.values(), key=lambda row: row["epoch"])


def _writing(folder: Path, do: Callable[..., Any], *args: Any, **options: Any) -> None:
    try:
        do(*args, **options)
    except OSError as error:
        raise UsageError(f"cannot write the report to {folder}: {error.strerror}; give another folder with --report") from error
