"""Clips that the bench makes itself, so that a figure can be had everywhere: the demo, and so many faces at such a size."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from engines.errors import UsageError

MOST_FACES = 32
_COLUMNS, _ROWS = 8, 4
_RATE = 30


def clip_of(source: str, folder: Path, say: Callable[[str], None] = lambda text: None, frames: int | None = None) -> str:
    """The path of a file for `source`: what it names, or the demo composed into `folder`. UsageError for what is no video file.

    The bare chain reads a file, and so does whatever it is held against: composing costs 3 ms of CPU a frame.
    """
    from pipeline.sources.uri import parse

    parsed = parse(source)
    if parsed.kind == "demo":
        from pipeline.sources.demo import FRAMES, compose_demo

        say("composing the demo clip")
        return str(compose_demo(folder / "demo.mp4", frames=frames or FRAMES))
    if parsed.kind != "video" or parsed.text == "-":
        raise UsageError(f"{parsed.name} cannot be measured: it is not a video file; give one, or demo (composed, 10 s of 1280×720)")
    return str(Path(parsed.text).resolve())


def compose_faces(path: Path, faces: int, *, width: int = 1280, height: int = 720, frames: int = 120) -> Path:
    """Writes `faces` (0…32) portraits that sway on a soft background: H.264, 30 fps.

    A face's place and size (a ninth of the height) depend on its number alone, so that clips with more of them differ in
    nothing else.
    """
    if not 0 <= faces <= MOST_FACES:
        raise UsageError(f"a clip can be composed with 0 to {MOST_FACES} faces, got {faces}")
    sprites = _portraits(round(height / 4.5))
    background = _background(width, height)
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=_RATE, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _RATE)
        for index in range(frames):
            canvas = background.copy()
            for number in range(faces):
                _paste(canvas, sprites[number % len(sprites)], *_place(number, index / _RATE, width, height))
            image = av.VideoFrame.from_ndarray(canvas, format="bgr24")
            image.pts, image.time_base = index, Fraction(1, _RATE)
            out.mux(stream.encode(image))
        out.mux(stream.encode(None))
    return path


def long_clip(path: Path, faces: int, seconds: float, *, width: int = 640, height: int = 360, rate: int = _RATE) -> Path:
    """Ten seconds of `compose_faces`, again and again, at `rate` frames a second: packets are copied, so that length costs little."""
    count = 0
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        short = compose_faces(Path(folder) / "short.mp4", faces, width=width, height=height, frames=10 * rate)
        with av.open(str(short)) as source, av.open(str(path), "w") as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            while count < seconds * rate:
                source.seek(0)
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream, packet.time_base = stream, Fraction(1, rate)
                        packet.pts = packet.dts = count
                        packet.duration = 1
                        out.mux(packet)
                        count += 1
    return path


def _place(number: int, t: float, width: int, height: int) -> tuple[int, int]:
    """Centre in pixels: cells of an 8 × 4 grid, taken in an order that spreads the first few over the picture."""
    cell = number * 13 % MOST_FACES
    sway = 0.06 * height * math.sin(1.1 * t + number), 0.03 * height * math.sin(1.7 * t + 2 * number)
    return round((cell % _COLUMNS + 0.5) * width / _COLUMNS + sway[0]), round((cell // _COLUMNS + 0.5) * height / _ROWS + sway[1])


def _paste(canvas: np.ndarray, sprite: tuple[np.ndarray, np.ndarray], x: int, y: int) -> None:
    """Blends a portrait centred at (x, y); what lies outside is cut."""
    colours, alpha = sprite
    h, w = alpha.shape[:2]
    left, top = x - w // 2, y - h // 2
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + w, canvas.shape[1]), min(top + h, canvas.shape[0])
    if x2 <= x1 or y2 <= y1:
        return
    inside = (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))
    under = canvas[y1:y2, x1:x2]
    under[:] = (under * (1 - alpha[inside]) + colours[inside] * alpha[inside]).astype(np.uint8)


def _portraits(size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Heads with hair and shoulders, `size` pixels square, and their soft masks; each one, and its mirror image."""
    rows, columns = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    alpha = np.clip((1 - np.hypot(rows, columns * 1.15)) / 0.15, 0, 1)[..., None].astype(np.float32)
    found = []
    for path, (x, y, half) in _photographs():
        photo = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        cut = photo[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
        square = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA)
        found += [(square, alpha), (np.ascontiguousarray(square[:, ::-1]), alpha)]
    return found


def _photographs() -> list[tuple[Path, tuple[int, int, int]]]:
    """Portraits that installed packages bring along, with the centre of the head and half a side around it, pixels."""
    import matplotlib

    found = [(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg", (263, 190, 180))]
    try:
        import skimage
    except ImportError:
        pass
    else:
        found.append((Path(skimage.__file__).parent / "data" / "astronaut.png", (226, 120, 118)))
    there = [one for one in found if one[0].is_file()]
    if not there:
        raise UsageError("no portrait to compose a clip of was found; pip install matplotlib scikit-image")
    return there


def _background(width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 BGR: a soft gradient."""
    x, y = np.meshgrid(np.linspace(0, 1, width, dtype=np.float32), np.linspace(0, 1, height, dtype=np.float32))
    return np.dstack([90 + 50 * y, 80 + 40 * x, 70 + 30 * (1 - y)]).astype(np.uint8)
