"""Detectors side by side on the validation pictures, and the way of a trained one into the shipped models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines import load_detector
from engines.build.accuracy import FLOOR, IMAGES_PER_FALSE_POSITIVE, average_precision, detector_metrics, outcomes, recall_at
from engines.build.labelled import read_pictures
from engines.build.onnx_from_checkpoint import onnx_from_checkpoint
from engines.contract import DetectorContract
from engines.manifest import Entry, register
from trainer.checkpoint import commit
from trainer.detector import DetectorRecipe, final_checkpoint
from trainer.recipes import recipe_from_json, run_data

SIDES = (8, 16, 32, 64)
YUNET_THRESHOLD = 0.7
"""At which YuNet's false positives are counted."""
_OURS = (4258, 24284)
"""Pictures and faces of what the shipped detector is trained on; it has no name of its own."""


def score_detectors(
    models: Sequence[str], data: Path, rival: str | None = None, say: Callable[[str], None] = lambda text: None, *, mirror: bool = False
) -> dict[str, dict[int, dict[str, float]]]:
    """Model -> smallest face -> ap50, recall at one false positive per 20 images, and (`rival`: a YuNet's file) recall at its own number.

    The rival stands in the result too, with its false positives at the threshold. `mirror`: all look at each picture twice, see
    Detector.detect(). Raises UsageError for data or models that are not there.
    """
    pictures = read_pictures(data, "val")
    truths, images = [picture.boxes for picture in pictures], [picture.image for picture in pictures]
    curves = {}
    for model in [*([rival] if rival else []), *models]:
        say(f"{Path(model).name}: {len(images)} pictures")
        answers = load_detector(model, conf=FLOOR).detect(images, mirror=mirror)
        curves[model] = outcomes(truths, [(faces.xyxy, np.asarray(faces.confidence)) for faces in answers], SIDES)
    table: dict[str, dict[int, dict[str, float]]] = {}
    for model, by_side in curves.items():
        table[Path(model).stem] = {}
        for side, (confidence, hit, faces) in by_side.items():
            row = {
                "ap50": average_precision(confidence, hit, faces),
                "recall": recall_at(confidence, hit, faces, len(images) / IMAGES_PER_FALSE_POSITIVE),
            }
            if rival:
                their_confidence, their_hit, _ = curves[rival][side]
                false = int((~their_hit & (their_confidence >= YUNET_THRESHOLD)).sum())
                row |= {"false_positives": false, "recall_at_rival": recall_at(confidence, hit, faces, false)}
            table[Path(model).stem][side] = row
    return table


def export_detector(run: Path, data: Path, models: Path, name: str, conf: float | None = None) -> Entry:
    """A run's last checkpoint (averaged weights, with what its recipe keeps of the start) as `models/NAME.onnx`, measured on the validation
    pictures, and its manifest entry.

    `conf`: the score from which a box counts as a face; the recipe's where not given. Raises UsageError where `run` is none.
    """
    path = models / f"{name}.onnx"
    recipe = recipe_from_json(DetectorRecipe, run / "recipe.json")
    onnx_from_checkpoint(final_checkpoint(run), path, metadata={"labels": "face", "task": "detector"})
    entry: dict[str, Any] = {
        "licence": "AGPL-3.0-only",
        "data": _data_line(run_data(run)),
        "source": {"recipe": recipe.model_dump(), "commit": commit()},
    }
    contract = DetectorContract(conf=conf or recipe.conf, imgsz=recipe.imgsz, iou=recipe.iou, vote=recipe.vote, mirror=recipe.mirror)
    register(name, "detector", path, contract, metrics={}, folder=models, **entry)  # so that it is measured with its contract
    metrics = detector_metrics(load_detector(path, conf=FLOOR), read_pictures(data, "val"), SIDES)
    return register(name, "detector", path, contract, metrics=metrics, folder=models, **entry)


def _data_line(seen: Mapping[str, Any]) -> str:
    """What a run has learned from; `seen`: its data.json."""
    if not seen:
        return "unknown data"  # a run from before that was written down
    ours = (seen["pictures"], seen["faces"]) == _OURS
    name = "WIDER FACE's validation images, two face-mask sets, animal and face-free pictures" if ours else seen["name"]
    return f"{name} ({seen['pictures']:,} pictures, {seen['faces']:,} faces)"
