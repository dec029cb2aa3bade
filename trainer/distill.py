"""Teachers: the answers of earlier runs as targets.

Each teacher sees the very view that the student sees (Beyer et al. 2022: patient and consistent), and its mirror image: answers on clean
images that it has trained on would be too sure of themselves, and a face says the same from either side.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.contract import HEADS
from engines.errors import UsageError
from trainer.augment import centre
from trainer.checkpoint import load_run
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


def load_unlabelled(name: str) -> Tensor:
    """(N, 1, S, S) uint8 faces of a .npy file, under $FER_RUNS unless its path is absolute. Raises UsageError."""
    path = in_runs(name)
    if not path.is_file():
        raise UsageError(f"distill.unlabelled names no file: {path}; make it with fer-train data faces PICTURES {path}")
    faces = np.load(path, allow_pickle=False)
    if faces.ndim != 3 or faces.dtype != np.uint8 or faces.shape[1] != faces.shape[2]:
        raise UsageError(f"{path} holds {faces.dtype} {faces.shape}; expected (N, S, S) uint8 grey faces")
    return torch.from_numpy(faces).unsqueeze(1)
