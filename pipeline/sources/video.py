"""A video file, frame by frame: upright, with the container's own times, every frame once.

Errors say one thing and what to do; FFmpeg's "Invalid data found" covers text files, empty files and cut recordings alike.
How a damaged file ends (ffmpeg exits with 0 in all these cases, which hides lost footage from scripts):
- packets that cannot be decoded are left out, counted in the reason and one warning; the end is not `failed`;
- reading breaks off, or an MP4 is cut off behind its index: the frames before come, the end is `failed`;
- not one frame can be decoded: SourceError.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import av

from pipeline.errors import SourceError
from pipeline.flow.batch import Ended
from pipeline.sources.hardware import hardware
from pipeline.sources.pacing import Pacer
from pipeline.sources.pipe import is_pipe, unreadable
from pipeline.sources.reading import Reader, open_reader
from pipeline.sources.timestamps import first_tick
from pipeline.types import Frame, SourceInfo

_log = logging.getLogger(__name__)


class VideoSource:
    """See `uri.open_source`. `frames()` may be read once; the container is opened and closed on the thread that reads."""

    live = False

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        realtime: bool = False,
        start_s: float | None = None,
        end_s: float | None = None,
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        decode: str = "cpu",
    ) -> None:
        """`start_s`, `end_s`: [start, end) in seconds from the first frame. `wait(seconds) -> stopped`: pauses of `realtime`;
        the stop Event's own where None. `decode`: "cpu", or "cuda:N" for the GPU's decoder. Raises as hardware()."""
        self.path = str(path)
        self.name = self.path if name is None else name
        self.state = "CONNECTING"
        self._piped = is_pipe(self.path)
        self._stop = threading.Event()
        self._hardware = hardware(decode)
        self._start_s, self._end_s, self._max_frames = start_s or 0.0, end_s, max_frames
        self._clock = clock
        self._pacer = Pacer(clock, wait or self._stop.wait) if realtime else None

    def interrupt(self) -> None:
        """From any thread: no further frame is decoded, a pause of `realtime` ends at once."""
        self._stop.set()

    def frames(self) -> Iterator[Frame | Ended]:
        """Frames, then one final Ended. Raises SourceError where not one frame comes. Closing it closes the file."""
        count = 0
        try:
            with closing(open_reader(self.path, self._stop, self._hardware)) as reader:
                reason = "end of file"
                for image, pts in self._in_range(reader):
                    if count == 0:
                        info = self._info(reader, image)
                    if self._pacer and not self._pacer.due(float(pts * reader.time_base)):
                        break
                    self.state = "RUNNING"
                    yield Frame(self.name, 0, count, pts, reader.time_base, self._clock(), image, info)
                    count += 1
                    if count == self._max_frames:
                        reason = "end of the part that was asked for"
                        break
                else:
                    if reader.past_end:
                        reason = "end of the part that was asked for"
                if self._stop.is_set():
                    reason = "stopped"
                elif count == 0:
                    raise SourceError(self._nothing(reader))
                ended = self._end(reader, reason, count)
        except Exception:
            self.state = "FAILED"
            raise
        self.state = "FAILED" if ended.failed else "ENDED"
        yield ended

    def _in_range(self, reader: Reader) -> Iterator[tuple[av.VideoFrame, int]]:
        """The frames of [start, end). The first frame of the file is always decoded: it is what start and end count from."""
        source = reader.frames(self._stop)
        if (item := next(source, None)) is None:
            return
        image, pts = item
        first = pts
        start = first + first_tick(self._start_s, reader.time_base)
        end = None if self._end_s is None else first + first_tick(self._end_s, reader.time_base)
        if start > first:
            sought = reader.seek(start, self._stop)
            if sought is not None:
                source, (image, pts) = sought
        while True:
            if end is not None and pts >= end:
                reader.past_end = True
                return
            if pts >= start:
                yield image, pts
            if (item := next(source, None)) is None:
                return
            image, pts = item

    def _info(self, reader: Reader, image: av.VideoFrame) -> SourceInfo:
        rate, duration, frames = reader.average_rate, reader.duration_s, reader.frame_count
        if (self._start_s or self._end_s is not None) and rate and duration:
            frames = max(1, round((min(self._end_s or duration, duration) - self._start_s) * rate))
        if self._max_frames is not None:
            frames = self._max_frames if frames is None else min(frames, self._max_frames)
        return SourceInfo(
            name=self.name,
            kind="video",
            width=image.width,
            height=image.height,
            average_rate=rate,
            frames=frames,
            duration_s=duration,
            path=None if self._piped else self.path,
            has_audio=reader.has_audio,
            pixel_shape=reader.pixel_shape(),
            start_s=self._start_s,
            end_s=self._end_s,
        )

    def _end(self, reader: Reader, reason: str, count: int) -> Ended:
        failed = False
        if reason == "end of file":
            if reader.broken_off:
                failed, reason = True, f"failed: {reader.broken_off} after {count} frames"
            elif reader.damaged:
                reason = f"end of file; {reader.damaged} packets of it are damaged"
            if reader.broken_off or reader.damaged:
                _log.warning("%s: %s", self.name, reason)
        return Ended(self.name, 0, reason, final=True, failed=failed)

    def _nothing(self, reader: Reader) -> str:
        if self._piped and not reader.decoded:
            return unreadable(self.path, reader.broken_off or "no frame in it could be decoded")
        if reader.decoded:
            length = "" if reader.duration_s is None else f" of {reader.duration_s:.2f} s"
            end = "" if self._end_s is None else f" before {self._end_s} s"
            return f"{self.path}{length} has no frame from {self._start_s} s on{end}; choose an earlier start"
        why = reader.broken_off or (f"{reader.damaged} packets are damaged" if reader.damaged else "its video stream is empty")
        return f"no frame of {self.path} could be decoded: {why}; check that the file plays elsewhere"
