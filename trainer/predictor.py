"""A model as a report sees it: faces in, probabilities out, whether it is a run of the trainer or an engine in any format.

An engine is judged as it runs when it is used: its own normalisation, temperature and precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.build.crop_margin import FER2013_MARGIN
from engines.contract import HEADS, ClassifierContract
from engines.errors import UsageError

TTA = ("none", "flip", "ten-crop")
_BATCH = 64


@dataclass(frozen=True)
class Predictor:
    """Something that can be judged. Made by load_predictor()."""

    name: str
    sha256: str
    """Of its file, a run's checkpoint included."""
    heads: tuple[str, ...]
    labels: tuple[str, ...]
    input_size: int
    face_size: int
    """Side to which whole faces are brought before its window is cut of them, pixels."""
    colour: str
    """"grey" or "rgb"."""
    threshold: float | None
    """Top probability under which it says "uncertain"; None for a run, which gets its own at export."""
    facts: dict[str, Any]
    """What the page says of it besides."""
    infer: Callable[[np.ndarray, str], np.ndarray] = field(repr=False)
    """((N, 1 or 3, S, S) uint8, head) -> (N, C) probabilities."""
    run: Path | None = None
    module: Any = field(default=None, repr=False)
    """The torch module of a run, for Grad-CAM."""

    def probabilities(
        self, images: np.ndarray, head: str, tta: str = "none", advance: Callable[[int], Any] = lambda faces: None
    ) -> np.ndarray:
        """(N, H, H) or (N, H, H, 3) uint8 -> (N, C) float64, the mean over the views; `advance` is told of every batch done."""
        answers = [np.zeros((0, len(self.labels)))]
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            answers.append(np.mean([self.infer(view, head) for view in views(batch, self.input_size, tta)], axis=0, dtype=np.float64))
            advance(len(batch))
        return np.concatenate(answers)


def views(images: np.ndarray, size: int, tta: str = "none") -> list[np.ndarray]:
    """(N, H, H) grey or (N, H, H, 3) RGB uint8 -> one (N, 1 or 3, size, size) uint8 batch per view.

    "none": the central `size` pixels, or the whole image resized where it is not larger. "flip": that and its mirror image.
    "ten-crop": the corners and the centre with their mirror images (Krizhevsky et al. 2012), `size` pixels wide, or five sixths
    of an image that is not larger, resized.
    """
    side = images.shape[1]
    window = min(size, side) if tta != "ten-crop" or size < side else round(side * 5 / 6)
    far, middle = side - window, (side - window) // 2
    places = [(middle, middle)] if tta != "ten-crop" else [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    crops = [_planes(images[:, y : y + window, x : x + window], size) for y, x in places]
    return crops if tta == "none" else crops + [np.ascontiguousarray(crop[..., ::-1]) for crop in crops]


def _planes(images: np.ndarray, size: int) -> np.ndarray:
    if images.shape[1] != size:
        shrink = cv2.INTER_AREA if images.shape[1] > size else cv2.INTER_LINEAR
        images = np.stack([cv2.resize(image, (size, size), interpolation=shrink) for image in images])
    return np.ascontiguousarray(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2))


def load_predictor(
    model: str, *, head: str | None = None, backend: str = "auto", device: str = "auto", precision: str | None = None
) -> Predictor:
    """`model`: a run's folder or its .ckpt; else whatever load_classifier() takes. `head`: only this one.

    Raises UsageError, ModelError, EngineError: one sentence each.
    """
    path = Path(model).expanduser()
    if path.is_dir() or path.suffix == ".ckpt":
        return _run(path if path.is_dir() else path.parent, head)
    return _engine(model, head, backend, device, precision)


def _run(run: Path, head: str | None) -> Predictor:
    import torch

    from engines.manifest import sha256_of
    from trainer.calibrate import softmax
    from trainer.checkpoint import checkpoint_of, load_run

    module, recipe, epochs = load_run(run)
    if head and head not in recipe.heads:
        raise UsageError(f"{run.name} has no head {head!r}; it has {', '.join(recipe.heads)}")
    checkpoint = checkpoint_of(run)

    @torch.inference_mode()
    def infer(batch: np.ndarray, name: str) -> np.ndarray:
        return softmax(module(torch.from_numpy(batch))[HEADS.index(name)].float().numpy())

    facts = {
        "file": f"{run.name}/{checkpoint.name}", "runs on": "torch, CPU", "recipe": recipe.name, "epoch": epochs,
        "parameters": sum(p.numel() for p in module.parameters()),
        "temperature": "1 (not calibrated: fer-train export does that)", "uncertain below": "no threshold before fer-train export",
    }  # fmt: skip
    heads, labels = (head,) if head else recipe.heads, tuple(recipe.data.classes)
    return Predictor(
        run.name, sha256_of(checkpoint), heads, labels, recipe.input_size, recipe.data.size, recipe.data.colour,
        None, facts, infer, run, module,
    )  # fmt: skip


def _engine(model: str, head: str | None, backend: str, device: str, precision: str | None) -> Predictor:
    from engines import load_classifier, manifest

    entry = manifest.find(model, "classifier")
    contract = entry.contract
    assert isinstance(contract, ClassifierContract)
    heads = (head,) if head else contract.heads if entry.declared else HEADS
    loaded = {name: load_classifier(model, head=name, backend=backend, device=device, precision=precision) for name in heads}
    one = loaded[heads[0]]
    facts = {
        "file": one.entry.path.name, "runs on": f"{one.backend}, {one.device}" + (f", {precision}" if precision else ""),
        "size": f"{one.entry.path.stat().st_size / 1e6:.1f} MB", "licence": one.entry.licence or "not stated",
        "trained on": one.entry.data or "not stated",
        "temperature": ", ".join(f"{name} {one.contract.temperature.get(name, 1.0):g}" for name in heads),
        "uncertain below": f"a probability of {one.contract.min_confidence:g}",
    }  # fmt: skip
    return Predictor(
        one.name, one.sha256, heads, one.labels, one.contract.input_size, _face_size(one.contract), one.contract.colour,
        one.contract.min_confidence, facts, lambda batch, name: loaded[name].infer(batch),
    )  # fmt: skip


def _face_size(contract: ClassifierContract) -> int:
    """The side of a whole FER2013 face in pixels of the input, as the crop margin says: the run's data.size for an engine that we made."""
    return max(contract.input_size, round(contract.input_size * FER2013_MARGIN / contract.crop_margin))
