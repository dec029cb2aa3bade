"""What a training run is made of: every setting, from YAML, unknown keys refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from engines.contract import HEADS, LABELS
from engines.errors import UsageError

R = TypeVar("R", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Part):
    """Which faces, and in what form."""

    classes: list[str] = Field(list(LABELS), description="the labels to learn; rows of others are left out")
    colour: Literal["grey", "rgb"] = "grey"
    size: int = Field(48, ge=32, le=480, description="side of a stored face, pixels")
    votes: str | None = Field(None, description="FER+ votes for a CSV: Microsoft's fer2013new.csv")
    drop_duplicates: bool = Field(False, description="leave out training images that also stand in the validation split")
    validation: float | None = Field(None, gt=0, lt=1, description="judge on such a random share of Training instead of PublicTest")


class ModelSettings(_Part):
    """The network. Every one eats the same grey or colour window; what it needs of size and normalisation lies inside."""

    name: str = Field("emotion_cnn", description="emotion_cnn | plain_cnn | a classifier of torchvision | timm:NAME")
    widths: list[int] = Field([32, 64, 128, 256], description="channels of each stage (emotion_cnn, plain_cnn)")
    dropout: float = Field(0.3, ge=0, lt=1, description="before the heads")
    weights: str = Field("none", description="none | imagenet (a download) | package:NAME (of PyPI) | a .pth or .safetensors file | a run")
    keep: float = Field(0.0, ge=0, lt=1, description="share of the weights it started from in those that count (Wortsman et al. 2022)")
    image_size: int | None = Field(None, ge=32, le=480, description="side to which the window is enlarged inside the network")
    unfreeze_blocks: int | None = Field(None, ge=0, description="train the heads and so many last blocks only; default: everything")

    @field_validator("keep")
    @classmethod
    def _has_a_start(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("weights") == "none":
            raise ValueError("must be 0 where model.weights is none: a share of random weights would stay in those that count")
        return value


class Augmentation(_Part):
    """Random changes of each face, drawn anew every time. Shares are probabilities, amounts are ± the figure."""

    flip: float = Field(0.5, ge=0, le=1)
    rotate: float = Field(15.0, ge=0, le=180, description="degrees")
    tilt: float = Field(0.15, ge=0, le=1, description="share of faces turned by up to 26 degrees more: heads held askew")
    scale: float = Field(0.18, ge=0, lt=1, description="log of the zoom")
    squeeze: float = Field(0.06, ge=0, lt=1, description="log of the change of width against height")
    shift: float = Field(0.13, ge=0, lt=1, description="share of half the side")
    perspective: float = Field(0.0, ge=0, lt=1, description="keystone, share of the side")
    gamma: float = Field(0.35, ge=0, lt=2, description="log of the exponent on brightness")
    colour: float = Field(0.0, ge=0, lt=1, description="share by which each colour channel changes (colour input)")
    small: float = Field(0.27, ge=0, le=1, description="share scaled down to 12, 18, 26 px and up again: a third of it each, drawn apart")
    noise: float = Field(12.0, ge=0, description="grey levels of noise, at most, on a quarter of the faces")
    erase: float = Field(0.5, ge=0, le=1, description="share of faces with a grey box (Zhong et al. 2020)")
    mixup: float = Field(0.0, ge=0, description="alpha of Mixup (Zhang et al. 2018); 0 is none")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix (Yun et al. 2019); 0 is none")


class LossSettings(_Part):
    """How an answer is judged, the same on every head."""

    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of the original labels")
    focal_gamma: float = Field(0.0, ge=0, description="focusing of the focal loss (Lin et al. 2017); 0 is cross-entropy")
    class_weights: float = Field(0.0, ge=0, le=1, description="exponent on the inverse class frequency: 0 none, .5 its root, 1 in full")
    crowd: Literal["probability", "majority", "original", "none"] = Field("probability", description="what the crowd head learns")
    crowd_weight: float = Field(0.7, ge=0, description="weight of the crowd head's loss")


class OptimizerSettings(_Part):
    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="sgd has Nesterov momentum .9")
    lr: float = Field(0.08, gt=0, description="peak learning rate")
    weight_decay: float = Field(5e-4, ge=0, description="on weights; not on BatchNorm and biases")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")


class Schedule(_Part):
    """The learning rate over time, after a linear warm-up."""

    name: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    warmup_steps: int = Field(300, ge=0)
    step_epochs: int = Field(10, ge=1, description="step: epochs between two falls")
    factor: float = Field(0.1, gt=0, lt=1, description="step and plateau: how far it falls")
    patience: int = Field(3, ge=1, description="plateau: epochs without a better score before it falls")


class Distillation(_Part):
    """Answers of earlier runs as targets, on the very views the student sees (Hinton et al. 2015; Beyer et al. 2022)."""

    teachers: list[str] = Field([], description="finished runs: names under $FER_RUNS, or folders; their probabilities are averaged")
    weight: float = Field(0.5, ge=0, le=1, description="share of the teachers in the targets")
    temperature: float = Field(2.0, gt=0)
    unlabelled: str | None = Field(None, description="faces for the teachers alone: a .npy file under $FER_RUNS, N×48×48 uint8")
    unlabelled_share: float = Field(0.25, ge=0, le=1, description="unlabelled faces for each labelled one in a batch")

    @field_validator("unlabelled")
    @classmethod
    def _has_teachers(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and not info.data.get("teachers"):
            raise ValueError("must be null where distill.teachers is empty: nobody would say what these faces show")
        return value


class Recipe(_Part):
    """Settings of one run of a classifier."""

    name: str
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    augment: Augmentation = Augmentation()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: Schedule = Schedule()
    distill: Distillation = Distillation()
    input_size: int = Field(40, ge=24, le=480, description="side of the window of a face image, pixels")
    epochs: int = Field(20, ge=1)
    patience: int | None = Field(None, ge=1, description="stop after so many epochs without a better score; the best one counts")
    batch: int = Field(128, ge=2)
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights; 0 takes the last ones")
    precision: Literal["auto", "16-mixed", "bf16-mixed", "32-true"] = Field(
        "auto", description="Fabric's; auto: 16-mixed on CUDA, bf16-mixed on a CPU that has bf16, 32-true on others"
    )
    seed: int = 1

    @field_validator("input_size")
    @classmethod
    def _lies_in_the_face(cls, value: int, info: ValidationInfo) -> int:
        """Views could be enlarged, but the window of evaluation and serving is cut; a network enlarges by itself (model.image_size)."""
        if "data" in info.data and value > info.data["data"].size:
            raise ValueError(f"must be at most data.size ({info.data['data'].size}; model.image_size enlarges in the network)")
        return value

    @property
    def heads(self) -> tuple[str, ...]:
        """Those that learn: the others answer at random, and are neither judged nor exported."""
        crowd = self.loss.crowd != "none" and self.loss.crowd_weight > 0
        return tuple(head for head in HEADS if crowd or head != "crowd")


def runs_folder() -> Path:
    """`$FER_RUNS`, else ~/.cache/fer-runs."""
    return Path(os.environ.get("FER_RUNS") or Path.home() / ".cache" / "fer-runs")


def in_runs(name: str) -> Path:
    """A run's folder, or a file beside the runs, by the name that a recipe has for it; paths that are absolute or begin with ~ stay."""
    return runs_folder() / Path(name).expanduser()


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `changes` are KEY=VALUE with dots (loss.focal_gamma=2), values as YAML text. Raises UsageError."""
    return read_recipe(Recipe, path, changes)


def read_recipe(kind: type[R], path: Path, changes: Sequence[str]) -> R:
    """A recipe of that kind from YAML."""
    if not path.is_file():
        raise UsageError(f"there is no recipe {path}; give a YAML file such as configs/train/emotion_cnn.yaml")
    values = _yaml(path.read_text(), str(path)) or {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds {type(values).__name__}, expected keys and values; see trainer/recipes.py for the keys")
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UsageError(f"--set takes KEY=VALUE, got {change!r}; for instance --set loss.focal_gamma=2")
        *outer, last = key.strip().split(".")
        inner: dict[str, Any] = values
        for part in outer:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UsageError(f"--set {change}: {part} is a value and has no keys; see trainer/recipes.py for the keys")
        inner[last] = _yaml(value, f"--set {change}")
    return _checked(kind, {"name": path.stem} | values, str(path))


def recipe_from_json(kind: type[R], path: Path) -> R:
    """The recipe that a run has written beside its checkpoint. Raises UsageError."""
    return _checked(kind, _json(path), str(path))


def settle(run: Path, recipe: BaseModel, data: Mapping[str, Any], *, begun: bool, rising: Sequence[str] = ()) -> None:
    """Writes what a run is made of to its folder: recipe.json, and what was read as data.json ("name", and whatever tells it from others).

    One that has `begun` must go on as it was, or its log and its manifest would tell of a run that never was; only `rising` numbers may
    be larger than they were. Raises UsageError that names what differs.
    """
    asked = recipe.model_dump(mode="json")
    if begun:
        before = recipe_from_json(type(recipe), run / "recipe.json").model_dump(mode="json")
        was, now = dict(_flat(before)), dict(_flat(asked))
        changed = [f"{k} was {was[k]}, now {v}" for k, v in now.items() if v != was[k] and not (k in rising and v > was[k])]
        seen = run_data(run) or data  # a run from before this was written down
        # A file may be moved, and what is written down is more than it once was.
        if any(seen.get(key, value) != value for key, value in data.items() if key != "name"):
            changed.append(f"the data were {_told(seen)}, now {_told(data)}")
        if changed:
            instead = "give another folder (--run, or --output), or what it was begun with"
            raise UsageError(f"{run} holds another run ({'; '.join(changed)}); {instead}")
    for name, values in (("data.json", dict(data)), ("recipe.json", asked)):
        part = run / f"{name}.{os.getpid()}.part"  # each process of a run on many GPUs writes its own
        part.write_text(json.dumps(values, indent=2))
        os.replace(part, run / name)


def run_data(run: Path) -> dict[str, Any]:
    """What settle() has written of a run's data; empty for a run from before that."""
    path = run / "data.json"
    return _json(path) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    """What settle() has written to a file of a run."""
    try:
        values = json.loads(path.read_text())
        if isinstance(values, dict):
            return values
        reason = f"it holds {type(values).__name__}"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError:
        reason = "it is no whole JSON"
    raise UsageError(f"{path} cannot be read ({reason}); give the folder of a whole run, or train in another one (--run OTHER)")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def _told(data: Mapping[str, Any]) -> str:
    return ", ".join(str(value) if key == "name" else f"{key} {value}" for key, value in data.items())


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or "it does not parse"
        raise UsageError(f"{where}: this is no YAML ({reason}); see configs/train for examples") from error


def _checked(kind: type[R], values: dict[str, Any], where: str) -> R:
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        wrong = f"{first['msg'].removeprefix('Value error, ')}, got {first.get('input')!r}"
        raise UsageError(f"{where}: {key}: {wrong}; see trainer/recipes.py for the keys") from error
