"""A run's folder: recipe.json, data.json (what it has read), log.jsonl, last.ckpt (to go on), best.ckpt (what counts)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from engines.errors import UsageError
from trainer.models import build_model, read_state
from trainer.recipes import Recipe, recipe_from_json


def save(state: dict, path: Path) -> None:
    """Under a temporary name first: a kill at any moment leaves the old checkpoint or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def checkpoint_of(run: Path) -> Path:
    """The file of a run's weights that count. Raises UsageError where there is none."""
    for name in ("best.ckpt", "last.ckpt"):
        if (run / name).is_file():
            return run / name
    raise UsageError(f"no checkpoint in {run}; train first with fer-train train, or give the folder of a run")


def load_run(run: Path) -> tuple[nn.Module, Recipe, int]:
    """The averaged weights of a run's best epoch in eval mode, its recipe, and that epoch's number. Raises UsageError."""
    checkpoint = checkpoint_of(run)
    recipe = recipe_from_json(Recipe, run / "recipe.json")
    state = read_state(checkpoint)
    return network_of(recipe, state["ema"]), recipe, state["epoch"]


def network_of(recipe: Recipe, weights: Mapping[str, Tensor]) -> nn.Module:
    """A recipe's network with these weights, in eval mode. What it started from is not looked for: the file may be gone."""
    model = build_model(recipe.model.model_copy(update={"weights": "none"}), recipe.data)
    model.load_state_dict(weights)
    return model.eval()


def commit(file: Path = Path(__file__)) -> str:
    """The project's commit that a model is made by; "unknown" outside of a checkout, also where the package lies in another's folder."""
    command = ["git", "rev-parse", "HEAD", f"HEAD:./{file.name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent, check=False)
    except FileNotFoundError:  # no git
        return "unknown"
    return "unknown" if done.returncode else done.stdout[:7]
