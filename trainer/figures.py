"""What is measured of a classifier's answers: everything that a report shows, as one dict that JSON can hold.

Figures come from the probabilities alone, so that a checkpoint and each engine made of it are judged alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support, roc_auc_score, roc_curve, top_k_accuracy_score

from engines.errors import UsageError
from trainer.calibrate import expected_calibration_error, reliability, risk_coverage

_POINTS = 201
"""Points of a curve that are kept."""


def figures(
    probabilities: np.ndarray, truth: np.ndarray, labels: Sequence[str], *, in_training: np.ndarray | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """(N, C) probabilities and (N,) truth, an index into `labels` -> the figures, undefined ones None.

    A label that no face has keeps its row and column of the confusion matrix; its own figures are None and stay out of the macro
    averages. `in_training` (N,) bool: faces whose pixels stand in the training data too. `threshold`: the top probability from which
    the model answers at all. Raises UsageError where there is no face.
    """
    if not len(truth):
        raise UsageError("there is no face to judge by; another --split, --head or --label-map may leave some")
    columns, probabilities = range(len(labels)), probabilities.astype(np.float64)
    probabilities = probabilities / probabilities.sum(1, keepdims=True)
    top, right = probabilities.max(1), probabilities.argmax(1) == truth
    counts = confusion_matrix(truth, probabilities.argmax(1), labels=columns)
    support = counts.sum(1)
    unseen = None if in_training is None else ~in_training
    return {
        "faces": len(truth),
        "accuracy": float(right.mean()),
        "accuracy_unseen": None if unseen is None or not unseen.any() else float(right[unseen].mean()),
        "faces_unseen": None if unseen is None else int(unseen.sum()),
        "top2_accuracy": float(top_k_accuracy_score(truth, probabilities, k=2, labels=columns)) if len(labels) > 2 else 1.0,
        **_per_label(probabilities, truth, labels, support),
        "confusion": {
            "rows": "true label", "columns": "predicted label", "labels": list(labels), "counts": counts.tolist(),
            "rates": [[c / n for c in row] if n else [None] * len(labels) for row, n in zip(counts.tolist(), support, strict=True)],
        },
        "nll": float(log_loss(truth, probabilities, labels=columns)),
        "brier": float(np.square(probabilities - np.eye(len(labels))[truth]).sum(1).mean()),
        "ece": expected_calibration_error(probabilities, truth),
        "reliability": {name: _plain(values) for name, values in reliability(probabilities, truth).items()},
        "risk_coverage": _risk_coverage(probabilities, truth, top, right, threshold),
    }  # fmt: skip


def _per_label(probabilities: np.ndarray, truth: np.ndarray, labels: Sequence[str], support: np.ndarray) -> dict[str, Any]:
    present = np.flatnonzero(support)
    predicted = probabilities.argmax(1)
    scores = precision_recall_fscore_support(truth, predicted, labels=present, average=None, zero_division=0)
    names = ("precision", "recall", "f1")
    rows: dict[str, dict[str, Any]] = {label: dict.fromkeys(names) | {"support": 0, "auc": None} for label in labels}
    roc: dict[str, Any] = {}
    for i, k in enumerate(present):
        row = rows[labels[k]]
        row.update({name: float(values[i]) for name, values in zip(names, scores, strict=False)}, support=int(support[k]))
        if support[k] < len(truth):
            row["auc"] = float(roc_auc_score(truth == k, probabilities[:, k]))
            false, true, _ = roc_curve(truth == k, probabilities[:, k])
            kept = _spread(len(false))
            roc[labels[k]] = {"false_positive_rate": _plain(false[kept]), "true_positive_rate": _plain(true[kept])}
    areas = [row["auc"] for row in rows.values() if row["auc"] is not None]
    return {
        "labels": rows,
        "macro": {name: float(values.mean()) for name, values in zip(names, scores, strict=False)},
        "weighted": {name: float(np.average(values, weights=support[present])) for name, values in zip(names, scores, strict=False)},
        "macro_auc": float(np.mean(areas)) if areas else None,
        "roc": roc,
    }


def _risk_coverage(
    probabilities: np.ndarray, truth: np.ndarray, top: np.ndarray, right: np.ndarray, threshold: float | None
) -> dict[str, Any]:
    coverage, risk = risk_coverage(probabilities, truth)
    kept = _spread(len(coverage))
    answered = top >= (threshold or 0.0)
    at = None if threshold is None else {
        "threshold": float(threshold), "coverage": float(answered.mean()),
        "accuracy": float(right[answered].mean()) if answered.any() else None,
    }  # fmt: skip
    return {"area": float(risk.mean()), "coverage": _plain(coverage[kept]), "risk": _plain(risk[kept]), "uncertain": at}


def _spread(count: int) -> np.ndarray:
    """Indices of at most _POINTS of `count` points, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))


def _plain(values: np.ndarray) -> list[Any]:
    """As JSON holds it: four decimals, None for NaN."""
    return [None if v != v else v if isinstance(v, int) else round(v, 4) for v in values.tolist()]


def parse_label_map(text: str) -> dict[str, str]:
    """"old=new,other=" -> {"old": "new", "other": ""}; "" leaves a class out. Raises UsageError."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    wrong = [old for old, equals, _ in pairs if not equals or not old.strip()]
    if wrong:
        raise UsageError(f"--label-map expected old=new,…, got {wrong[0]!r}; for example contempt=disgust,unknown=")
    return {old.strip(): new.strip() for old, _, new in pairs}


def map_labels(truth: np.ndarray, classes: Sequence[str], labels: Sequence[str], mapping: Mapping[str, str]) -> np.ndarray:
    """(N,) indices into the data's `classes` (-1: none) -> indices into the model's `labels`, -1 for what is left out.

    `mapping` renames classes, "" leaves one out; the others must be labels of the model, unless no face has them. Raises UsageError.
    """
    lost = [f"{old}={new}" for old, new in mapping.items() if new and new not in labels]
    if lost:
        raise UsageError(f"--label-map has {lost[0]}, which is no label of the model; it has {', '.join(labels)}")
    table = np.full(len(classes) + 1, -1)  # the last place answers for -1
    for k, name in enumerate(classes):
        name = mapping.get(name, name)
        if name in labels:
            table[k] = labels.index(name)
        elif name and (truth == k).any():
            raise UsageError(f"the model has no label {name!r} of the data; map it (--label-map {name}=LABEL) or leave it out ({name}=)")
    return table[truth]
