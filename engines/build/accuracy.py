"""How good a model is on labelled images: AP50 by face size and recall at few false positives; accuracy of expressions.

A detector's score follows the usual AP at IoU .5 with all-point interpolation, per smallest face: faces whose longer side
is under it are ignored, and so are detections under it and those that match an ignored face. Images pooled, confidence from
.01 up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.contract import LABELS
from engines.errors import UsageError
from engines.preprocess import iou_with

if TYPE_CHECKING:
    from engines.build.labelled import Faces, Picture
    from engines.classifier import Classifier
    from engines.detector import Detector

SIDES = (8, 16, 32)
"""Smallest longer sides of a face, pixels of the image."""
FLOOR = 0.01
"""Lowest confidence that counts."""
IMAGES_PER_FALSE_POSITIVE = 20


def detector_metrics(detector: Detector, pictures: Sequence[Picture], sides: Sequence[int] = SIDES) -> dict[str, Any]:
    """What a manifest says of a detector: of one look at each picture, and where its contract has it look twice at still ones, of that.

    `detector` at FLOOR.
    """
    metrics: dict[str, Any] = {}
    for mirror in (False, True) if detector.contract.mirror else (False,):
        scores, how = score_detector(detector, pictures, sides, mirror=mirror), ", also mirrored" if mirror else ""
        for measure, name in (("ap50", "ap50"), ("recall", f"recall at 1 false positive per {IMAGES_PER_FALSE_POSITIVE} images")):
            metrics[name + how] = {f"faces >= {side} px": round(value, 4) for side, value in scores[measure].items()}
    return metrics


def score_detector(
    detector: Detector, pictures: Sequence[Picture], sides: Sequence[int] = SIDES, *, mirror: bool = False
) -> dict[str, Any]:
    """{"ap50": {8: …}, "recall": {8: …}, "faces": {8: …}}; recall at one false positive per 20 images. `detector` at FLOOR, `mirror`
    as in its detect(): without, the network by itself is judged."""
    answers = detector.detect([picture.image for picture in pictures], mirror=mirror)  # as one list: one compilation for each shape
    found = [(faces.xyxy, np.asarray(faces.confidence)) for faces in answers]
    return score_boxes([picture.boxes for picture in pictures], found, sides)


def score_boxes(
    truths: Sequence[np.ndarray], found: Sequence[tuple[np.ndarray, np.ndarray]], sides: Sequence[int] = SIDES
) -> dict[str, Any]:
    """As score_detector, from boxes: per image (N, 4) xyxy truth, and (K, 4) xyxy with (K,) confidence."""
    result: dict[str, Any] = {"ap50": {}, "recall": {}, "faces": {}}
    for smallest, (confidence, hit, faces) in outcomes(truths, found, sides).items():
        result["faces"][smallest] = faces
        result["ap50"][smallest] = average_precision(confidence, hit, faces)
        result["recall"][smallest] = recall_at(confidence, hit, faces, len(truths) / IMAGES_PER_FALSE_POSITIVE)
    return result


def outcomes(
    truths: Sequence[np.ndarray], found: Sequence[tuple[np.ndarray, np.ndarray]], sides: Sequence[int] = SIDES
) -> dict[int, tuple[np.ndarray, np.ndarray, int]]:
    """Per smallest face: (K,) confidence of the detections that count, (K,) bool whether each is a face, and how many faces there are."""
    matched = [_match(*one) for one in zip(truths, found, strict=True)]
    return {
        smallest: (*_outcomes(matched, truths, smallest), sum(int((_side(boxes) >= smallest).sum()) for boxes in truths))
        for smallest in sides
    }


def average_precision(confidence: np.ndarray, hit: np.ndarray, faces: int) -> float:
    """Area under the precision envelope over recall. `hit`: which of the detections are true; `faces`: how many there are."""
    if not len(hit) or not faces:
        return 0.0
    order = np.argsort(-confidence, kind="stable")
    true = hit[order].cumsum()
    precision = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
    return float(np.sum(np.diff(true / faces, prepend=0.0) * precision))


def recall_at(confidence: np.ndarray, hit: np.ndarray, faces: int, false_positives: float) -> float:
    """Share of the faces found at the lowest confidence that has no more than so many false positives."""
    order = np.argsort(-confidence, kind="stable")
    true, false = hit[order].cumsum(), (~hit[order]).cumsum()
    allowed = true[false <= false_positives]
    return float(allowed.max() / faces) if len(allowed) and faces else 0.0


def score_classifier(classifier: Classifier, faces: Faces) -> float:
    """Share of the faces whose most probable label is theirs: the taggers' majority for the head "crowd", else FER2013's label.

    Faces of a label that the model lacks do not count. Raises UsageError where it has none of theirs.
    """
    column = np.array([classifier.labels.index(name) if name in classifier.labels else -1 for name in (*LABELS, None)])
    truth = column[faces.majority if classifier.head == "crowd" else faces.labels]  # -1, no majority, finds the last: no column
    known = truth >= 0
    if not known.any():
        names = f"answers {', '.join(classifier.labels)}; expected some of {', '.join(LABELS)}"
        raise UsageError(f"{classifier.name} {names}: its accuracy cannot be measured on these faces, leave out --data")
    return float((probabilities(classifier, faces.images[known]).argmax(1) == truth[known]).mean())


def probabilities(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """(N, S, S) grey FER2013 faces -> (N, C); cut as in training, see central_crops()."""
    crops = classifier.inputs(central_crops(images, classifier.contract.input_size))
    return np.concatenate([classifier.infer(crops[start : start + 32]) for start in range(0, len(crops), 32)])


def central_crops(images: np.ndarray, size: int) -> list[np.ndarray]:
    """The central `size` × `size` pixels of each image: what a model of that input is trained on and what it sees in a video."""
    edge = max(0, (images.shape[1] - size) // 2)
    return list(images[:, edge : edge + size, edge : edge + size])


def _match(truth: np.ndarray, found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Greedy, best first -> confidence, side of the detection, index of the truth it takes (-1: none), side of the largest
    truth that it overlaps by .5 or more (0: none)."""
    order = np.argsort(-found[1])
    boxes, confidence = found[0][order], found[1][order]
    taken = np.full(len(boxes), -1)
    overlaps = np.zeros(len(boxes))
    free = np.ones(len(truth), bool)
    sides = _side(truth)
    for i, box in enumerate(boxes):
        iou = iou_with(box, truth) if len(truth) else np.zeros(0)
        overlaps[i] = sides[iou >= 0.5].max(initial=0.0)
        best = int(np.where(free, iou, -1).argmax()) if len(truth) else -1
        if best >= 0 and free[best] and iou[best] >= 0.5:
            taken[i], free[best] = best, False
    return confidence, _side(boxes), taken, overlaps


def _outcomes(matched: Sequence[Any], truths: Sequence[np.ndarray], smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and truth of the detections that count for faces from `smallest` pixels."""
    confidences, hits = [np.zeros(0)], [np.zeros(0, bool)]
    for (confidence, side, taken, overlaps), truth in zip(matched, truths, strict=True):
        sides = np.append(_side(truth), 0.0)
        hit = (taken >= 0) & (sides[taken] >= smallest)
        ignored = (overlaps > 0) & (overlaps < smallest)
        wrong = (taken < 0) & (side >= smallest) & ~ignored
        confidences.append(confidence[hit | wrong])
        hits.append(hit[hit | wrong])
    return np.concatenate(confidences), np.concatenate(hits)


def _side(boxes: np.ndarray) -> Any:
    return np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
