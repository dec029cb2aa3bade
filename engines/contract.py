"""What a model eats and says. It travels with the model, in the manifest, never in the code that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field

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
