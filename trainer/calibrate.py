"""Whether "0.8" means right eight times in ten: temperature scaling (Guo et al. 2017), calibration error, abstention."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The T > 0 that minimises the negative log-likelihood of softmax(logits / T): golden section on log T."""

    def loss(log_t: float) -> float:
        p = softmax(logits / np.exp(log_t))
        return float(-np.log(p[np.arange(len(label)), label] + 1e-12).mean())

    low, high, ratio = np.log(0.2), np.log(5.0), (np.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return float(np.exp((low + high) / 2))


def reliability(probabilities: np.ndarray, label: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """The top answers in `bins` equal-width bins of their probability: (N, C), (N,) -> "edges" (bins + 1,), "count" (bins,),
    "confidence" and "accuracy" (bins,), NaN where a bin is empty. A probability on an edge counts in the bin above."""
    top, right = probabilities.max(1), probabilities.argmax(1) == label
    which = np.minimum((top * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (np.bincount(which, weights=values, minlength=bins) / count for values in (top, right))
    return {"edges": np.linspace(0, 1, bins + 1), "count": count, "confidence": confidence, "accuracy": accuracy}


def expected_calibration_error(probabilities: np.ndarray, label: np.ndarray, bins: int = 15) -> float:
    """Σ (share of a bin) · |accuracy − mean top probability|, equal-width bins of the top probability (Naeini et al. 2015)."""
    found = reliability(probabilities, label, bins)
    return float(np.nansum(found["count"] * np.abs(found["accuracy"] - found["confidence"])) / max(len(label), 1))


def risk_coverage(probabilities: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, C), (N,) -> coverage and risk, (N,) each: share of the faces answered, surest first, and the share of wrong ones among those.

    Their mean risk is the area under the curve, AURC (Geifman & El-Yaniv 2017).
    """
    order = np.argsort(-probabilities.max(1), kind="stable")
    answered = np.arange(1, len(order) + 1)
    wrong = (probabilities.argmax(1) != label)[order]
    return answered / max(len(order), 1), np.cumsum(wrong) / answered


def abstention_threshold(probabilities: np.ndarray, label: np.ndarray, accuracy: float = 0.5) -> float:
    """The lowest top probability from which an answer is right at least `accuracy` of the time.

    Read off the risk–coverage curve locally: answers sorted by top probability, a running mean over 150 of them; below the
    threshold a guess is more often wrong than right, and "uncertain" is the honest answer. (N, C), (N,) -> 0…1, two decimals.
    """
    order = np.argsort(probabilities.max(1))
    top, right = probabilities.max(1)[order], (probabilities.argmax(1) == label)[order].astype(float)
    window = min(150, len(top))
    running = np.convolve(right, np.ones(window) / window, "valid")
    good = np.flatnonzero(running >= accuracy)
    start = int(good[0]) if len(good) else len(running) - 1
    return round(float(top[start + window // 2]) if start else float(top[0]), 2)
