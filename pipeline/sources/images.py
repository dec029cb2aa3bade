"""Pictures as a source: one, a folder, a pattern. A frame each, PTS = index, time base 1; `origin` is the picture's own path."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.errors import SourceError
from pipeline.flow.batch import Ended
from pipeline.types import Frame, SourceInfo

_log = logging.getLogger(__name__)


class ImagesSource:
    """Frames in the order of `paths`. A picture that cannot be read is left out, named in one warning and in the reason of the
    end; where none can be read, `frames()` raises SourceError. PTS and index count the pictures that could be read."""

    live = False

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        name: str | None = None,
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths = tuple(paths)
        self.name = str(self.paths[0]) if name is None else name
        self.state = "CONNECTING"
        self.broken: list[Path] = []
        """Pictures that could not be read so far."""
        self._stop = threading.Event()
        self._max_frames, self._clock = max_frames, clock

    def interrupt(self) -> None:
        """From any thread: no further picture is read."""
        self._stop.set()

    def frames(self) -> Iterator[Frame | Ended]:
        index, reason, info = 0, "end of the pictures", None
        for path in self.paths:
            if self._stop.is_set():
                reason = "stopped"
                break
            pixels = self._read(path)
            if pixels is None:
                continue
            if info is None:
                height, width = pixels.shape[:2]
                count = min(len(self.paths), self._max_frames or len(self.paths))
                info = SourceInfo(self.name, "image", width, height, frames=count)
            image = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            image.pts, image.time_base = index, Fraction(1)
            self.state = "RUNNING"
            # `_bgr`: the pixels are here already, what would be made of `image` is the same.
            yield Frame(self.name, 0, index, index, Fraction(1), self._clock(), image, info, origin=str(path), _bgr=pixels)
            index += 1
            if index == self._max_frames:
                break
        if self.broken:
            shown = ", ".join(str(path) for path in self.broken[:3]) + (" …" if len(self.broken) > 3 else "")
            if index == 0 and reason != "stopped":
                self.state = "FAILED"
                which = shown if len(self.broken) == 1 else f"none of {len(self.broken)} pictures ({shown})"
                verb = "cannot be read as a picture" if len(self.broken) == 1 else "can be read"
                raise SourceError(f"{which} {verb}: empty, damaged or of an unknown format; expected JPEG, PNG, WebP, BMP or TIFF")
            reason += f"; {len(self.broken)} of {len(self.paths)} could not be read"
            _log.warning("%s: %d of %d pictures could not be read: %s", self.name, len(self.broken), len(self.paths), shown)
        self.state = "ENDED"
        yield Ended(self.name, 0, reason, final=True)

    def _read(self, path: Path) -> np.ndarray | None:
        """(H, W, 3) uint8 BGR, turned by its EXIF orientation (IMREAD_COLOR does it; deeper bits become 8, transparency is
        dropped). np.fromfile, because cv2.imread fails on names outside the code page on Windows."""
        try:
            data = np.fromfile(path, np.uint8)
            pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        except (OSError, cv2.error):
            pixels = None
        if pixels is None:
            self.broken.append(path)
        return pixels
