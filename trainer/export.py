"""From a run to the artefact that ships: averaged weights, calibrated on PublicTest, as ONNX with its contract."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import torch

from engines.build.onnx_from_module import onnx_from_module
from engines.contract import HEADS, LABELS, ClassifierContract
from engines.manifest import register
from trainer.calibrate import abstention_threshold, fit_temperature, softmax
from trainer.data import load_fer2013
from trainer.evaluate import logits_of, metrics_of
from trainer.models import EmotionCNN, parameters
from trainer.recipes import Recipe

FER2013_MARGIN = 1.11
"""Side of a FER2013 image over the longer side of the face's box as our detector draws it (engines.build.crop_margin)."""


def load_run(run: Path) -> tuple[EmotionCNN, Recipe, int]:
    """The averaged weights of a run's last checkpoint, its recipe, epochs done."""
    if not (run / "last.ckpt").is_file():
        raise FileNotFoundError(f"no checkpoint in {run}; train first with fer-train train")
    recipe = Recipe(**json.loads((run / "recipe.json").read_text()))
    state = torch.load(run / "last.ckpt", weights_only=True)
    model = EmotionCNN(tuple(recipe.widths), recipe.dropout)
    model.load_state_dict(state["ema"])
    return model.eval(), recipe, state["epoch"]


def export(run: Path, data: Path, models: Path, name: str = "emotion_cnn") -> dict:
    """Writes `models/NAME.onnx` and its manifest entry; returns the entry's metrics."""
    model, recipe, epochs = load_run(run)
    public = load_fer2013(data)["PublicTest"]
    logits = logits_of(model, public, recipe.input_size)
    known = public.majority >= 0
    # The top-1 calibration that the crowd head is judged by is against the majority; the original head's against its label.
    temperature = {
        "crowd": fit_temperature(logits["crowd"][known], public.majority[known]),
        "fer2013": fit_temperature(logits["fer2013"], public.label),
    }
    probabilities = softmax(logits["crowd"][known] / temperature["crowd"])
    contract = ClassifierContract(
        input_size=recipe.input_size,
        crop_margin=round(FER2013_MARGIN * recipe.input_size / 48, 4),
        temperature={k: round(v, 4) for k, v in temperature.items()},
        min_confidence=abstention_threshold(probabilities, public.majority[known]),
    )
    metrics = {k: round(v, 4) for k, v in metrics_of(logits, public, temperature).items()} | {"parameters": parameters(model)}
    path = models / f"{name}.onnx"
    onnx_from_module(
        model,
        path,
        (torch.zeros(2, 1, recipe.input_size, recipe.input_size, dtype=torch.uint8),),
        input_names=["faces"],
        output_names=list(HEADS),
        dynamic_axes={"faces": {0: "n"}} | {head: {0: "n"} for head in HEADS},
        metadata={"labels": ",".join(LABELS), "recipe": recipe.name},
    )
    register(
        name,
        "classifier",
        path,
        contract,
        metrics=metrics,
        licence="AGPL-3.0-only",
        data="FER2013 Training with FER+ votes, without the images that also stand in PublicTest; calibrated on PublicTest",
        source={"recipe": recipe.model_dump(), "epochs": epochs, "commit": _commit()},
        folder=models,
    )
    return metrics


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return done.stdout.strip() or "unknown"
