"""From a run to the artefact that ships: averaged weights, calibrated on PublicTest, as ONNX with its contract."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engines.build.crop_margin import FER2013_MARGIN
from engines.build.onnx_from_module import onnx_from_module
from engines.contract import HEADS, ClassifierContract
from engines.manifest import register
from trainer.calibrate import abstention_threshold, fit_temperature, softmax
from trainer.checkpoint import commit, load_run
from trainer.data import Splits, load_for
from trainer.evaluate import logits_of, metrics_of
from trainer.models import parameters
from trainer.recipes import Recipe, run_data


def export(run: Path, data: Path, models: Path, name: str) -> dict:
    """Writes `models/NAME.onnx` and its manifest entry; returns the entry's metrics."""
    model, recipe, epochs = load_run(run)
    settings = recipe.data
    sets = load_for(recipe, data)
    public = sets["PublicTest"]
    logits = logits_of(model, public, recipe)
    # The top-1 calibration that the crowd head is judged by is against the majority, where there are votes; the other's against its label.
    known = np.flatnonzero(public.majority >= 0)
    own = np.arange(len(public)), public.label
    judged = {"crowd": (known, public.majority[known]) if len(known) else own, "fer2013": own}
    temperature = {head: fit_temperature(logits[head][judged[head][0]], judged[head][1]) for head in recipe.heads}
    first = recipe.heads[0]
    rows, truth = judged[first]
    probabilities = softmax(logits[first][rows] / temperature[first])
    contract = ClassifierContract(
        labels=tuple(settings.classes),
        heads=recipe.heads,
        colour=settings.colour,
        input_size=recipe.input_size,
        crop_margin=round(FER2013_MARGIN * recipe.input_size / settings.size, 4),
        temperature={k: round(v, 4) for k, v in temperature.items()},
        min_confidence=abstention_threshold(probabilities, truth),
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
        data=_data_line(recipe, run_data(run), sets),
        source={"recipe": recipe.model_dump(), "epochs": epochs, "commit": commit()},
        folder=models,
    )
    return metrics


def write_onnx(model: nn.Module, recipe: Recipe, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """A recipe's trained network as an ONNX file: `faces` (N, C, S, S) uint8 -> a (N, classes) array of logits per head
    that learned, N free."""
    model = copy.deepcopy(model)
    for head in set(HEADS) - set(recipe.heads):
        del model.classifier.heads[head]
    channels = 1 if recipe.data.colour == "grey" else 3
    example = torch.zeros(2, channels, recipe.input_size, recipe.input_size, dtype=torch.uint8)
    free = {name: {0: "n"} for name in ("faces", *recipe.heads)}
    onnx_from_module(model, path, (example,), input_names=["faces"], output_names=list(recipe.heads), dynamic_axes=free, metadata=metadata)


def _data_line(recipe: Recipe, seen: Mapping[str, Any], judged: Splits) -> str:
    """What a run has learned from (`seen`: its data.json) and what it was calibrated on, in a sentence's part."""
    duplicates = "without" if recipe.data.drop_duplicates else "with"
    taught = f"; taught by {', '.join(Path(t).name for t in recipe.distill.teachers)}" if recipe.distill.teachers else ""
    unlabelled = " and faces without labels" if recipe.distill.unlabelled else ""
    limit = f"{seen['limit']} faces of " if seen.get("limit") else ""
    name = seen.get("name", "unknown data:")  # a run from before that was written down
    votes = " with FER+ votes" if seen.get("votes") and "crowd" in recipe.heads else ""
    calibrated = f"; calibrated on {'' if name == judged.name else f'the {judged.name} '}PublicTest"
    return f"{limit}{name} Training{votes}, {duplicates} the images that also stand in PublicTest{unlabelled}{taught}{calibrated}"
