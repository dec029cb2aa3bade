"""Deterministic answers without a model: for tests of what is built on engines, and for trying a pipeline in no time.

The detector finds bright blobs, or what it was told to find; the classifier reads the mean grey level. Both speak the
same arrays as real models, so decoding, NMS, letterbox and softmax are run for real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from engines.backends.base import TensorSpec
from engines.contract import HEADS, LABELS
from engines.errors import EngineError

BRIGHT = 200
"""Pixels from this grey level on belong to a face of the fake detector."""
SCORE = 0.9
"""Confidence of each."""
TOP = 0.7
"""Probability of the label that the fake classifier says; the others share the rest."""

Answer = Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]


def bright_blobs(images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(N, H, W, 3) uint8 -> per image (K, 4) xyxy of the connected areas brighter than BRIGHT, of 16 pixels or more, and (K,) scores."""
    import cv2

    answers = []
    for image in images:
        mask = (image.mean(2) >= BRIGHT).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        blobs = stats[1:][stats[1:, 4] >= 16].astype(np.float32)
        xyxy = np.concatenate([blobs[:, :2], blobs[:, :2] + blobs[:, 2:4]], 1)
        answers.append((xyxy, np.full(len(xyxy), SCORE, np.float32)))
    return answers


def fixed_boxes(xyxy: Sequence[Sequence[float]], scores: Sequence[float] | None = None) -> Answer:
    """An answer that is the same for every image: boxes in pixels of the detector's input."""
    boxes = np.asarray(xyxy, np.float32).reshape(-1, 4)
    confidences = np.full(len(boxes), SCORE, np.float32) if scores is None else np.asarray(scores, np.float32)
    return lambda images: [(boxes, confidences)] * len(images)


def label_of(grey: float) -> int:
    """Index of the label that the fake classifier gives to a mean grey level 0…255: dark is angry, bright is neutral."""
    return min(int(grey / 256 * len(LABELS)), len(LABELS) - 1)


class FakeBackend:
    """Opened for "detector" or "classifier", told apart by the file's name: `fake.detector`, `fake.classifier`."""

    name = "fake"
    device = "cpu"

    def __init__(self, task: str = "detector", answer: Answer = bright_blobs) -> None:
        self._task, self._answer, self._closed = task, answer, False
        if task == "detector":
            self.inputs: tuple[TensorSpec, ...] = (TensorSpec("images", np.dtype(np.uint8), (None, None, None, 3)),)
            self.outputs: tuple[TensorSpec, ...] = (TensorSpec("boxes", np.dtype(np.float32), (None, 5, None)),)
        else:
            self.inputs = (TensorSpec("faces", np.dtype(np.uint8), (None, 1, 40, 40)),)
            self.outputs = tuple(TensorSpec(head, np.dtype(np.float32), (None, len(LABELS))) for head in HEADS)

    @classmethod
    def open(
        cls, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str | None = None, requests: int = 1
    ) -> Self:
        return cls(Path(path).suffix.lstrip(".") or "detector")

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self._closed:
            raise EngineError("the fake model was closed and can no longer be run; load it again")
        return [self._boxes(arrays[0])] if self._task == "detector" else self._logits(arrays[0])

    def close(self) -> None:
        self._closed = True

    def _boxes(self, images: np.ndarray) -> np.ndarray:
        answers = self._answer(images)
        out = np.zeros((len(images), 5, max([len(xyxy) for xyxy, _ in answers], default=0)), np.float32)
        for row, (xyxy, scores) in zip(out, answers, strict=True):
            row[:2, : len(xyxy)] = (xyxy[:, :2] + xyxy[:, 2:]).T / 2
            row[2:4, : len(xyxy)] = (xyxy[:, 2:] - xyxy[:, :2]).T
            row[4, : len(xyxy)] = scores
        return out

    def _logits(self, faces: np.ndarray) -> list[np.ndarray]:
        rest = (1 - TOP) / (len(LABELS) - 1)
        probs = np.full((len(faces), len(LABELS)), rest, np.float32)
        for row, face in zip(probs, faces, strict=True):
            row[label_of(float(face.mean()))] = TOP
        return [np.log(probs)] * len(HEADS)
