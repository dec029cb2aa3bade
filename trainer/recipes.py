"""What a training run is made of: every setting, from YAML, unknown keys refused."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """Settings of one run of the classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    widths: list[int] = Field([32, 64, 128, 256], description="channels of each stage of two convolutions")
    input_size: int = Field(40, ge=24, le=48, description="side of the window of a 48 px image, pixels")
    epochs: int = Field(20, ge=1)
    batch: int = Field(128, ge=2)
    lr: float = Field(0.08, gt=0, description="peak learning rate of SGD with Nesterov momentum .9")
    warmup_steps: int = Field(300, ge=1)
    weight_decay: float = Field(5e-4, ge=0)
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights")
    dropout: float = Field(0.3, ge=0, lt=1)
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of the original labels")
    crowd_weight: float = Field(0.7, ge=0, description="weight of the FER+ votes' loss")
    precision: str = Field("bf16-mixed", description="Fabric's precision")
    seed: int = 1


def load_recipe(path: Path, **changes: object) -> Recipe:
    """Read a recipe; `changes` override its keys (values as YAML text)."""
    with open(path) as text:
        values = yaml.safe_load(text) or {}
    values |= {k: yaml.safe_load(str(v)) for k, v in changes.items()}
    return Recipe(**({"name": path.stem} | values))
