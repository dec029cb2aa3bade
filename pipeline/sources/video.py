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
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.error import FFmpegError

from pipeline.errors import SourceError
from pipeline.flow.batch import Ended
from pipeline.sources.pacing import Pacer
from pipeline.sources.quiet import silence_ffmpeg
from pipeline.sources.sniff import mp4_boxes
from pipeline.sources.timestamps import Timestamps
from pipeline.sources.upright import Upright
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
    ) -> None:
        """`start_s`, `end_s`: [start, end) in seconds from the first frame. `wait(seconds) -> stopped`: pauses of `realtime`;
        the stop Event's own where None."""
        self.path = str(path)
        self.name = self.path if name is None else name
        self.state = "CONNECTING"
        self._stop = threading.Event()
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
            with _open(self.path) as container:
                reader = _Reader(container, self.path)
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

    def _in_range(self, reader: _Reader) -> Iterator[tuple[av.VideoFrame, int]]:
        """The frames of [start, end). The first frame of the file is always decoded: it is what start and end count from."""
        source = reader.frames(self._stop)
        if (item := next(source, None)) is None:
            return
        image, pts = item
        first = pts
        start = first + round(self._start_s / reader.time_base)
        end = None if self._end_s is None else first + round(self._end_s / reader.time_base)
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

    def _info(self, reader: _Reader, image: av.VideoFrame) -> SourceInfo:
        stream, rate, duration = reader.stream, reader.stream.average_rate, reader.duration_s
        frames: int | None = stream.frames or None
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
            path=self.path,
            has_audio=reader.has_audio,
            start_s=self._start_s,
            end_s=self._end_s,
        )

    def _end(self, reader: _Reader, reason: str, count: int) -> Ended:
        failed = False
        if reason == "end of file":
            if reader.broken_off:
                failed, reason = True, f"failed: {reader.broken_off} after {count} frames"
            elif reader.undecodable:
                reason = f"end of file; {reader.undecodable} packets of it could not be decoded"
            if reader.broken_off or reader.undecodable:
                _log.warning("%s: %s", self.name, reason)
        return Ended(self.name, 0, reason, final=True, failed=failed)

    def _nothing(self, reader: _Reader) -> str:
        if reader.decoded:
            length = "" if reader.duration_s is None else f" of {reader.duration_s:.2f} s"
            end = "" if self._end_s is None else f" before {self._end_s} s"
            return f"{self.path}{length} has no frame from {self._start_s} s on{end}; choose an earlier start"
        why = reader.broken_off or (f"{reader.undecodable} packets are damaged" if reader.undecodable else "its video stream is empty")
        return f"no frame of {self.path} could be decoded: {why}; check that the file plays elsewhere"


@dataclass
class _Reader:
    """One open container and what was learned while reading it."""

    container: av.container.InputContainer
    path: str
    decoded: int = 0
    undecodable: int = 0
    broken_off: str = ""
    """Why reading ended before the file's end, a sentence part."""
    past_end: bool = False

    def __post_init__(self) -> None:
        self.stream = _video_stream(self.container, self.path)
        self.stream.thread_type = "AUTO"
        self.has_audio = bool(self.container.streams.audio)
        self.stamps = Timestamps(self.stream, self.container.format.name)
        self.time_base: Fraction = self.stamps.time_base
        self._upright = Upright()

    @property
    def duration_s(self) -> float | None:
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        return self.container.duration / av.time_base if self.container.duration else None

    def frames(self, stop: threading.Event) -> Iterator[tuple[av.VideoFrame, int]]:
        """From where the container stands to its end; a packet that cannot be decoded is counted and left out."""
        packets = self.container.demux(self.stream)
        while not stop.is_set():
            try:
                packet = next(packets, None)
            except (FFmpegError, OSError) as error:
                self.broken_off = f"the file cannot be read on ({_short(error)})"
                return
            if packet is None:
                boxes = _boxes(self.path)
                if boxes and boxes[1]:
                    self.broken_off = "the file is cut off (a broken download or recording)"
                return
            try:
                images = packet.decode()
            except FFmpegError:
                self.undecodable += 1
                continue
            for image in images:
                pts = self.stamps.of(image)
                image = self._upright(image)
                image.pts, image.time_base = pts, self.time_base
                self.decoded += 1
                yield image, pts
                if stop.is_set():
                    return

    def seek(
        self, start: int, stop: threading.Event
    ) -> tuple[Iterator[tuple[av.VideoFrame, int]], tuple[av.VideoFrame, int]] | None:
        """Frames from a key frame before `start` (PTS), and the first of them; None: go on reading where we are.

        Seeking is an optimisation that containers may not have, or have wrong (it lands behind the wanted time): then the
        file is read from its beginning, or on from where we are, and what lies before `start` is dropped by the caller.
        """
        if not self.stamps.from_container:
            return None
        if start * self.time_base - self._first_s() < 2:
            return None
        for target in (start, 0):
            try:
                if target:
                    self.container.seek(target, stream=self.stream, backward=True)
                else:
                    self.container.seek(0, backward=True)
            except (FFmpegError, OSError):
                return None
            self.stamps.restart()
            frames = self.frames(stop)
            first = next(frames, None)
            if first is None:
                continue
            if first[1] <= start or target == 0:
                return frames, first
        return None

    def _first_s(self) -> Fraction:
        return (self.stream.start_time or 0) * self.time_base


def _open(path: str) -> av.container.InputContainer:
    """"file:" keeps FFmpeg from reading "a:b.mp4" as a protocol; metadata in Latin-1 would raise with strict UTF-8."""
    silence_ffmpeg()
    try:
        if Path(path).is_file() and Path(path).stat().st_size == 0:
            raise SourceError(f"{path} is empty (0 bytes); expected a video: download or record it again")
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (FFmpegError, OSError) as error:
        raise SourceError(_why_not_opened(path, error)) from error
    if container.format.name == "tty":
        container.close()
        raise SourceError(f"{path} is a text; expected a video such as MP4, MOV, MKV, WebM or AVI")
    return container


def _why_not_opened(path: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} is gone; check the path"
    if isinstance(error, PermissionError):
        return f"{path} cannot be read: permission denied; check the rights of the file"
    boxes = _boxes(path)
    if boxes and "moov" not in boxes[0]:
        return f"{path} is an MP4 without its index (moov), as a recording or download that was cut off leaves it; get the whole file"
    return f"{path} cannot be read as a video ({_short(error)}); expected MP4, MOV, MKV, WebM, AVI or another format of FFmpeg"


def _video_stream(container: av.container.InputContainer, path: str) -> av.VideoStream:
    """The one with most pixels that is neither cover art nor a thumbnail."""
    pictures = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image | av.stream.Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not videos:
        cover = " (only cover art)" if container.streams.video else ""
        raise SourceError(f"{path} has no video stream{cover}; expected a video, got {_contents(container)}")
    known = [stream for stream in videos if stream.codec_context is not None]
    if not known:
        raise SourceError(f"the codec of {path} is not known to this FFmpeg ({av.ffmpeg_version_info}); convert it to H.264")
    return max(known, key=lambda stream: stream.codec_context.width * stream.codec_context.height)


def _contents(container: av.container.InputContainer) -> str:
    return ", ".join(sorted({stream.type or "data" for stream in container.streams if stream.type != "video"})) or "no streams"


def _boxes(path: str) -> tuple[list[str], bool] | None:
    try:
        return mp4_boxes(Path(path)) if Path(path).is_file() else None
    except OSError:
        return None


def _short(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().lower()
