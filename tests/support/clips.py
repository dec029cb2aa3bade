"""Small clips with a real face in them, made by Debian's ffmpeg in whatever form a test asks for."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

SIZE = (160, 120)
FRAMES = 12
RATE = 25

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the command ffmpeg: apt-get install ffmpeg")


@functools.cache
def _photograph() -> np.ndarray:
    """Grace Hopper, public domain, from matplotlib's sample data (nothing is imported for it)."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    return cv2.imread(str(Path(spec.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"))


def portrait(size: tuple[int, int] = SIZE, shift: float = 0.0) -> np.ndarray:
    """(H, W, 3) uint8 BGR: a head in the middle, three quarters of the height, moved to the right by `shift` of the width."""
    width, height = size
    zoom = height / 500
    place = np.array([[zoom, 0, width * (0.5 + shift) - zoom * 263], [0, zoom, height / 2 - zoom * 215]])
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(_photograph(), place, size, flags=method, borderMode=cv2.BORDER_REPLICATE)


def film(
    path: Path,
    *arguments: str,
    size: tuple[int, int] = SIZE,
    frames: int = FRAMES,
    rate: Fraction | int = RATE,
    sound: bool = False,
    step: float = 0.004,
    extra: tuple[str, ...] = (),
) -> Path:
    """Encodes `frames` pictures in which the head moves by `step` of the width each; input 0 is the picture, 1 a tone if `sound`.

    `arguments`: ffmpeg's for the output (4:2:0 unless they say otherwise); `extra`: further inputs, before it.
    """
    tone = ("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={frames / rate}") if sound else ()
    command = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[0]}x{size[1]}", "-r", str(rate), "-i", "-", *tone, *extra)
    pictures = b"".join(portrait(size, step * k).tobytes() for k in range(frames))
    return ffmpeg(path, *command, "-pix_fmt", "yuv420p", *arguments, data=pictures)


def ffmpeg(path: Path, *arguments: str, data: bytes | None = None) -> Path:
    """Runs ffmpeg; `path` is its output, however odd its name."""
    command = ["ffmpeg", "-nostdin", "-y", "-v", "error", *arguments, f"file:{path}"]
    if data is not None:
        command.remove("-nostdin")
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return path


def plain_decode(path: Path) -> list[float | None]:
    """Seconds of every frame that PyAV alone decodes from the largest stream that is no cover, packets that fail left out."""
    return [None if image.pts is None else float(image.pts * image.time_base) for image in _images(path)]


def torn(path: Path) -> set[int]:
    """Pictures of which a part is missing: what FFmpeg makes up for it is not the same in every run."""
    return {i for i, image in enumerate(_images(path)) if image.is_corrupt}


def _images(path: Path) -> Iterator[av.VideoFrame]:
    with closing(av.open(f"file:{path}")) as container:
        videos = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        stream = max(videos, key=lambda s: s.codec_context.width * s.codec_context.height)
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                continue


def combing(grey: np.ndarray) -> float:
    """How much neighbouring lines differ more than lines two apart: about 0.5 for whole pictures, above 1 where fields interleave."""
    picture = grey.astype(np.float32)
    near = np.abs(picture[1:-1] - (picture[:-2] + picture[2:]) / 2)
    far = np.abs(picture[2:-2] - (picture[:-4] + picture[4:]) / 2)
    return float(near.mean() / far.mean())
