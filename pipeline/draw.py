"""The overlay: a box per face, its id, label and confidence, and the likeliest expressions beside it.

Sizes follow the picture's height and the face: text is 2.6 % of the height, never under 12 pixels (what H.264 still
shows legibly), and a face that is small against the text gets its label only, or in a crowd, where labels would cover
other faces, its box alone (the colour says the expression). Panels go where they cover no other face. A carried box (not
seen by the detector in this frame) is dashed, a face without id is thin.

In a video the words beside a face, and their side of it, stay for a fifth of a second unless the label changes: figures
that change thirty times a second cannot be read, and making them is half of what drawing a crowd costs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from pipeline.canvas import Canvas, Stamp, even
from pipeline.labels import GROUND, Look, chip_stamp, chip_words, panel_size, panel_stamp

if TYPE_CHECKING:
    from pipeline.types import Faces

HOLD_S = 0.2
"""So long the words beside a face stay as they are."""


class _Rect(NamedTuple):
    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def area(self) -> int:
        return (self.x2 - self.x1) * (self.y2 - self.y1)


class _Taken:
    """What should stay visible: boxes of faces, then labels and panels as they are placed. Arrays, because a hundred
    faces compare ten thousand pairs (88 ms per frame in plain Python)."""

    def __init__(self, boxes: list[_Rect]) -> None:
        self._rects = np.zeros((3 * len(boxes), 4), np.int64)
        self._rects[: len(boxes)] = boxes
        self._faces = self._count = len(boxes)

    def add(self, rect: _Rect) -> None:
        self._rects[self._count] = rect
        self._count += 1

    def covered(self, rects: np.ndarray, own: int, weight: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of faces, and of labels and panels, that each of `rects` (N, 4) would hide; those of face `own` count `weight`."""
        mine, others = rects[:, None], self._rects[None, : self._count]
        sides = np.minimum(mine[..., 2:], others[..., 2:]) - np.maximum(mine[..., :2], others[..., :2])
        pixels = np.maximum(sides, 0).prod(-1).astype(np.float64)
        pixels[:, own] *= weight
        return pixels[:, : self._faces].sum(-1), pixels[:, self._faces :].sum(-1)


class _Text(NamedTuple):
    """A label or a panel: its size in pixels, how it looks, and at which of the corners that it may take."""

    width: int
    height: int
    stamp: Stamp
    corner: int


class _Told(NamedTuple):
    """What is written beside a face, from `since_s` on; `kind`: of what it was made, any other face asks for other words."""

    since_s: float
    kind: tuple[object, ...]
    chip: _Text | None
    panel: _Text | None


Told: TypeAlias = dict[int, _Told]
"""Tracker id -> what stands beside that face."""


def draw_faces(
    canvas: Canvas, faces: Faces | None, top_k: int = 3, labels: bool = True, told: Told | None = None, time_s: float = 0.0
) -> None:
    """Mark every face of `faces` (boxes in the canvas's pixels). `top_k` 0…7: probabilities shown beside a face.

    `labels` False: boxes only. `told`: of a video, one dict that is given again with every picture (at `time_s`); in it is
    remembered what is written. Writes only the pixels it marks.
    """
    if faces is None or len(faces) == 0:
        return
    size = text_size(canvas.height)
    boxes = [_clipped(box, canvas) for box in faces.xyxy.tolist()]
    order = sorted((i for i, box in enumerate(boxes) if box is not None), key=lambda i: (-boxes[i].area, i))
    if not order:
        return
    looks = [Look(faces, i) for i in range(len(faces))]
    for i in reversed(order):
        _draw_box(canvas, boxes[i], looks[i], size)
    if not labels:
        return
    taken = _Taken([boxes[i] for i in order])
    told = {} if told is None else told
    before = dict(told)
    told.clear()
    for rank, i in enumerate(order):  # the largest face chooses its place first
        look = looks[i]
        text = _text(canvas, boxes[i], look, size, top_k, rank, taken, before.get(look.tracker_id), time_s)
        if look.tracker_id >= 0:
            told[look.tracker_id] = text


def text_size(height: int) -> int:
    """Height of a line of text, pixels, for a picture `height` pixels high."""
    return max(12, min(56, even(height * 0.026)))


def _draw_box(canvas: Canvas, box: _Rect, look: Look, size: int) -> None:
    side = min(box.x2 - box.x1, box.y2 - box.y1)
    width = 2 if look.tracker_id < 0 or side < 3 * size else max(2, even(size * 0.17))
    dash = 0 if look.observed else max(4, even(min(size * 0.5, side / 8)))
    if dash:  # the gaps stay dark, so that strokes show on any ground
        canvas.frame(*box, GROUND, width, alpha=0.5)
    elif side > 16:  # a dark edge outside makes any colour stand out
        canvas.frame(box.x1 - 2, box.y1 - 2, box.x2 + 2, box.y2 + 2, GROUND, 2, alpha=0.45)
    canvas.frame(*box, look.colour, width, dash)


def _text(
    canvas: Canvas, box: _Rect, look: Look, size: int, top_k: int, own: int, taken: _Taken, before: _Told | None, time_s: float
) -> _Told:
    """Write label, and the panel of probabilities where there is room; adds what was covered to `taken`."""
    height = box.y2 - box.y1
    small, large = height < 2.5 * size, height >= 5 * size
    count = top_k if height >= 3.5 * size else 0
    # A portrait takes larger text: 1.5 times where the face fills 60 % of the picture.
    scale = 0.75 if small else min(max(1.0, 0.75 + 1.25 * height / canvas.height), 1.5)
    tight, size = 0.15 if small else 0.35, max(12, even(size * scale))
    kind = (look.emotion, size, small, large, count, canvas.kind)
    if before is not None and before.kind == kind and 0 <= time_s - before.since_s < HOLD_S:
        chip = None
        if before.chip:
            chip = _written(canvas, before.chip, _chip_corners(box, before.chip.width, before.chip.height), taken)
        if before.panel and chip:
            _written(canvas, before.panel, _panel_corners(box, chip, before.panel.width, before.panel.height, size), taken)
        return before

    (width, foot), words = chip_words(look, size, height)
    spots = _inside(canvas, _chip_corners(box, width, foot), width, foot)
    faces, texts = taken.covered(spots, own, 0.2 if large else 1.0)
    hidden = faces + 2 * texts
    if not large and hidden.min() > tight * width * foot:
        return _Told(time_s, kind, None, None)  # a crowd: its colour must do
    label = _Text(width, foot, chip_stamp(canvas.kind, width, foot, words, look, size), int(hidden.argmin()))
    chip = _written(canvas, label, _chip_corners(box, width, foot), taken)
    rows = look.top(count)
    if not rows:
        return _Told(time_s, kind, label, None)
    width, foot = panel_size(rows, size)
    corner = _panel_corner(canvas, box, chip, width, foot, size, own, taken)
    if corner is None:
        return _Told(time_s, kind, label, None)
    panel = _Text(width, foot, panel_stamp(canvas.kind, width, rows, look, size), corner)
    _written(canvas, panel, _panel_corners(box, chip, width, foot, size), taken)
    return _Told(time_s, kind, label, panel)


def _written(canvas: Canvas, text: _Text, corners: list[tuple[int, int]], taken: _Taken) -> _Rect:
    """Paste `text` at its corner, moved into the picture; adds what it covers to `taken`."""
    x, y = (max(min(at & ~1, even(side - own)), 0) for at, side, own in
            zip(corners[text.corner], (canvas.width, canvas.height), (text.width, text.height), strict=True))  # fmt: skip
    canvas.paste(x, y, text.stamp)
    place = _Rect(x, y, x + text.width, y + text.height)
    taken.add(place)
    return place


def _chip_corners(box: _Rect, width: int, height: int) -> list[tuple[int, int]]:
    """Over and under the box, at either side, a line further where another label is there; at last in it."""
    over, under = box.y1 - height, box.y2
    return [*((x, y) for y_pair in ((over, under), (over - height, under + height)) for x in (box.x1, box.x2 - width) for y in y_pair),
            (box.x1, box.y1)]  # fmt: skip


def _panel_corners(box: _Rect, chip: _Rect, width: int, height: int, size: int) -> list[tuple[int, int]]:
    """Beside the box, under or over it; at last in the foot of a large one."""
    gap = max(2, even(size * 0.25))
    under = chip.y2 if chip.y1 >= box.y2 else box.y2 + gap
    over = min(chip.y1, box.y1) - height - gap
    return [(box.x2 + gap, box.y1), (box.x1 - width - gap, box.y1), (box.x1, under), (box.x1, over), (box.x2 - width, under),
            (box.x2 - width, over), (box.x1 + gap, box.y2 - height - gap)]  # fmt: skip


def _panel_corner(canvas: Canvas, box: _Rect, chip: _Rect, width: int, height: int, size: int, own: int, taken: _Taken) -> int | None:
    """Which of the panel's corners hides least; None where each would hide somebody."""
    spots = _inside(canvas, _panel_corners(box, chip, width, height, size), width, height)
    faces, texts = taken.covered(spots[:-1], own)
    hidden = faces + 1000 * texts
    best = int(hidden.argmin())
    if hidden[best] <= 0.08 * width * height:
        return best
    faces, texts = taken.covered(spots[-1:], own, 0)
    roomy = box.y2 - box.y1 >= 6 * size + height and box.x2 - box.x1 >= width + 2 * max(2, even(size * 0.25))
    return len(spots) - 1 if roomy and faces[0] + texts[0] == 0 else None


def _inside(canvas: Canvas, corners: list[tuple[int, int]], width: int, height: int) -> np.ndarray:
    """(N, 4): a rectangle at each corner (x, y), moved into the picture."""
    xy = np.minimum(np.asarray(corners) & ~1, (even(canvas.width - width), even(canvas.height - height))).clip(0)
    return np.hstack([xy, xy + np.array((width, height))])


def _clipped(box: list[float], canvas: Canvas) -> _Rect | None:
    if not all(map(math.isfinite, box)):
        return None
    x1, y1, x2, y2 = box
    rect = _Rect(even(max(x1, 0)), even(max(y1, 0)), even(min(x2 + 1, canvas.width + 1)), even(min(y2 + 1, canvas.height + 1)))
    return rect if rect.x2 > rect.x1 and rect.y2 > rect.y1 else None
