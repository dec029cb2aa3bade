"""Teachers: the answers of earlier runs as targets.

Each teacher sees the very view that the student sees (Beyer et al. 2022: patient and consistent), and its mirror image: answers on clean
images that it has trained on would be too sure of themselves, and a face says the same from either side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.contract import HEADS
from engines.errors import UsageError
from engines.manifest import sha256_of
from trainer.augment import centre
from trainer.checkpoint import checkpoint_of, load_run
from trainer.recipes import Recipe, in_runs


class Teachers(nn.Module):
    """The mean of some finished runs' probabilities on views and their mirror images, softened by a temperature."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.temperature = recipe.distill.temperature
        runs = [load_run(in_runs(folder)) for folder in recipe.distill.teachers]
        for folder, (_, taught, _) in zip(recipe.distill.teachers, runs, strict=True):
            if taught.data.classes != recipe.data.classes or taught.data.colour != recipe.data.colour:
                known = f"{', '.join(taught.data.classes)} in {taught.data.colour}"
                raise UsageError(f"teacher {folder} knows {known}; expected the student's classes and colour")
            if unlearned := ", ".join(set(recipe.heads) - set(taught.heads)):
                instead = "give another teacher, or set loss.crowd to none"
                raise UsageError(f"teacher {folder} has not learned the head {unlearned}, which the student learns; {instead}")
        self.sizes = [taught.input_size for _, taught, _ in runs]
        self.models = nn.ModuleList(model.requires_grad_(False) for model, _, _ in runs).to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Teachers:
        """Always in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, views: Tensor) -> list[Tensor]:
        """(N, C, S, S) views -> per head (N, classes) probabilities."""
        seen = [(model, centre(views, min(size, views.shape[-1]))) for model, size in zip(self.models, self.sizes, strict=True)]
        answers = [model(view) for model, window in seen for view in (window, window.flip(-1))]
        soft = [[F.softmax(answer[k].float() / self.temperature, 1) for answer in answers] for k in range(len(HEADS))]
        return [torch.stack(head).mean(0) for head in soft]


def load_unlabelled(recipe: Recipe) -> Tensor:
    """(N, 1, S, S) uint8 faces of distill.unlabelled, a .npy file, under $FER_RUNS unless its path is absolute; S is data.size, pixels.

    Raises UsageError where the file is missing or does not go with the labelled faces.
    """
    path, side, colour = in_runs(recipe.distill.unlabelled or ""), recipe.data.size, recipe.data.colour
    again = f"make it with fer-train data faces PICTURES {path}"
    if not path.is_file():
        raise UsageError(f"distill.unlabelled names no file: {path}; {again}")
    try:
        faces = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"distill.unlabelled: {path} cannot be read as .npy ({error}); {again}") from error
    if faces.dtype != np.uint8 or faces.shape[1:] != (side, side) or not faces.size or colour != "grey":
        expected = f"expected (N, {side}, {side}) uint8 in {colour}, as data.size and data.colour say"
        raise UsageError(f"distill.unlabelled: {path} holds grey {faces.dtype} {faces.shape}, {expected}; change these, or leave it out")
    return torch.from_numpy(faces).unsqueeze(1)


def learned_from(recipe: Recipe) -> dict[str, Any]:
    """What tells the files that a run learns from, beside its data, from others of the same names: 16 hex digits of each one's SHA-256."""
    teachers = [sha256_of(checkpoint_of(in_runs(run)))[:16] for run in recipe.distill.teachers]
    files = {"start": in_runs(recipe.model.weights) / "best.ckpt", "unlabelled": in_runs(recipe.distill.unlabelled or "")}
    found = {name: sha256_of(path)[:16] for name, path in files.items() if path.is_file()}
    return found | ({"teachers": teachers} if teachers else {})
