"""Does a new engine say what the fp32 model says? On real images, before it may be written.

Faces are what people see, so detections are compared, not the raw numbers of 5,040 anchors that nobody looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.preprocess import pair

if TYPE_CHECKING:
    from engines.classifier import Classifier
    from engines.detector import Detector

LIMITS: dict[str, tuple[float, float]] = {"fp32": (1e-3, 0.99), "fp16": (2e-3, 0.99), "bf16": (1e-2, 0.98), "int8": (2e-2, 0.94)}
"""Precision -> largest mean deviation of a probability or confidence, smallest agreement.

Measured, mean deviation and agreement: the classifier on 300 PublicTest crops, fp16 .00002 and 1, bf16 .0004 and 1, int8 .008 and
.950; the detector on 60 images of faces/val, fp16 .0001 and 1, bf16 .004 and .998, int8 .006 and .997,
the shipped one in OpenVINO's int8 .015 and .970. A detector quantised as a
whole, which had lost 16 points of AP50, stood at .019 and .926.
"""
LOST = 0.02
"""Most accuracy or AP50 that an engine may lose on a labelled set."""


@dataclass(frozen=True)
class Parity:
    """An engine beside the fp32 model."""

    samples: int
    max_deviation: float
    """Of a class's probability, or of a face's confidence."""
    mean_deviation: float
    agreement: float
    """Share of the crops with the same label; of the faces found by either, those found by both (IoU of .5, confidence of the
    contract)."""
    pixels: float | None = None
    """Mean deviation of the edges of boxes found by both; None for classifiers."""
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Measure -> (fp32, engine), where a labelled set was given."""

    def problems(self, precision: str) -> list[str]:
        """Why the engine must not be used; empty where it may."""
        deviation, agreement = LIMITS[precision]
        found = []
        if not self.mean_deviation <= deviation:  # NaN is a problem too
            found.append(f"the mean deviation is {self.mean_deviation:.4f}, at most {deviation:g} is expected of {precision}")
        if not self.agreement >= agreement:
            found.append(f"{self.agreement:.1%} of its answers agree, at least {agreement:.0%} is expected of {precision}")
        found += [
            f"{name} falls from {reference:.4f} to {score:.4f}, at most {LOST:g} may be lost"
            for name, (reference, score) in self.scores.items() if not reference - score <= LOST
        ]  # fmt: skip
        return found


def classifier_parity(reference: Classifier, engine: Classifier, samples: Sequence[np.ndarray]) -> Parity:
    """`samples`: inputs of one or more crops each, as Classifier.infer takes them."""
    batch = np.concatenate(samples)
    wanted, got = (np.concatenate([one.infer(batch[at : at + 8]) for at in range(0, len(batch), 8)]) for one in (reference, engine))
    deviation = np.abs(wanted - got)
    return Parity(len(batch), float(deviation.max()), float(deviation.mean()), float((wanted.argmax(1) == got.argmax(1)).mean()))


def detector_parity(reference: Detector, engine: Detector, samples: Sequence[np.ndarray]) -> Parity:
    """`samples`: letterboxed images (1, H, W, 3), as Detector.infer takes them. Without a face in them nothing can be said: NaN."""
    confidences, edges, found, met = [], [], 0, 0
    for sample in sorted(samples, key=lambda sample: sample.shape):  # by shape: each is compiled once
        (boxes, scores), (others, other_scores) = (one.infer(sample, one.conf)[0] for one in (reference, engine))
        pairs = pair(boxes, others)
        found += len(boxes) + len(others)
        met += 2 * len(pairs)
        for i, j in pairs:
            confidences.append(abs(float(scores[i] - other_scores[j])))
            edges.append(float(np.abs(boxes[i] - others[j]).mean()))
    if not confidences:
        return Parity(len(samples), float("nan"), float("nan"), met / found if found else float("nan"), float("nan"))
    return Parity(len(samples), max(confidences), float(np.mean(confidences)), met / found, float(np.mean(edges)))


def scores_of(reference: Any, engine: Any, labelled: Any, task: str) -> dict[str, tuple[float, float]]:
    """Measure -> (fp32, engine): AP50 of faces from 8 and 32 px, or accuracy. `labelled`: read_pictures() or read_faces()."""
    from engines.build.accuracy import score_classifier, score_detector

    if task == "classifier":
        return {"accuracy": (score_classifier(reference, labelled), score_classifier(engine, labelled))}
    one, other = score_detector(reference, labelled), score_detector(engine, labelled)
    return {f"AP50 of faces >= {side} px": (one["ap50"][side], other["ap50"][side]) for side in one["ap50"]}
