"""What happens to pixels before a model and to boxes after it: letterbox, crops, NMS. Pure numpy and cv2.

Training, evaluation and serving all use these functions, so that a model is served the way it was measured. Boxes are
xyxy float32, x to the right, y down, in pixels, the origin at the top left corner of the top left pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from engines.errors import UsageError

FILL = 114
"""Grey of the letterbox's border, as in the detector's training."""
MAX_UPSCALE = 2.0
"""Small pictures are enlarged so that their faces are found, but no further. Measured with the shipped detector at 640: of 200
FER2013 faces (48×48) it finds 70 % as they are, 92 % doubled, 84 % at 4×, 40 % filling 640 px: a face that fills a large input
is one it hardly met in training. Photos shrunk to 96…320 px keep their counts at 2×."""

_ROWS = 64
"""Boxes that vote() looks at together: a thousand faces times their candidates would be gigabytes."""


@dataclass(frozen=True)
class LetterboxGeometry:
    """How an image lies in the detector's input. All in pixels, except for `scale`."""

    scale: float
    """Input pixels per image pixel."""
    resized_width: int
    resized_height: int
    left: int
    """Columns of border before the image."""
    top: int
    input_width: int
    """A multiple of the stride."""
    input_height: int


def letterbox_geometry(
    width: int, height: int, imgsz: int, stride: int = 32, size: tuple[int, int] | None = None
) -> LetterboxGeometry:
    """Rectangular letterbox: the longer side becomes `imgsz`, each side is padded to a multiple of `stride`, centred.

    1920×1080 at 640 is 640×360 in 640×384: two fifths fewer pixels than a square. Smaller images are enlarged, at most
    MAX_UPSCALE times: a thumbnail then does not cost as much as a film frame either. `size` (width, height) is for models with
    a fixed input: the image fills as much of it as its shape allows.
    Raises UsageError for sizes below 1 and an `imgsz` that is not a multiple of `stride`.
    """
    if width < 1 or height < 1:
        raise UsageError(f"an image needs at least one pixel, got {width}×{height}")
    if imgsz < stride or imgsz % stride:
        near = max(stride, round(imgsz / stride) * stride)
        raise UsageError(f"imgsz must be a multiple of {stride}, got {imgsz}; use {near}")
    scale = min(size[0] / width, size[1] / height) if size else min(imgsz / max(width, height), MAX_UPSCALE)
    resized_width, resized_height = max(1, round(width * scale)), max(1, round(height * scale))
    input_width, input_height = size or (math.ceil(side / stride) * stride for side in (resized_width, resized_height))
    left, top = (input_width - resized_width) // 2, (input_height - resized_height) // 2
    return LetterboxGeometry(scale, resized_width, resized_height, left, top, input_width, input_height)


def letterbox(image_bgr: np.ndarray, geometry: LetterboxGeometry) -> np.ndarray:
    """(H, W, 3) uint8 BGR -> (input_height, input_width, 3) uint8 RGB, contiguous. Averages areas when it shrinks."""
    g = geometry
    if image_bgr.shape[:2] != (g.resized_height, g.resized_width):
        method = cv2.INTER_AREA if g.scale < 1 else cv2.INTER_LINEAR
        image_bgr = cv2.resize(image_bgr, (g.resized_width, g.resized_height), interpolation=method)
    out = np.full((g.input_height, g.input_width, 3), FILL, np.uint8)
    out[g.top : g.top + g.resized_height, g.left : g.left + g.resized_width] = image_bgr[:, :, ::-1]
    return out


def unletterbox(xyxy: np.ndarray, geometry: LetterboxGeometry, width: int, height: int) -> np.ndarray:
    """(N, 4) boxes in input pixels -> (N, 4) float32 in pixels of the width×height image, clipped to it."""
    g = geometry
    xyxy = np.asarray(xyxy, np.float32).reshape(-1, 4)
    scale = np.array([width / g.resized_width, height / g.resized_height] * 2, np.float32)
    boxes = (xyxy - np.array([g.left, g.top] * 2, np.float32)) * scale
    return np.clip(boxes, 0, np.array([width, height] * 2, np.float32)).astype(np.float32)


def iou_with(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(..., 4) and (N, 4) xyxy -> (..., N) intersection over union; 0 where both are empty."""
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)[..., None]
    left, top, right, bottom = others.T
    width = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
    intersection = width * np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def pair(boxes: np.ndarray, others: np.ndarray, iou: float = 0.5) -> list[tuple[int, int]]:
    """Indices of boxes that mean the same face, each used once; (N, 4) and (M, 4) xyxy, best first."""
    free = np.ones(len(others), bool)
    pairs: list[tuple[int, int]] = []
    for i, box in enumerate(boxes):
        overlap = np.where(free, iou_with(box, others), 0.0)
        if len(overlap) and overlap.max() >= iou:
            j = int(overlap.argmax())
            free[j] = False
            pairs.append((i, j))
    return pairs


def nms(xyxy: np.ndarray, scores: np.ndarray, iou: float, limit: int = 1000) -> np.ndarray:
    """Greedy non-maximum suppression: (K,) indices of the boxes kept, best first, at most `limit`.

    A box goes when it overlaps a better one by more than `iou`; of equal scores the earlier one is better.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = xyxy[order].astype(np.float32)
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        apart = iou_with(boxes[:_ROWS], boxes) <= iou  # of many at once: one call costs as much as comparing a thousand boxes
        stays = np.ones(len(order), bool)
        for best, others in enumerate(apart):
            if stays[best]:
                kept.append(int(order[best]))
                stays &= others
        order, boxes = order[_ROWS:][stays[_ROWS:]], boxes[_ROWS:][stays[_ROWS:]]
    return np.array(kept[:limit], np.int64)


def vote(kept: np.ndarray, boxes: np.ndarray, scores: np.ndarray, iou: float) -> np.ndarray:
    """(K, 4) boxes that nms() kept, (N, 4) all boxes and their (N,) scores -> (K, 4) float32, edges averaged over what sees the same face.

    The mean of the boxes that overlap a kept one by `iou` or more, weighted by score × overlap; one that none overlaps stays as it is.
    Bounding box voting (Gidaris & Komodakis 2015).
    """
    voted = kept.astype(np.float32)
    for start in range(0, len(kept), _ROWS):
        overlap = iou_with(kept[start : start + _ROWS], boxes)
        weight = np.where(overlap >= iou, scores * overlap, 0).astype(np.float64)
        total = weight.sum(1)
        seen = total > 0
        voted[start : start + _ROWS][seen] = (weight @ boxes)[seen] / total[seen, None]
    return voted


def fuse(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """What two looks at one picture found, each (N, 4) xyxy and (N,) scores, best first -> the same of both, best first.

    Boxes that mean the same face by pair() are one: edges are averaged by score, scores evenly. What
    only one look found keeps half of its score. Weighted boxes fusion (Solovyev et al. 2021) of two models, then nms().
    """
    (boxes, scores), (others, other_scores) = first, second
    pairs, alone = pair(boxes, others, iou), np.ones(len(others), bool)
    boxes, scores, other_scores = boxes.astype(np.float32), scores / 2, other_scores / 2
    for i, j in pairs:
        share = scores[i] / (scores[i] + other_scores[j])
        boxes[i] = boxes[i] * share + others[j] * (1 - share)
        scores[i] += other_scores[j]
        alone[j] = False
    boxes, scores = np.concatenate([boxes, others[alone]]), np.concatenate([scores, other_scores[alone]])
    kept = nms(boxes, scores, iou)
    return boxes[kept], scores[kept]


def crop_square(image: np.ndarray, xyxy: Any, margin: float = 1.0) -> np.ndarray:
    """The square around a box: side = margin × its longer side, same centre, what lies outside of the image replicated.

    `image` is (H, W) or (H, W, 3) of any dtype, `xyxy` four numbers in its pixels; returns (S, S) or (S, S, 3), a copy. The
    side is rounded to whole pixels, at least one. Raises UsageError for boxes that are not finite or absurdly large.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(v) for v in xyxy)
    size = margin * max(x2 - x1, y2 - y1)
    edge = 8 * max(width, height, 64)
    if not all(map(math.isfinite, (x1, y1, x2, y2, size))) or size > edge or max(map(abs, (x1, y1, x2, y2))) > edge:
        box = f"{x1:g}, {y1:g}, {x2:g}, {y2:g}"
        raise UsageError(f"cannot crop the box {box} from an image of {width}×{height}; expected xyxy in its pixels")
    side = max(1, round(size))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return image[top : top + side, left : left + side].copy()
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    return image[rows[:, None], columns]


def square_pixels(image: np.ndarray, shape: float) -> np.ndarray:
    """(H, W, …) uint8 of pixels `shape` times as wide as they are high -> (H, round(W × shape), …) of square ones."""
    if shape == 1:
        return image
    height, width = image.shape[:2]
    return cv2.resize(image, (max(1, round(width * shape)), height), interpolation=cv2.INTER_AREA if shape < 1 else cv2.INTER_LINEAR)


def square_boxes(xyxy: np.ndarray, shape: float) -> np.ndarray:
    """(..., 4) in an image's pixels -> in those of square_pixels(image, shape)."""
    return xyxy if shape == 1 else xyxy * np.array([shape, 1, shape, 1], xyxy.dtype)


def crop_faces(image_bgr: np.ndarray, detections: Any, margin: float | None = None) -> list[np.ndarray]:
    """Square crops of an image, one per detection, in their order, as a classifier wants them.

    `detections` is what Detector.detect() returned (anything with `.xyxy`) or (N, 4) xyxy. `margin` is the side over the
    longer side of the box; without it, that of the shipped classifier.
    """
    check_image(image_bgr, "crop_faces")
    if margin is None:
        margin = _shipped_margin()
    if not (isinstance(margin, int | float | np.floating) and math.isfinite(margin) and margin > 0):
        raise UsageError(f"crop_faces needs a margin above 0 (side of the crop over side of the box), got {margin!r}")
    boxes = getattr(detections, "xyxy", detections)
    try:
        boxes = np.asarray(boxes, np.float32)
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise ValueError(f"boxes of the shape {boxes.shape}")
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"crop_faces expected detections (what detect() returns) or (N, 4) xyxy boxes, got a {type(detections).__name__}; "
            "for a list of images call it once per image"
        ) from error
    return [crop_square(image_bgr, box, float(margin)) for box in boxes.reshape(-1, 4)]


def _shipped_margin() -> float:
    from engines.contract import ClassifierContract
    from engines.manifest import DEFAULTS, shipped

    entry = shipped().get(DEFAULTS["classifier"])
    return (entry.contract if entry else ClassifierContract()).crop_margin  # type: ignore[union-attr]


def check_image(image: Any, caller: str, *, grey: bool = False) -> None:
    """Raises UsageError unless `image` is (H, W, 3) uint8 with pixels, or with `grey` also (H, W)."""
    expected = f"{caller} expected a BGR image, (H, W, 3) uint8{', or a grey one, (H, W) uint8' if grey else ''}"
    if image is None:
        raise UsageError(f"{expected}, got None; cv2.imread returns None for a file it cannot read: check the path")
    if not isinstance(image, np.ndarray):
        raise UsageError(f"{expected}, got a {type(image).__name__}; read files with cv2.imread, convert others with numpy.asarray")
    if image.dtype != np.uint8:
        raise UsageError(f"{expected}, got {image.dtype}; convert with numpy.clip(image * 255, 0, 255).astype('uint8') if it is in 0…1")
    if image.ndim == 2 and not grey:
        raise UsageError(f"{expected}, got a grey one, {image.shape}; convert with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)")
    if image.ndim == 3 and image.shape[2] == 4:
        raise UsageError(f"{expected}, got four channels, {image.shape}; convert with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)")
    if image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3):
        raise UsageError(f"{expected}, got the shape {image.shape}; pass one image, or a list of images")
    if image.size == 0:
        raise UsageError(f"{expected}, got one without pixels, {image.shape}; check what it was cut from")
