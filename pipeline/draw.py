"""The overlay: a box per face, its id, label and confidence, and the likeliest expressions beside it.

Sizes follow the picture's height and the face: text is 2.6 % of the height, never under 12 pixels (what H.264 still
shows legibly), and a face that is small against the text gets its label only, or in a crowd, where labels would cover
other faces, its box alone (the colour says the expression). Panels go where they cover no other face. Colours are those
of Okabe and Ito (2008), which people with any common colour blindness tell apart; grey means "uncertain", and the label
is always written out too. A carried box (not seen by the detector in this frame) is dashed, a face without id is thin.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engines.contract import LABELS, UNCERTAIN
from pipeline.canvas import Canvas, Colour, even, text_width
from pipeline.events import confidence_of

if TYPE_CHECKING:
    from pipeline.types import Faces

COLOURS: dict[str, Colour] = {
    "angry": (213, 94, 0),
    "disgust": (0, 158, 115),
    "fear": (204, 121, 167),
    "happy": (240, 228, 66),
    "sad": (32, 126, 204),
    "surprise": (86, 180, 233),
    "neutral": (232, 232, 232),
    UNCERTAIN: (150, 150, 150),
}
_GROUND: Colour = (16, 18, 22)
_INK: Colour = (255, 255, 255)
_DIM: Colour = (190, 194, 200)
_NO_BAR: Colour = (96, 100, 108)


class _Rect(NamedTuple):
    x1: int
    y1: int
    x2: int
    y2: int

    def moved(self, dx: int, dy: int) -> _Rect:
        return _Rect(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)

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

    def covered(self, rects: list[_Rect], own: int, weight: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of faces, and of labels and panels, that each of `rects` would hide; those of face `own` count `weight`."""
        mine, others = np.asarray(rects)[:, None], self._rects[None, : self._count]
        sides = np.minimum(mine[..., 2:], others[..., 2:]) - np.maximum(mine[..., :2], others[..., :2])
        pixels = np.maximum(sides, 0).prod(-1).astype(np.float64)
        pixels[:, own] *= weight
        return pixels[:, : self._faces].sum(-1), pixels[:, self._faces :].sum(-1)


def draw_faces(canvas: Canvas, faces: Faces | None, top_k: int = 3, labels: bool = True) -> None:
    """Mark every face of `faces` (boxes in the canvas's pixels). `top_k` 0…7: probabilities shown beside a face.

    `labels` False: boxes only. Writes only the pixels it marks.
    """
    if faces is None or len(faces) == 0:
        return
    size = text_size(canvas.height)
    boxes = [_clipped(box, canvas) for box in faces.xyxy]
    order = sorted((i for i, box in enumerate(boxes) if box is not None), key=lambda i: (-boxes[i].area, i))
    if not order:
        return
    looks = [_Look(faces, i) for i in range(len(faces))]
    for i in reversed(order):
        _draw_box(canvas, boxes[i], looks[i], size)
    if not labels:
        return
    taken = _Taken([boxes[i] for i in order])
    for rank, i in enumerate(order):  # the largest face chooses its place first
        _draw_text(canvas, boxes[i], looks[i], size, top_k, rank, taken)


def text_size(height: int) -> int:
    """Height of a line of text, pixels, for a picture `height` pixels high."""
    return max(12, min(56, even(height * 0.026)))


class _Look:
    """What is said of face `i`."""

    def __init__(self, faces: Faces, i: int) -> None:
        data = faces.data
        emotion = data.get("emotion")
        self.emotion = UNCERTAIN if emotion is None else str(emotion[i])
        self.colour = COLOURS.get(self.emotion, COLOURS[UNCERTAIN])
        smoothed = data.get("smoothed")
        self.probabilities = np.full(len(LABELS), np.nan) if smoothed is None else smoothed[i]
        self.confidence = confidence_of(self.emotion, self.probabilities)
        self.tracker_id = -1 if faces.tracker_id is None else int(faces.tracker_id[i])
        self.observed = bool(data["observed"][i]) if "observed" in data else True

    def top(self, count: int) -> list[tuple[str, float]]:
        """The `count` likeliest labels and their probabilities; ties in the order of LABELS."""
        known = [(label, float(p)) for label, p in zip(LABELS, self.probabilities, strict=True) if not math.isnan(p)]
        return sorted(known, key=lambda pair: -pair[1])[:count]


def _draw_box(canvas: Canvas, box: _Rect, look: _Look, size: int) -> None:
    side = min(box.x2 - box.x1, box.y2 - box.y1)
    width = 2 if look.tracker_id < 0 or side < 3 * size else max(2, even(size * 0.17))
    dash = 0 if look.observed else max(4, even(min(size * 0.5, side / 8)))
    if dash:  # the gaps stay dark, so that strokes show on any ground
        canvas.frame(*box, _GROUND, width, alpha=0.5)
    elif side > 16:  # a dark edge outside makes any colour stand out
        canvas.frame(box.x1 - 2, box.y1 - 2, box.x2 + 2, box.y2 + 2, _GROUND, 2, alpha=0.45)
    canvas.frame(*box, look.colour, width, dash)


def _draw_text(canvas: Canvas, box: _Rect, look: _Look, size: int, top_k: int, own: int, taken: _Taken) -> None:
    """Label, and the panel of probabilities where there is room; adds what was covered to `taken`."""
    height = box.y2 - box.y1
    small = height < 2.5 * size
    rows = look.top(top_k) if height >= 3.5 * size else []
    # A portrait takes larger text: 1.5 times where the face fills 60 % of the picture.
    scale = 0.75 if small else min(max(1.0, 0.75 + 1.25 * height / canvas.height), 1.5)
    size = max(12, even(size * scale))
    (width, foot), words = _chip(look, size, height)
    spots = [(x, y) for x in (box.x1, box.x2 - width) for y in (box.y1 - foot, box.y2)]
    spots = [_inside(canvas, x, y, width, foot) for x, y in [*spots, (box.x1, box.y1)]]
    large = height >= 5 * size
    faces, texts = taken.covered(spots, own, 0.2 if large else 1.0)
    hidden = faces + 2 * texts
    chip = spots[int(hidden.argmin())]
    if not large and hidden.min() > (0.15 if small else 0.35) * chip.area:
        return  # a crowd: its colour must do
    _draw_chip(canvas, chip, words, look, size)
    taken.add(chip)
    if rows:
        panel = _panel_place(canvas, box, chip, _panel_size(rows, size), size, own, taken)
        if panel is not None:
            _draw_panel(canvas, panel, rows, look, size)
            taken.add(panel)


def _panel_place(canvas: Canvas, box: _Rect, chip: _Rect, wanted: tuple[int, int], size: int, own: int, taken: _Taken) -> _Rect | None:
    """Beside the box, under or over it, at last in the foot of a large box; None where it would hide somebody."""
    width, height = wanted
    gap = max(2, even(size * 0.25))
    under = chip.y2 if chip.y1 >= box.y2 else box.y2 + gap
    over = min(chip.y1, box.y1) - height - gap
    spots = [_inside(canvas, x, y, width, height) for x, y in (
        (box.x2 + gap, box.y1), (box.x1 - width - gap, box.y1), (box.x1, under), (box.x1, over), (box.x2 - width, under),
        (box.x2 - width, over))]  # fmt: skip
    faces, texts = taken.covered(spots, own)
    hidden = faces + 1000 * texts
    best = int(hidden.argmin())
    if hidden[best] <= 0.08 * spots[best].area:
        return spots[best]
    foot = _inside(canvas, box.x1 + gap, box.y2 - height - gap, width, height)
    faces, texts = taken.covered([foot], own, 0)
    roomy = box.y2 - box.y1 >= 6 * size + height and box.x2 - box.x1 >= width + 2 * gap
    return foot if roomy and faces[0] + texts[0] == 0 else None


def _chip(look: _Look, size: int, height: int) -> tuple[tuple[int, int], list[tuple[str, Colour]]]:
    """(width, height) of the label and its words."""
    words: list[tuple[str, Colour]] = []
    if look.tracker_id >= 0 and height >= 2 * size:
        words.append((f"#{look.tracker_id}", _DIM))
    words.append((look.emotion, _INK if look.emotion != UNCERTAIN else _DIM))
    if height >= 2.5 * size and not math.isnan(look.confidence):
        words.append((_percent(look.confidence), _INK if look.emotion != UNCERTAIN else _DIM))
    pad, space = even(size * 0.4), even(size * 0.34)
    width = sum(text_width(word, size) for word, _ in words) + space * (len(words) - 1) + 2 * pad + max(2, even(size * 0.2))
    return (even(width + 1), even(size * 1.2) + _bar_height(size)), words


def _draw_chip(canvas: Canvas, place: _Rect, words: list[tuple[str, Colour]], look: _Look, size: int) -> None:
    bar = _bar_height(size)
    canvas.fill(*place, _GROUND, 0.72)
    x = place.x1 + max(2, even(size * 0.2)) + even(size * 0.4)
    canvas.fill(place.x1, place.y1, place.x1 + max(2, even(size * 0.2)), place.y2, look.colour)
    for word, ink in words:
        canvas.text(x, place.y1 + (place.y2 - bar - place.y1 - size) / 2 + 1, word, size, ink)
        x += text_width(word, size) + even(size * 0.34)
    if not math.isnan(look.confidence):  # how sure, along the foot of the label
        canvas.fill(place.x1, place.y2 - bar, place.x2, place.y2, _NO_BAR, 0.8)
        canvas.fill(place.x1, place.y2 - bar, place.x1 + (place.x2 - place.x1) * look.confidence, place.y2, look.colour)


def _panel_size(rows: list[tuple[str, float]], size: int) -> tuple[int, int]:
    pad = even(size * 0.4)
    return (2 * pad + _name_width(size) + even(size * 3.2) + text_width("100%", size) + even(size * 0.8),
            2 * even(size * 0.2) + len(rows) * even(size * 1.25))  # fmt: skip


def _draw_panel(canvas: Canvas, place: _Rect, rows: list[tuple[str, float]], look: _Look, size: int) -> None:
    canvas.fill(*place, _GROUND, 0.68)
    pad, length, thick = even(size * 0.4), even(size * 3.2), max(4, even(size * 0.36))
    bar_x, y = place.x1 + pad + _name_width(size) + even(size * 0.4), place.y1 + even(size * 0.2)
    for label, probability in rows:
        ink = _INK if label == look.emotion else _DIM
        middle = y + (even(size * 1.25) - size) / 2
        canvas.text(place.x1 + pad, middle, label, size, ink)
        top = even(y + (size * 1.25 - thick) / 2)
        canvas.fill(bar_x, top, bar_x + length, top + thick, _NO_BAR, 0.6)
        canvas.fill(bar_x, top, bar_x + max(2, length * probability), top + thick, COLOURS[label])
        percent = _percent(probability)
        canvas.text(place.x2 - pad - text_width(percent, size), middle, percent, size, ink)
        y += even(size * 1.25)


def _inside(canvas: Canvas, x: float, y: float, width: int, height: int) -> _Rect:
    """A rectangle at (x, y), moved into the picture."""
    x, y = min(even(x), even(canvas.width - width)), min(even(y), even(canvas.height - height))
    return _Rect(0, 0, width, height).moved(max(0, x), max(0, y))


def _clipped(box: np.ndarray, canvas: Canvas) -> _Rect | None:
    if not np.isfinite(box).all():
        return None
    x1, y1, x2, y2 = (float(value) for value in box)
    rect = _Rect(even(max(x1, 0)), even(max(y1, 0)), even(min(x2 + 1, canvas.width + 1)), even(min(y2 + 1, canvas.height + 1)))
    return rect if rect.x2 > rect.x1 and rect.y2 > rect.y1 else None


def _bar_height(size: int) -> int:
    return max(2, even(size * 0.16))


def _name_width(size: int) -> int:
    return max(text_width(label, size) for label in LABELS)


def _percent(probability: float) -> str:
    return f"{probability:.0%}"
