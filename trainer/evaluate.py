"""How good a classifier is on a labelled split: accuracy, macro F1, calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import f1_score

from engines.contract import HEADS, LABELS
from trainer.augment import centre
from trainer.calibrate import expected_calibration_error, softmax
from trainer.data import FaceSet, load_fer2013
from trainer.models import EmotionCNN


@torch.inference_mode()
def logits_of(model: EmotionCNN, faces: FaceSet, input_size: int, batch: int = 256) -> dict[str, np.ndarray]:
    """Logits (N, 7) per head on the centre windows."""
    views = centre(torch.from_numpy(faces.images), input_size)
    outputs = [model(views[i : i + batch]) for i in range(0, len(views), batch)]
    return {head: torch.cat([o[k] for o in outputs]).numpy() for k, head in enumerate(HEADS)}


def metrics_of(logits: dict[str, np.ndarray], faces: FaceSet, temperature: dict[str, float] | None = None) -> dict[str, float]:
    """Figures of both heads.

    `fer2013` is judged by the original labels, whole and without the images that also stand in Training; `crowd` by the
    unique FER+ majority, on the images where that is one of the seven.
    """
    temperature = temperature or {}
    known = faces.majority >= 0
    original, crowd = logits["fer2013"].argmax(1), logits["crowd"].argmax(1)
    f1 = f1_score(faces.label, original, average=None, labels=range(len(LABELS)), zero_division=0)
    probabilities = softmax(logits["crowd"][known] / temperature.get("crowd", 1.0))
    return {
        "fer2013_accuracy": float((original == faces.label).mean()),
        "fer2013_accuracy_unseen": float((original == faces.label)[~faces.in_training].mean()),
        "fer2013_macro_f1": float(f1.mean()),
        "fer2013_disgust_f1": float(f1[LABELS.index("disgust")]),
        "crowd_accuracy": float((crowd == faces.majority)[known].mean()),
        "crowd_ece": expected_calibration_error(probabilities, faces.majority[known]),
    }


def evaluate_model(model: EmotionCNN, faces: FaceSet, input_size: int) -> dict[str, float]:
    return metrics_of(logits_of(model, faces, input_size), faces)


def evaluate_engine(model: str, data: Path) -> dict[str, float]:
    """The same figures for a model as it ships, through the engine that runs it: probabilities instead of logits."""
    from engines import load_classifier

    faces = load_fer2013(data)["PublicTest"]
    known = faces.majority >= 0
    probabilities = {}
    for head in HEADS:
        classifier = load_classifier(model, head=head)
        views = centre(torch.from_numpy(faces.images), classifier.contract.input_size).numpy()
        probabilities[head] = np.concatenate([classifier.infer(views[i : i + 64]) for i in range(0, len(views), 64)])
    metrics = metrics_of({head: np.log(np.maximum(p, 1e-9)) for head, p in probabilities.items()}, faces)
    metrics["crowd_coverage"] = float((probabilities["crowd"][known].max(1) >= classifier.contract.min_confidence).mean())
    return metrics
