"""Temperature scaling (Guo et al. 2017) and the calibration error it is judged by."""

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


def expected_calibration_error(probabilities: np.ndarray, label: np.ndarray, bins: int = 15) -> float:
    """Σ (share of a bin) · |accuracy − mean top probability|, equal-width bins of the top probability."""
    top, right = probabilities.max(1), probabilities.argmax(1) == label
    which = np.minimum((top * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        inside = which == b
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    return float(error)


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
