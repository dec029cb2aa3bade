"""Animated WebP as a video: FFmpeg 8.1 reads only the still kind, Pillow (which comes with matplotlib) reads it frame by frame.

Frames follow each other by the durations that stand in the file, milliseconds; a frame of 0 ms counts as 100, as in browsers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.errors import SourceError

_UNSAID_MS = 100


class AnimationReader:
    """A Reader (see reading.py). Transparent pixels come as black, as they are under a decoder that drops alpha."""

    time_base = Fraction(1, 1000)
    has_audio = False
    average_rate: Fraction | None = None
    duration_s: float | None = None

    def __init__(self, path: str) -> None:
        """Raises SourceError where it is damaged or Pillow cannot read it."""
        from PIL import Image

        self.path = path
        self.decoded = self.damaged = 0
        self.broken_off = ""
        self.past_end = False
        try:
            self._picture = Image.open(Path(path))
        except (OSError, SyntaxError, ValueError) as error:
            raise SourceError(f"{path} cannot be read as an animated WebP ({error}); check that it plays elsewhere") from error
        self.frame_count: int | None = getattr(self._picture, "n_frames", 1)

    def frames(self, stop: threading.Event) -> Iterator[tuple[av.VideoFrame, int]]:
        """In order, from the first."""
        pts = 0
        for number in range(self.frame_count or 0):
            if stop.is_set():
                return
            try:
                self._picture.seek(number)
                pixels = np.asarray(self._picture.convert("RGB"))
            except (OSError, EOFError, SyntaxError, ValueError) as error:
                self.broken_off = f"the file is damaged ({error})"
                return
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            image.pts, image.time_base = pts, self.time_base
            image.duration = step = round(self._picture.info.get("duration") or _UNSAID_MS)
            self.decoded += 1
            yield image, pts
            pts += step

    def seek(self, start: int, stop: threading.Event) -> None:
        """Frames build on those before: read on."""

    def pixel_shape(self) -> None:
        """Square."""

    def close(self) -> None:
        self._picture.close()
