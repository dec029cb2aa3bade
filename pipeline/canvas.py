"""Where the overlay is drawn: straight on the planes of a YUV 4:2:0 picture, or on a BGR array.

A round trip YUV → BGR → YUV costs 2.7 ms per 720p frame and changes every pixel; writing the few marked pixels of each
plane costs a tenth and leaves the rest bit for bit as decoded. Both canvases share one set of primitives: filled
rectangles on even coordinates, so that luma and half-size chroma cover exactly the same area, and text as an 8-bit mask
that is rendered once per string and size (TrueType rendering takes 120 µs, blending a ready mask 15).

What comes again and again, a word or a bar on its ground, is drawn once as a stamp; a label or a panel is joined from
stamps and pasted in two operations a plane instead of some hundred. Every primitive is affine in the ground, so its outcome
on black and on white says all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np

Colour = tuple[int, int, int]
"""Red, green, blue, 0…255."""
Stamp: TypeAlias = list[np.ndarray]
"""Per plane (2, h, w) or (2, h, w, 3) uint8: what is kept of the ground, 0…255, and what is added to that."""

_rendering = threading.Lock()


class Canvas:
    """`width`, `height`: pixels. Coordinates are pixels of the full picture; what lies outside is cut off."""

    kind: str
    """Of the planes: a stamp fits every canvas of the kind that it was made for."""
    width: int
    height: int

    def __init__(self, planes: list[tuple[np.ndarray, int]]) -> None:
        """`planes`: (array (h, w) or (h, w, 3) uint8, writable; 1 or 2: how many pixels of the picture one of it spans)."""
        self._planes = planes
        self.height, self.width = planes[0][0].shape[:2]

    def _values(self, colour: Colour) -> tuple[int | Colour, ...]:
        """What `colour` is in each plane."""
        raise NotImplementedError

    def fill(self, x1: float, y1: float, x2: float, y2: float, colour: Colour, alpha: float = 1.0) -> None:
        """Cover x1 ≤ x < x2, y1 ≤ y < y2 (moved to even pixels); `alpha` 0…1: how much of the ground it hides."""
        for part, _, value in self._parts(x1, y1, x2, y2, colour):
            _cover(part, value, alpha)

    def frame(self, x1: float, y1: float, x2: float, y2: float, colour: Colour, width: int, dash: int = 0,
              alpha: float = 1.0) -> None:  # fmt: skip
        """A rectangle's outline, `width` (even) pixels inwards; `dash` (even) > 0: strokes and gaps of that length."""
        for part, step, value in self._parts(x1, y1, x2, y2, colour):
            w = width // step
            for axis, side in ((1, part[:w]), (1, part[-w:]), (0, part[w:-w, :w]), (0, part[w:-w, -w:])):
                if dash:
                    strokes = np.arange(side.shape[axis]) % (2 * dash // step) < dash // step
                    side[(slice(None), strokes) if axis else strokes] = value
                else:
                    _cover(side, value, alpha)

    def _parts(self, x1: float, y1: float, x2: float, y2: float, colour: Colour) -> list[tuple[np.ndarray, int, int | Colour]]:
        """The cut of each plane, its step and what `colour` is there; empty where nothing of it lies in the picture."""
        x1, y1 = max(int(x1) & ~1, 0), max(int(y1) & ~1, 0)
        x2, y2 = min(int(x2), self.width + 1) & ~1, min(int(y2), self.height + 1) & ~1
        if x1 >= x2 or y1 >= y2:
            return []
        values = self._values(colour)
        return [(plane[y1 // step : y2 // step, x1 // step : x2 // step], step, values[n])
                for n, (plane, step) in enumerate(self._planes)]  # fmt: skip

    def text(self, x: float, y: float, text: str, size: int, colour: Colour) -> None:
        """`text` with the left end of its line's top at (x, y) (moved to even pixels); `size`: height of the line, pixels."""
        x, y = even(x), even(y)
        for (plane, step), value, mask in zip(self._planes, self._values(colour), self._masks(text, size), strict=True):
            left, top = x // step, y // step
            rows, columns = slice(max(-top, 0), plane.shape[0] - top), slice(max(-left, 0), plane.shape[1] - left)
            if rows.stop <= 0 or columns.stop <= 0:
                continue
            weight = mask[rows, columns]
            top, left = max(top, 0), max(left, 0)
            part = plane[top : top + weight.shape[0], left : left + weight.shape[1]]
            if part.ndim == 3:
                weight = weight[:, :, None]
            ground = part.astype(np.int16)
            part[:] = ground + ((np.int16(value) - ground) * weight >> 7)

    def paste(self, x: int, y: int, stamp: Stamp) -> None:
        """A stamp with its upper left corner at (x, y), even and not negative; what lies outside is cut off."""
        for (plane, step), both in zip(self._planes, stamp, strict=True):
            part = plane[y // step : y // step + both.shape[1], x // step : x // step + both.shape[2]]
            if part.size:
                keep, add = both[:, : part.shape[0], : part.shape[1]]
                cv2.add(cv2.multiply(part, keep, scale=1 / 255), add, part)

    def _masks(self, text: str, size: int) -> tuple[np.ndarray, ...]:
        full = _mask(text, size)
        return tuple(full if step == 1 else _half(text, size) for _, step in self._planes)


class BgrCanvas(Canvas):
    """Draws into `image` (H, W, 3) uint8, writable."""

    kind = "bgr"

    def __init__(self, image: np.ndarray) -> None:
        super().__init__([(image, 1)])

    def _values(self, colour: Colour) -> tuple[int | Colour, ...]:
        return (colour[::-1],)


class YuvCanvas(Canvas):
    """Draws into the planes y (H, W), u and v (⌈H/2⌉, ⌈W/2⌉) uint8, writable, limited range; `bt709`: else BT.601."""

    def __init__(self, y: np.ndarray, u: np.ndarray, v: np.ndarray, bt709: bool) -> None:
        super().__init__([(y, 1), (u, 2), (v, 2)])
        self._bt709 = bt709
        self.kind = "bt709" if bt709 else "bt601"

    def _values(self, colour: Colour) -> tuple[int | Colour, ...]:
        return _yuv(colour, self._bt709)


def stamp(kind: str, width: int, height: int, draw: Callable[[Canvas], None]) -> Stamp:
    """What `draw` does to a canvas of that kind and size (even pixels), to be pasted wherever it is wanted."""
    black, white = (_plain(kind, width, height, level) for level in (0, 255))
    draw(black)
    draw(white)
    return [np.stack([bright - dark, dark]) for (dark, _), (bright, _) in zip(black._planes, white._planes, strict=True)]


def beside(stamps: Sequence[Stamp]) -> Stamp:
    """Stamps of one height as one, from left to right."""
    return [np.concatenate(parts, 2) for parts in zip(*stamps, strict=True)]


def below(stamps: Sequence[Stamp]) -> Stamp:
    """Stamps of one width as one, from top to bottom."""
    return [np.concatenate(parts, 1) for parts in zip(*stamps, strict=True)]


def _plain(kind: str, width: int, height: int, level: int) -> Canvas:
    if kind == BgrCanvas.kind:
        return BgrCanvas(np.full((height, width, 3), level, np.uint8))
    y, u, v = (np.full((height // step, width // step), level, np.uint8) for step in (1, 2, 2))
    return YuvCanvas(y, u, v, bt709=kind == "bt709")


def even(value: float) -> int:
    """The even integer at or below."""
    return int(value) & ~1


def text_width(text: str, size: int) -> int:
    """Pixels that `text` takes at `size`."""
    return _mask(text, size).shape[1]


def _cover(part: np.ndarray, value: int | Colour, alpha: float) -> None:
    if alpha >= 1.0:
        part[:] = value
    elif part.size:
        cv2.LUT(part, _mix(value, round(alpha * 255)), part)  # in place: half the time of a copy


@lru_cache(256)
def _yuv(colour: Colour, bt709: bool) -> Colour:
    # ITU-R BT.601 / BT.709, 8 bits, limited range.
    kr, kb = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    r, g, b = (value / 255 for value in colour)
    y = kr * r + (1 - kr - kb) * g + kb * b
    return round(16 + 219 * y), round(128 + 112 * (b - y) / (1 - kb)), round(128 + 112 * (r - y) / (1 - kr))


@lru_cache(1024)
def _mix(value: int | Colour, alpha: int) -> np.ndarray:
    """(256, 1 or 3) uint8 table: what a pixel becomes under `value` at `alpha`/255."""
    ground = np.arange(256)[:, None]
    return np.round(ground + (np.atleast_1d(value)[None] - ground) * (alpha / 255)).astype(np.uint8).reshape(256, 1, -1)


@lru_cache(8192)
def _mask(text: str, size: int) -> np.ndarray:
    """(size, width) int16, 0…128, width even: how much ink covers each pixel."""
    with _rendering:  # FontFace keeps a glyph cache of its own, and several sinks draw
        ink = _truetype(text, size) if hasattr(cv2, "FontFace") else _hershey(text, size)
    ink.flags.writeable = False
    return ink


@lru_cache(8192)
def _half(text: str, size: int) -> np.ndarray:
    full = _mask(text, size)
    half = (full[0::2, 0::2] + full[1::2, 0::2] + full[0::2, 1::2] + full[1::2, 1::2]) >> 2
    half.flags.writeable = False
    return half


@lru_cache(1)
def _face() -> cv2.FontFace:
    return cv2.FontFace("sans")


def _truetype(text: str, size: int) -> np.ndarray:
    em, baseline = size * 0.74, round(size * 0.76)
    sheet = np.zeros((size, size * (len(text) + 1)), np.uint8)
    end, sheet = cv2.putText(sheet, text, (0, baseline), (255,), _face(), round(em), 500)
    return _fit(sheet[:, : end[0] + 1])


def _hershey(text: str, size: int) -> np.ndarray:
    scale, thickness = size / 34, max(1, round(size / 18))
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    sheet = np.zeros((size, width + 2), np.uint8)
    cv2.putText(sheet, text, (0, round(size * 0.76)), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return _fit(sheet)


def _fit(sheet: np.ndarray) -> np.ndarray:
    ink = (sheet.astype(np.int16) * 128 + 127) // 255
    return np.pad(ink, ((0, sheet.shape[0] % 2), (0, sheet.shape[1] % 2)))
