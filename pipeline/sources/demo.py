"""A clip composed at run time, so that everything can be tried without a camera, a video or a download.

1280x720, 30 fps, 10 s: portraits that move, scale and tilt; one crosses in front of another and back, one leaves and returns.
The photographs come from packages that are installed anyway (nothing is imported for it, nothing is fetched): matplotlib's
portrait of Grace Hopper, scikit-image's of Eileen Collins (extra `demo`), ultralytics' zidane.jpg; where one is absent a
mirrored other takes the part, so the faces depend on what is installed, the movements do not.

A frame is a pure function of its index. Blending runs on the planes of YUV 4:2:0 with premultiplied sprites, which saves half of
the samples and the conversion: 3.0 ms a frame on one (shared) core of a server CPU.
"""

from __future__ import annotations

import importlib.util
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.errors import UsageError
from pipeline.flow.batch import Ended
from pipeline.sources.pacing import Pacer
from pipeline.sources.quiet import silence_ffmpeg
from pipeline.sources.timestamps import first_tick
from pipeline.types import Frame, SourceInfo

WIDTH, HEIGHT, FPS, FRAMES = 1280, 720, 30, 300


@dataclass(frozen=True)
class _Head:
    """Where a head is in a photograph: package, file in it, centre and half axes of an ellipse around it, pixels."""

    package: str
    file: str
    centre: tuple[float, float]
    axes: tuple[float, float]


_HOPPER = _Head("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (263, 196), (150, 190))
_COLLINS = _Head("skimage", "data/astronaut.png", (226, 112), (100, 118))
_ANCELOTTI = _Head("ultralytics", "assets/zidane.jpg", (982, 172), (112, 148))
_ZIDANE = _Head("ultralytics", "assets/zidane.jpg", (570, 328), (122, 145))


class DemoClip:
    """`frame(index)` for 0 ≤ index < FRAMES. Not for several threads at once."""

    def __init__(self) -> None:
        """Raises UsageError where no package has a photograph."""
        found = {head: path for head in (_HOPPER, _COLLINS, _ANCELOTTI, _ZIDANE) if (path := _photograph(head))}
        if not found:
            raise UsageError("the demo needs a photograph that comes with matplotlib or scikit-image; `pip install scikit-image`")

        def part(*wishes: tuple[_Head, bool], height: float) -> _Sprite:
            for head, mirrored in (*wishes, *((head, False) for head in found)):
                if head in found:
                    return _Sprite(found[head], head, mirrored, height)
            raise AssertionError("there is at least one")

        # Heights of the ellipses at scale 1, in pixels; in the order of drawing: the last is in front.
        self._parts = (
            (part((_HOPPER, False), height=330), _stays),
            (part((_ANCELOTTI, False), (_COLLINS, True), (_HOPPER, True), height=300), _comes_nearer),
            (part((_ZIDANE, False), (_HOPPER, True), (_COLLINS, False), height=260), _leaves_and_returns),
            (part((_COLLINS, False), (_HOPPER, True), height=270), _crosses),
        )
        self._background = _background(next(iter(found.values())))

    def frame(self, index: int) -> av.VideoFrame:
        """yuv420p (BT.601, limited range), PTS = index, time base 1/30."""
        canvas = self._background.copy()
        for sprite, path in self._parts:
            sprite.draw(canvas, *path(index / FPS))
        image = av.VideoFrame.from_ndarray(canvas, format="yuv420p")
        image.pts, image.time_base = index, Fraction(1, FPS)
        return image


class DemoSource:
    """The demo clip as a source that behaves like a file; arguments as in `uri.open_source`."""

    live = False

    def __init__(
        self,
        *,
        name: str = "demo",
        realtime: bool = False,
        start_s: float | None = None,
        end_s: float | None = None,
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.name, self.state = name, "CONNECTING"
        self._stop = threading.Event()
        self._clock = clock
        self._pacer = Pacer(clock, wait or self._stop.wait) if realtime else None
        first = first_tick(start_s or 0.0, Fraction(1, FPS))
        last = FRAMES if end_s is None else min(FRAMES, first_tick(end_s, Fraction(1, FPS)))
        if first >= FRAMES:
            raise UsageError(f"the demo has {FRAMES // FPS} s, got a start at {start_s} s; choose an earlier one")
        self._range = range(first, max(first + 1, last if max_frames is None else min(last, first + max_frames)))
        self._info = SourceInfo(
            name,
            "demo",
            WIDTH,
            HEIGHT,
            average_rate=Fraction(FPS),
            frames=len(self._range),
            duration_s=FRAMES / FPS,
            start_s=start_s or 0.0,
            end_s=end_s,
        )
        self._clip = DemoClip()

    def interrupt(self) -> None:
        """From any thread: no further frame is made, a pause of `realtime` ends at once."""
        self._stop.set()

    def frames(self) -> Iterator[Frame | Ended]:
        """Frames, then one final Ended."""
        base = Fraction(1, FPS)
        reason = "end of the demo" if self._range.stop == FRAMES else "end of the part that was asked for"
        for number, index in enumerate(self._range):
            if self._stop.is_set() or (self._pacer and not self._pacer.due(index / FPS)):
                reason = "stopped"
                break
            image = self._clip.frame(index)
            self.state = "RUNNING"
            yield Frame(self.name, 0, number, index, base, self._clock(), image, self._info)
        self.state = "ENDED"
        yield Ended(self.name, 0, reason, final=True)


def compose_demo(path: str | Path, frames: int = FRAMES, crf: int = 20) -> Path:
    """Writes the clip as an MP4 (H.264, no audio), for benchmarks; more frames than FRAMES repeat it from the start.

    An existing file is replaced. Took 3.8 s for the whole clip on two cores that were busy.
    """
    silence_ffmpeg()
    clip = DemoClip()
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for index in range(frames):
            image = clip.frame(index % FRAMES)
            image.pts = index
            out.mux(stream.encode(image))
        out.mux(stream.encode(None))
    return Path(path)


class _Sprite:
    """A head cut out by a soft ellipse, as premultiplied planes: luma with alpha (h, w, 2), chroma with alpha (h/2, w/2, 3)."""

    def __init__(self, path: Path, head: _Head, mirrored: bool, height: float) -> None:
        photo = _read(path)
        (x, y), (a, b) = head.centre, head.axes
        zoom = height / (2 * b)
        size = (2 * round(a * zoom) + 4, 2 * round(b * zoom) + 4)
        size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self._centre = ((size[0] - 1) / 2, (size[1] - 1) / 2)
        place = np.array([[zoom, 0, self._centre[0] - zoom * x], [0, zoom, self._centre[1] - zoom * y]])
        cut = cv2.warpAffine(photo, place, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        if mirrored:
            cut = np.ascontiguousarray(cut[:, ::-1])
        rows, columns = np.mgrid[: size[1], : size[0]]
        distance = np.hypot((columns - self._centre[0]) / (a * zoom), (rows - self._centre[1]) / (b * zoom))
        edge = np.clip((1.0 - distance) / 0.16, 0, 1)
        alpha = edge * edge * (3 - 2 * edge)
        luma, u, v = _planes(cv2.cvtColor(cut, cv2.COLOR_BGR2YUV_I420), size[0], size[1])
        half = cv2.resize(alpha, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
        self._luma = np.dstack([luma * alpha, alpha * 255]).round().astype(np.uint8)
        self._chroma = np.dstack([u * half, v * half, half * 255]).round().astype(np.uint8)

    def draw(self, canvas: np.ndarray, x: float, y: float, scale: float, tilt: float) -> None:
        """Its centre at (x, y) pixels of the canvas (I420), turned by `tilt` degrees; what lies outside is cut."""
        (half_w, half_h), cos, sin = self._centre, abs(math.cos(math.radians(tilt))), abs(math.sin(math.radians(tilt)))
        reach_x, reach_y = scale * (half_w * cos + half_h * sin), scale * (half_w * sin + half_h * cos)
        left, top = max(0, int(x - reach_x) & ~1), max(0, int(y - reach_y) & ~1)
        right, bottom = min(WIDTH, (int(x + reach_x) + 3) & ~1), min(HEIGHT, (int(y + reach_y) + 3) & ~1)
        if right - left < 2 or bottom - top < 2:
            return
        move = cv2.getRotationMatrix2D(self._centre, tilt, scale)
        move[0, 2] += x - left - self._centre[0]
        move[1, 2] += y - top - self._centre[1]
        luma, u, v = _planes(canvas, WIDTH, HEIGHT)
        _blend((luma[top:bottom, left:right],), self._luma, move)
        # A chroma sample lies between two luma samples: c' = (M(2c + ½) − ½) / 2.
        move = move.copy()
        move[:, 2] = (move[:, :2] @ (0.5, 0.5) + move[:, 2] - 0.5) / 2
        inside = (slice(top // 2, bottom // 2), slice(left // 2, right // 2))
        _blend((u[inside], v[inside]), self._chroma, move)


def _blend(planes: tuple[np.ndarray, ...], sprite: np.ndarray, move: np.ndarray) -> None:
    """In place: plane · (1 − alpha) + premultiplied sprite."""
    height, width = planes[0].shape
    *colours, alpha = cv2.split(cv2.warpAffine(sprite, move, (width, height), flags=cv2.INTER_LINEAR))
    rest = cv2.bitwise_not(alpha)
    for plane, colour in zip(planes, colours, strict=True):
        plane[:] = cv2.add(cv2.multiply(plane, rest, scale=1 / 255), colour)


def _planes(i420: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of Y (h, w), U and V (h/2, w/2) in an I420 array (3h/2, w)."""
    flat, area = i420.reshape(-1), width * height
    u, v = flat[area : area + area // 4], flat[area + area // 4 :]
    return i420[:height], u.reshape(height // 2, width // 2), v.reshape(height // 2, width // 2)


def _background(path: Path) -> np.ndarray:
    """The photograph, blurred until only soft colours are left, darkened to the edges; I420."""
    small = cv2.resize(_read(path), (16, 9), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), 2.0, borderType=cv2.BORDER_REPLICATE)
    large = cv2.resize(soft, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grey = large.mean(axis=2, keepdims=True)
    x, y = np.linspace(-1, 1, WIDTH, dtype=np.float32), np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None]
    light = 1.0 - 0.35 * np.clip(x * x + y * y, 0, 1)
    return cv2.cvtColor(np.clip((0.6 * large + 0.4 * grey) * light[..., None], 0, 255).astype(np.uint8), cv2.COLOR_BGR2YUV_I420)


def _photograph(head: _Head) -> Path | None:
    """The file inside an installed package, which is not imported."""
    try:
        spec = importlib.util.find_spec(head.package)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin).parent / head.file
    return path if path.is_file() else None


def _read(path: Path) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UsageError(f"{path}, which the demo is made of, is damaged; install its package again")
    return pixels


# The parts: seconds → centre x, y (pixels), scale, tilt (degrees).


def _stays(t: float) -> tuple[float, float, float, float]:
    return 400 + 45 * math.sin(0.9 * t), 330 + 25 * math.sin(1.3 * t), 0.95 + 0.05 * math.sin(0.7 * t), 4 * math.sin(1.1 * t)


def _crosses(t: float) -> tuple[float, float, float, float]:
    """In front of the one who stays, from left to right and back."""
    return 400 - 275 * math.cos(2 * math.pi * t / 10), 420 + 20 * math.sin(2.2 * t), 1.0 + 0.08 * math.sin(0.9 * t), 6 * math.sin(1.7 * t)


def _comes_nearer(t: float) -> tuple[float, float, float, float]:
    return 900 + 40 * math.sin(0.8 * t), 250 + 15 * math.sin(1.9 * t), 0.55 + 0.05 * t, 5 * math.sin(1.4 * t + 1)


def _leaves_and_returns(t: float) -> tuple[float, float, float, float]:
    """Through the right edge: gone from about 3.4 to 6.2 s."""
    away = 1 / (1 + math.exp(-4 * (t - 2.8))) - 1 / (1 + math.exp(-4 * (t - 6.8)))
    return 1130 + 320 * away + 15 * math.sin(1.2 * t), 500 + 20 * math.sin(1.5 * t), 0.9, 3 * math.sin(t)
