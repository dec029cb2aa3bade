"""Small generated clips, and plain PyAV decodes to compare with."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a clip whose frame k is a grey of value 8·k mod 256."""

    def make(
        name: str = "clip.mp4",
        frames: int = 30,
        *,
        codec: str = "libx264",
        size: tuple[int, int] = (64, 48),
        rate: int = 25,
        first_pts: int = 0,
        gop: int = 12,
        audio: bool = False,
        video: bool = True,
        options: dict[str, str] | None = None,
        rotation: int = 0,
        shape: Fraction | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", options=options or {}) as out:
            if video:
                stream = out.add_stream(codec, rate=rate)
                stream.width, stream.height = size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, rate)
                stream.codec_context.gop_size = gop
                if shape:
                    stream.codec_context.sample_aspect_ratio = shape
                if rotation:
                    stream.set_display_rotation(rotation)
            if audio:
                sound = out.add_stream("aac", rate=44100)
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
                samples.rate = 44100
                out.mux(sound.encode(samples))
                out.mux(sound.encode(None))
            for k in range(frames if video else 0):
                frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 8 * k % 256, np.uint8), format="bgr24")
                frame.pts, frame.time_base = k + first_pts, Fraction(1, rate)
                out.mux(stream.encode(frame))
            if video:
                out.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def plain_pts() -> Callable[[Path], list[tuple[int, Fraction]]]:
    """PTS and time base of every frame as PyAV alone decodes them, without our code."""

    def decode(path: Path) -> list[tuple[int, Fraction]]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return [(frame.pts, frame.time_base) for frame in container.decode(stream)]

    return decode
