"""An open video file as FFmpeg reads it: the right stream, every frame upright and whole, at its own time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError

from pipeline.errors import SourceError
from pipeline.sources.deinterlace import Deinterlacer
from pipeline.sources.hardware import check_stream, open_on
from pipeline.sources.pipe import Pipe, empty, is_pipe, shown, unreadable
from pipeline.sources.quiet import silence_ffmpeg
from pipeline.sources.sniff import is_animated_webp, is_cut_off, mp4_boxes
from pipeline.sources.timestamps import Stretches, Timestamps, jump_s
from pipeline.sources.upright import Upright

Timed = tuple[av.VideoFrame, int]
"""A picture and its PTS."""


class Reader(Protocol):
    """An open file, and what was learned while reading it. Made, read and closed on one thread."""

    time_base: Fraction
    has_audio: bool
    average_rate: Fraction | None
    frame_count: int | None
    """As the container says, for progress."""
    duration_s: float | None
    decoded: int
    damaged: int
    """Packets so far that could not be decoded, or not whole."""
    broken_off: str
    """Why reading ended before the file's end, a sentence part."""
    past_end: bool

    def frames(self, stop: threading.Event) -> Iterator[Timed]: ...

    def seek(self, start: int, stop: threading.Event) -> tuple[Iterator[Timed], Timed] | None:
        """Frames from a key frame before `start` (PTS), and the first of them; None: go on reading where we are."""
        ...

    def pixel_shape(self) -> Fraction | None:
        """Width over height of a pixel of the last frame, None where it is square or unknown."""
        ...

    def close(self) -> None: ...


def open_reader(path: str, stop: threading.Event, chosen: HWAccel | None = None) -> Reader:
    """`path`: "-" is standard input; `chosen`: the GPU that decodes, see hardware(). Raises SourceError: what it is instead of a
    video, and what to do."""
    silence_ffmpeg()
    if is_pipe(path):
        return _piped(path, stop, chosen)
    if is_animated_webp(Path(path)):
        from pipeline.sources.animation import AnimationReader

        if chosen is not None:
            raise SourceError(f"{path} is an animated WebP, which the GPU does not decode; set decode.device to cpu")
        return AnimationReader(path)
    return FileReader(_open(path, chosen), path, chosen)


def _piped(path: str, stop: threading.Event, chosen: HWAccel | None) -> FileReader:
    try:
        pipe = Pipe(path, stop)
    except OSError as error:
        raise SourceError(_why_not_opened(path, error)) from error
    try:
        return FileReader(open_on(chosen, pipe, metadata_errors="replace"), shown(path), chosen, pipe)
    except BaseException as error:
        pipe.close()
        if isinstance(error, (FFmpegError, OSError, ValueError)):
            raise SourceError(unreadable(path, _short(error)) if pipe.begun else empty(path)) from error
        raise


class FileReader:
    """FFmpeg's container and the stream of it that counts."""

    def __init__(self, container: av.container.InputContainer, path: str, chosen: HWAccel | None = None, pipe: Pipe | None = None) -> None:
        """Takes over `container`, and the `pipe` that it reads from. `path`: for messages, and for a look at the file when it ends."""
        self.container, self.path, self._pipe = container, path, pipe
        self.decoded = self.damaged = 0
        self.broken_off = ""
        self.past_end = False
        try:
            self.stream = _video_stream(container, path)
            check_stream(self.stream, chosen)
        except BaseException:
            container.close()
            raise
        if chosen is None:
            self.stream.thread_type = "AUTO"
        self.has_audio = bool(container.streams.audio)
        self.average_rate: Fraction | None = self.stream.average_rate
        self.frame_count: int | None = self.stream.frames or None
        self._stamps = Timestamps(self.stream, container.format.name)
        self.time_base = self._stamps.time_base
        self._upright, self._fields = Upright(), Deinterlacer[int]()

    @property
    def duration_s(self) -> float | None:
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        return self.container.duration / av.time_base if self.container.duration else None

    def pixel_shape(self) -> Fraction | None:
        return self._upright.pixel_shape(self.stream)

    def close(self) -> None:
        self.container.close()
        if self._pipe is not None:
            self._pipe.close()

    def frames(self, stop: threading.Event) -> Iterator[Timed]:
        """From where the container stands to its end; a packet that cannot be decoded is counted and left out."""
        for item in self._whole(stop):
            image, pts = item
            image = self._upright(image)
            image.pts, image.time_base = pts, self.time_base
            self.decoded += 1
            yield image, pts
            if stop.is_set():
                return

    def _whole(self, stop: threading.Event) -> Iterator[Timed]:
        packets = self.container.demux(self.stream)
        while not stop.is_set():
            try:
                packet = next(packets, None)
            except (FFmpegError, OSError) as error:
                self.broken_off = f"the file cannot be read on ({_short(error)})"
                break
            if packet is None:
                if is_cut_off(Path(self.path)):
                    self.broken_off = "the file is cut off (a broken download or recording)"
                break
            self.damaged += packet.is_corrupt  # a transport stream's own count: what is left of it is decoded
            try:
                images = packet.decode()
            except FFmpegError:
                self.damaged += not packet.is_corrupt
                continue
            for image in images:
                yield from self._fields.push(image, self._stamps.of(image))
        yield from self._fields.flush()

    def seek(self, start: int, stop: threading.Event) -> tuple[Iterator[Timed], Timed] | None:
        """Seeking is an optimisation that containers may not have, or have wrong (it lands behind the wanted time): then the
        file is read from its beginning, or on from where we are, and what lies before `start` is dropped by the caller."""
        if not self._stamps.from_container or self._pipe is not None:
            return None
        if start * self.time_base - (self.stream.start_time or 0) * self.time_base < 2 or self._begins_anew(stop):
            return None
        for target in (start, 0):
            try:
                if target:
                    self.container.seek(target, stream=self.stream, backward=True)
                else:
                    self.container.seek(0, backward=True)
            except (FFmpegError, OSError):
                return None
            self._stamps.restart()
            self._fields = Deinterlacer[int]()
            frames = self.frames(stop)
            first = next(frames, None)
            if first is None:
                continue
            if first[1] <= start or target == 0:
                return frames, first
        return None

    def _begins_anew(self, stop: threading.Event) -> bool:
        """Whether the clock goes back somewhere, as in joined transport streams: a time is then in several places. Only formats that
        may do so are read through for it (undecoded, some hundred MB a second)."""
        if not self.container.format.flags & av.format.Flags.ts_discont.value:
            return False
        stretches = Stretches(jump_s(self.stream))
        with _open(self.path) as other:
            for packet in other.demux(other.streams[self.stream.index]):
                stretches.see(packet)
                if stop.is_set() or len(stretches.offsets) > 1:
                    break
        return len(stretches.offsets) > 1


def _open(path: str, chosen: HWAccel | None = None) -> av.container.InputContainer:
    """"file:" keeps FFmpeg from reading "a:b.mp4" as a protocol; metadata in Latin-1 would raise with strict UTF-8."""
    try:
        if Path(path).is_file() and Path(path).stat().st_size == 0:
            raise SourceError(f"{path} is empty (0 bytes); expected a video: download or record it again")
        container: av.container.InputContainer = open_on(chosen, f"file:{path}", metadata_errors="replace")
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
