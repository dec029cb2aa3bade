"""The overlay: a box per face, its id, label and confidence, and the likeliest expressions beside it.

Sizes follow the picture's height and the face: text is 2.6 % of the height, never under 12 pixels (what H.264 still
shows legibly), and a face that is small against the text gets its label only, or in a crowd, where labels would cover
other faces, its box alone (the colour says the expression). Panels go where they cover no other face. Colours are those
of Okabe and Ito (2008), which people with any common colour blindness tell apart; grey means "uncertain", and the label
is always written out too. A carried box (not seen by the detector in this frame) is dashed, a face without id is thin.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engines.contract import LABELS, UNCERTAIN
from pipeline.canvas import Canvas, Colour, Stamp, below, beside, even, stamp, text_width
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
_DARK = 0.7
"""How much of the picture the ground of labels and panels hides."""
_STAMPS = 1024
"""Words and bars that are kept ready: of each some 4 kB at 720p."""
_Words = tuple[tuple[str, Colour], ...]


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
    corners = [(x, y) for x in (box.x1, box.x2 - width) for y in (box.y1 - foot, box.y2)]
    spots = _inside(canvas, [*corners, (box.x1, box.y1)], width, foot)
    large = height >= 5 * size
    faces, texts = taken.covered(spots, own, 0.2 if large else 1.0)
    hidden = faces + 2 * texts
    chip = _Rect(*spots[hidden.argmin()].tolist())
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
    spots = _inside(canvas, [
        (box.x2 + gap, box.y1), (box.x1 - width - gap, box.y1), (box.x1, under), (box.x1, over), (box.x2 - width, under),
        (box.x2 - width, over)], width, height)  # fmt: skip
    faces, texts = taken.covered(spots, own)
    hidden = faces + 1000 * texts
    best = hidden.argmin()
    if hidden[best] <= 0.08 * width * height:
        return _Rect(*spots[best].tolist())
    foot = _inside(canvas, [(box.x1 + gap, box.y2 - height - gap)], width, height)
    faces, texts = taken.covered(foot, own, 0)
    roomy = box.y2 - box.y1 >= 6 * size + height and box.x2 - box.x1 >= width + 2 * gap
    return _Rect(*foot[0].tolist()) if roomy and faces[0] + texts[0] == 0 else None


def _chip(look: _Look, size: int, height: int) -> tuple[tuple[int, int], _Words]:
    """(width, height) of the label and its words."""
    words: list[tuple[str, Colour]] = []
    if look.tracker_id >= 0 and height >= 2 * size:
        words.append((f"#{look.tracker_id}", _DIM))
    words.append((look.emotion, _INK if look.emotion != UNCERTAIN else _DIM))
    if height >= 2.5 * size and not math.isnan(look.confidence):
        words.append((_percent(look.confidence), _INK if look.emotion != UNCERTAIN else _DIM))
    pad, space = even(size * 0.4), even(size * 0.34)
    width = sum(text_width(word, size) for word, _ in words) + space * (len(words) - 1) + 2 * pad + max(2, even(size * 0.2))
    return (even(width + 1), even(size * 1.2) + _bar_height(size)), tuple(words)


def _draw_chip(canvas: Canvas, place: _Rect, words: _Words, look: _Look, size: int) -> None:
    kind, bar, edge = canvas.kind, _bar_height(size), max(2, even(size * 0.2))
    width, height, x = place.x2 - place.x1, place.y2 - place.y1 - bar, edge + even(size * 0.4)
    cells, top = [], even((height - size) / 2 + 1)
    for i, (word, ink) in enumerate(words):
        rest = width if i == len(words) - 1 else x + text_width(word, size) + even(size * 0.34)
        cells.append(_word_stamp(kind, rest if i == 0 else rest - x, height, x if i == 0 else 0, top, word, ink, size))
        x = rest
    # How sure, along the foot of the label; where that is not known, no bar rather than an empty one.
    thick, sure = (0, 0) if math.isnan(look.confidence) else (bar, even(width * look.confidence))
    canvas.paste(place.x1, place.y1, below([beside(cells), _bar_stamp(kind, width, bar, 0, thick, sure, look.colour)]))
    canvas.fill(place.x1, place.y1, place.x1 + edge, place.y2, look.colour)


@lru_cache(_STAMPS)
def _word_stamp(kind: str, width: int, height: int, x: int, y: int, word: str, ink: Colour, size: int) -> Stamp:
    def draw(canvas: Canvas) -> None:
        canvas.fill(0, 0, width, height, _GROUND, _DARK)
        canvas.text(x, y, word, size, ink)

    return stamp(kind, width, height, draw)


@lru_cache(_STAMPS)
def _bar_stamp(kind: str, width: int, height: int, top: int, thick: int, length: int, colour: Colour) -> Stamp:
    def draw(canvas: Canvas) -> None:
        canvas.fill(0, 0, width, height, _GROUND, _DARK)
        canvas.fill(0, top, width, top + thick, _NO_BAR, 0.7)
        canvas.fill(0, top, length, top + thick, colour)

    return stamp(kind, width, height, draw)


def _panel_size(rows: list[tuple[str, float]], size: int) -> tuple[int, int]:
    pad = even(size * 0.4)
    return (2 * pad + _name_width(size) + even(size * 3.2) + text_width("100%", size) + even(size * 0.8),
            2 * even(size * 0.2) + len(rows) * even(size * 1.25))  # fmt: skip


def _draw_panel(canvas: Canvas, place: _Rect, rows: list[tuple[str, float]], look: _Look, size: int) -> None:
    kind, pad, length, thick, edge = canvas.kind, even(size * 0.4), even(size * 3.2), max(4, even(size * 0.36)), even(size * 0.2)
    name = pad + _name_width(size) + even(size * 0.4)
    share = place.x2 - place.x1 - name - length  # widths of the three cells of a line: its name, its bar, its share
    lines = []
    for i, (label, probability) in enumerate(rows):
        above = edge if i == 0 else 0
        height = above + even(size * 1.25) + (edge if i == len(rows) - 1 else 0)
        ink, percent, middle = _INK if label == look.emotion else _DIM, _percent(probability), above + even((even(size * 1.25) - size) / 2)
        full, top = max(2, even(length * probability)), above + even((size * 1.25 - thick) / 2)
        lines.append(beside([
            _word_stamp(kind, name, height, pad, middle, label, ink, size),
            _bar_stamp(kind, length, height, top, thick, full, COLOURS[label]),
            _word_stamp(kind, share, height, share - pad - text_width(percent, size), middle, percent, ink, size),
        ]))  # fmt: skip
    canvas.paste(place.x1, place.y1, below(lines))


def _inside(canvas: Canvas, corners: list[tuple[int, int]], width: int, height: int) -> np.ndarray:
    """(N, 4): a rectangle at each corner (x, y), moved into the picture."""
    xy = np.minimum(np.asarray(corners) & ~1, (even(canvas.width - width), even(canvas.height - height))).clip(0)
    return np.hstack([xy, xy + np.array((width, height))])


def _clipped(box: np.ndarray, canvas: Canvas) -> _Rect | None:
    if not np.isfinite(box).all():
        return None
    x1, y1, x2, y2 = (float(value) for value in box)
    rect = _Rect(even(max(x1, 0)), even(max(y1, 0)), even(min(x2 + 1, canvas.width + 1)), even(min(y2 + 1, canvas.height + 1)))
    return rect if rect.x2 > rect.x1 and rect.y2 > rect.y1 else None


def _bar_height(size: int) -> int:
    return max(2, even(size * 0.16))


@lru_cache
def _name_width(size: int) -> int:
    return max(text_width(label, size) for label in LABELS)


def _percent(probability: float) -> str:
    return f"{probability:.0%}"
