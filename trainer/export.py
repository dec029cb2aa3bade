"""From a run to the artefact that ships: averaged weights, calibrated on PublicTest, as ONNX with its contract."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engines.build.onnx_from_module import onnx_from_module
from engines.contract import HEADS, ClassifierContract
from engines.manifest import register
from trainer.calibrate import abstention_threshold, fit_temperature, softmax
from trainer.checkpoint import commit, load_run
from trainer.data import load_for
from trainer.evaluate import logits_of, metrics_of
from trainer.models import parameters
from trainer.recipes import Recipe

FER2013_MARGIN = 1.11
"""Side of a FER2013 image over the longer side of the face's box as our detector draws it (engines.build.crop_margin)."""


def export(run: Path, data: Path, models: Path, name: str = "emotion_cnn") -> dict:
    """Writes `models/NAME.onnx` and its manifest entry; returns the entry's metrics."""
    model, recipe, epochs = load_run(run)
    settings = recipe.data
    public = load_for(recipe, data)["PublicTest"]
    logits = logits_of(model, public, recipe.input_size)
    known = public.majority >= 0
    original = fit_temperature(logits["fer2013"], public.label)
    # The top-1 calibration that the crowd head is judged by is against the majority; the original head's against its label.
    temperature = {
        "crowd": fit_temperature(logits["crowd"][known], public.majority[known]) if known.any() else original,
        "fer2013": original,
    }
    truth = np.where(known, public.majority, public.label) if known.any() else public.label
    judged = known if known.any() else np.ones(len(public), bool)
    probabilities = softmax(logits["crowd"][judged] / temperature["crowd"])
    contract = ClassifierContract(
        labels=tuple(settings.classes),
        colour=settings.colour,
        input_size=recipe.input_size,
        crop_margin=round(FER2013_MARGIN * recipe.input_size / settings.size, 4),
        temperature={k: round(v, 4) for k, v in temperature.items()},
        min_confidence=abstention_threshold(probabilities, truth[judged]),
    )
    metrics = {k: round(v, 4) for k, v in metrics_of(logits, public, temperature).items()} | {"parameters": parameters(model)}
    path = models / f"{name}.onnx"
    write_onnx(model, recipe, path, {"labels": ",".join(settings.classes), "recipe": recipe.name})
    register(
        name,
        "classifier",
        path,
        contract,
        metrics=metrics,
        licence="AGPL-3.0-only",
        data=_data_line(recipe),
        source={"recipe": recipe.model_dump(), "epochs": epochs, "commit": commit()},
        folder=models,
    )
    return metrics


def write_onnx(model: nn.Module, recipe: Recipe, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """A recipe's trained network as an ONNX file: `faces` (N, C, S, S) uint8 -> a (N, classes) array of logits per head, N free."""
    channels = 1 if recipe.data.colour == "grey" else 3
    example = torch.zeros(2, channels, recipe.input_size, recipe.input_size, dtype=torch.uint8)
    free = {name: {0: "n"} for name in ("faces", *HEADS)}
    onnx_from_module(model, path, (example,), input_names=["faces"], output_names=list(HEADS), dynamic_axes=free, metadata=metadata)


def _data_line(recipe: Recipe) -> str:
    duplicates = "without" if recipe.data.drop_duplicates else "with"
    taught = f"; taught by {', '.join(Path(t).name for t in recipe.distill.teachers)}" if recipe.distill.teachers else ""
    unlabelled = " and unlabelled faces of WIDER FACE's validation images" if recipe.distill.unlabelled else ""
    return (
        f"FER2013 Training with FER+ votes, {duplicates} the images that also stand in PublicTest{unlabelled}{taught}; "
        "calibrated on PublicTest"
    )
