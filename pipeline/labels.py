"""What stands beside a face: its label with id and confidence, and a panel of the likeliest expressions, as stamps.

Colours are those of Okabe and Ito (2008), which people with any common colour blindness tell apart; grey means "uncertain",
and the label is always written out too.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

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
GROUND: Colour = (16, 18, 22)
_INK: Colour = (255, 255, 255)
_DIM: Colour = (190, 194, 200)
_NO_BAR: Colour = (96, 100, 108)
_DARK = 0.7
"""How much of the picture the ground of labels and panels hides."""
_STAMPS = 1024
"""Words and bars that are kept ready: of each some 4 kB at 720p."""
Words = tuple[tuple[str, Colour], ...]


class Look:
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


def chip_words(look: Look, size: int, height: int) -> tuple[tuple[int, int], Words]:
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


def chip_stamp(kind: str, width: int, height: int, words: Words, look: Look, size: int) -> Stamp:
    """The label for canvases of that `kind`, in text of `size` pixels; `width`, `height`, `words` as chip_words() says."""
    bar, edge = _bar_height(size), max(2, even(size * 0.2))
    line, x = height - bar, even(size * 0.4)
    cells, top = [_edge_stamp(kind, edge, height, look.colour)], even((line - size) / 2 + 1)
    for i, (word, ink) in enumerate(words):
        rest = width - edge if i == len(words) - 1 else x + text_width(word, size) + even(size * 0.34)
        cells.append(_word_stamp(kind, rest if i == 0 else rest - x, line, x if i == 0 else 0, top, word, ink, size))
        x = rest
    # How sure, along the foot of the label; where that is not known, no bar rather than an empty one.
    thick, sure = (0, 0) if math.isnan(look.confidence) else (bar, even(width * look.confidence))
    text = below([beside(cells[1:]), _bar_stamp(kind, width - edge, bar, 0, thick, max(sure - edge, 0), look.colour)])
    return beside([cells[0], text])


@lru_cache(_STAMPS)
def _edge_stamp(kind: str, width: int, height: int, colour: Colour) -> Stamp:
    return stamp(kind, width, height, lambda canvas: canvas.fill(0, 0, width, height, colour))


@lru_cache(_STAMPS)
def _word_stamp(kind: str, width: int, height: int, x: int, y: int, word: str, ink: Colour, size: int) -> Stamp:
    def draw(canvas: Canvas) -> None:
        canvas.fill(0, 0, width, height, GROUND, _DARK)
        canvas.text(x, y, word, size, ink)

    return stamp(kind, width, height, draw)


@lru_cache(_STAMPS)
def _bar_stamp(kind: str, width: int, height: int, top: int, thick: int, length: int, colour: Colour) -> Stamp:
    def draw(canvas: Canvas) -> None:
        canvas.fill(0, 0, width, height, GROUND, _DARK)
        canvas.fill(0, top, width, top + thick, _NO_BAR, 0.7)
        canvas.fill(0, top, length, top + thick, colour)

    return stamp(kind, width, height, draw)


def panel_size(rows: list[tuple[str, float]], size: int) -> tuple[int, int]:
    """(width, height) of the panel that shows `rows` of label and probability."""
    pad = even(size * 0.4)
    return (2 * pad + _name_width(size) + even(size * 3.2) + text_width("100%", size) + even(size * 0.8),
            2 * even(size * 0.2) + len(rows) * even(size * 1.25))  # fmt: skip


def panel_stamp(kind: str, width: int, rows: list[tuple[str, float]], look: Look, size: int) -> Stamp:
    """The panel, `width` as panel_size() says; the label that is said stands out."""
    pad, length, thick, edge = even(size * 0.4), even(size * 3.2), max(4, even(size * 0.36)), even(size * 0.2)
    name = pad + _name_width(size) + even(size * 0.4)
    share = width - name - length  # widths of the three cells of a line: its name, its bar, its share
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
    return below(lines)


def _bar_height(size: int) -> int:
    return max(2, even(size * 0.16))


@lru_cache
def _name_width(size: int) -> int:
    return max(text_width(label, size) for label in LABELS)


def _percent(probability: float) -> str:
    return f"{probability:.0%}"
