"""How good a classifier is on a labelled split, in a handful of figures: what the loop logs and a manifest keeps.

Everything else that can be said of its answers stands in figures.py, and report.py draws it.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import nn

from engines.contract import HEADS
from trainer.augment import centre, planes
from trainer.calibrate import expected_calibration_error, softmax
from trainer.data import FaceSet
from trainer.recipes import Recipe


@torch.inference_mode()
def logits_of(model: nn.Module, faces: FaceSet, recipe: Recipe, batch: int = 256) -> dict[str, np.ndarray]:
    """Logits (N, C) float32 per head that learned, on the centre windows."""
    views = centre(planes(faces.images), recipe.input_size)
    outputs = [model(views[i : i + batch]) for i in range(0, len(views), batch)]
    return {head: torch.cat([o[HEADS.index(head)] for o in outputs]).float().numpy() for head in recipe.heads}


def metrics_of(logits: dict[str, np.ndarray], faces: FaceSet, temperature: dict[str, float] | None = None) -> dict[str, float]:
    """Figures of the heads; those that the faces cannot give are left out.

    `fer2013` is judged by the original labels, whole and without the images that also stand in Training; `crowd` by the
    unique FER+ majority, on the images where that is one of the labels.
    """
    temperature = temperature or {}
    known, unseen = faces.majority >= 0, ~faces.in_training
    right = logits["fer2013"].argmax(1) == faces.label
    f1 = f1_score(faces.label, logits["fer2013"].argmax(1), average=None, labels=range(len(faces.classes)), zero_division=0)
    metrics = {"fer2013_accuracy": float(right.mean()), "fer2013_macro_f1": float(f1.mean())}
    if unseen.any():
        metrics["fer2013_accuracy_unseen"] = float(right[unseen].mean())
    if "disgust" in faces.classes:
        metrics["fer2013_disgust_f1"] = float(f1[faces.classes.index("disgust")])
    if known.any() and "crowd" in logits:
        majority = faces.majority[known]
        probabilities = softmax(logits["crowd"][known] / temperature.get("crowd", 1.0))
        metrics["crowd_accuracy"] = float((probabilities.argmax(1) == majority).mean())
        metrics["crowd_ece"] = expected_calibration_error(probabilities, majority)
    return metrics


def evaluate_model(model: nn.Module, faces: FaceSet, recipe: Recipe) -> dict[str, float]:
    return metrics_of(logits_of(model, faces, recipe), faces)
