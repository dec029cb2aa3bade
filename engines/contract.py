"""What a model eats and says. It travels with the model, in the manifest, never in the code that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven expressions, in the order of every array, column and file of this project."""

UNCERTAIN = "uncertain"
"""Said instead of a label where the probabilities do not carry one."""

HEADS = ("crowd", "fer2013")
"""The classifier's outputs, in this order: FER+ votes of ten taggers; the original FER2013 labels."""


@dataclass(frozen=True)
class DetectorContract:
    """A face detector."""

    kind: str = "yolo"
    """"yolo": one graph, (N, H, W, 3) uint8 RGB in (sides multiples of `stride`), (N, 5, anchors) float32 out: centre x,
    centre y, width, height in pixels of the input, score 0…1. "yunet": cv2.FaceDetectorYN. "scrfd": see scrfd.py."""
    stride: int = 32
    imgsz: int = 640
    """Longer side of the input it was trained for, pixels."""
    conf: float = 0.4
    """Score from which a box counts as a face."""
    iou: float = 0.5
    """Boxes that overlap more are one face (NMS)."""
    vote: float = 0.0
    """Boxes that overlap a kept one by this share or more shift its edges (see preprocess.vote); 0: none do."""
    mirror: bool = False
    """A still picture is looked at a second time, mirrored (see preprocess.fuse): twice the time. A frame of a video never is."""


@dataclass(frozen=True)
class ClassifierContract:
    """An expression classifier: (N, 1, S, S) uint8 grey in, one (N, C) float32 array of logits per head out."""

    labels: tuple[str, ...] = LABELS
    heads: tuple[str, ...] = HEADS
    input_size: int = 40
    colour: str = "grey"
    """"grey" or "rgb" (then the input is (N, 3, S, S))."""
    crop_margin: float = 1.0
    """Side of the square crop over the longer side of the detector's box."""
    temperature: dict[str, float] = field(default_factory=dict)
    """Per head; probabilities = softmax(logits / temperature) (Guo et al. 2017)."""
    min_confidence: float = 0.4
    """Top probability under which `uncertain` is the honest answer."""
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    """A model with a float input gets (x - mean) / std of the levels 0…255, a uint8 input gets them as they are. One number, or
    one per channel in the order of the input (R, G, B); what torchvision writes for levels 0…1 is 255 times that here."""
    output: str = "logits"
    """"logits", or "probabilities" for a model that ends in a softmax."""


def _among(*known: str) -> tuple[str, Callable[[Any], bool]]:
    return " or ".join(known), lambda value: value in known


def _within(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low < value < high


def _each(sound: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value != () and all(map(sound, value if isinstance(value, tuple) else (value,)))


def _are_names(value: Any) -> bool:
    return isinstance(value, tuple) and _each(lambda name: isinstance(name, str))(value) and len(set(value)) == len(value)


_COUNT = "a whole number from 1 on", lambda value: type(value) is int and value > 0
_SHARE = "a number between 0 and 1", _within(0, 1)
_SHARE_OR_ALL = "a number from 0 to 1", lambda value: value in (0, 1) or _within(0, 1)(value)
_NAMES = "a list of names, each once", _are_names

SOUND: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "kind": _among("yolo", "yunet", "scrfd"), "stride": _COUNT, "imgsz": _COUNT, "conf": _SHARE, "iou": _SHARE, "vote": _SHARE_OR_ALL,
    "mirror": ("true or false", lambda value: isinstance(value, bool)),
    "labels": _NAMES, "heads": _NAMES, "input_size": _COUNT, "colour": _among("grey", "rgb"), "output": _among("logits", "probabilities"),
    "crop_margin": ("a number above 0", _within(0, inf)), "min_confidence": _SHARE_OR_ALL,
    "temperature": ("a number above 0 for each head", lambda value: isinstance(value, dict) and all(map(_within(0, inf), value.values()))),
    "mean": ("a number, or one per channel", _each(_within(-inf, inf))),
    "std": ("a number above 0, or one per channel", _each(_within(0, inf))),
}  # fmt: skip
"""Field of a contract -> what it must be, and whether a value is that: files are edited by hand."""
