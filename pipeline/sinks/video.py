"""The annotated video: H.264, HEVC or AV1 in MP4, MOV or MKV, right in time, with the file's own sound, readable while it grows.

Measured (PyAV 18.1): MP4 with `hybrid_fragmented+delay_moov` and fragments of half a second keeps every PTS exactly,
plays after a SIGKILL from the second second on, and becomes an ordinary MP4 when it is closed. `frag_keyframe+empty_moov`
shifts the picture by 11–48 ms where audio is copied. Three more things keep the first fragment early:

- libavformat writes no header before every stream has a packet. A track of sound that begins at 2.4 s would hold the
  header back until then; `audio_preload` lets its first packet go out at once.
- Its interleaving queue waits for the stream that is behind, ten seconds long where sound has ended; we feed it in order
  of time, so it may wait for nothing (`max_interleave_delta=1`).
- x264 holds frames back: its look-ahead and one per thread. Both are bounded here by the frame rate, to ~0.4 s each.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av

from pipeline.draw import Told, draw_faces
from pipeline.errors import SinkError
from pipeline.flow.batch import Batch, Ended
from pipeline.sinks.audio import Audio
from pipeline.sinks.encoders import check_codec, encoder, same_priority
from pipeline.sinks.growing_file import GrowingFile
from pipeline.sinks.outputs import video_suffix
from pipeline.sinks.planes import Pictures, canvas_of, colour_tags, is_bt709
from pipeline.types import Frame

log = logging.getLogger(__name__)

LIVE_TIME_BASE = Fraction(1, 90000)
_ONE_WRITE = 4 << 20
"""Bytes: a fragment below this goes out in one system call, which a kill does not tear."""
_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}


class VideoSink:
    """Draws the faces of one source's frames and encodes them; as many frames out as in.

    path: .mp4, .mov or .mkv (UsageError otherwise), made when the first frame arrives.
    source: the only source that is written; None: whichever frames come first decide.
    codec: h264, hevc, av1, or an encoder's name (see encoders.py). preset, crf: x264's words, whatever the codec.
    threads: of the encoder, None: 1.5 per core, fewer at low frame rates.
    top_k: 0…7 probabilities per face; draw False: no overlay. purpose, title: into the file's metadata.

    Raises SinkError when writing fails; what is written stays, unfinished but readable. Closing finishes the file.
    """

    best_effort = False

    def __init__(self, path: str | os.PathLike[str], source: str | None = None, *, codec: str = "h264", preset: str = "ultrafast",
                 crf: int = 23, top_k: int = 3, draw: bool = True, threads: int | None = None, purpose: str = "", title: str | None = None,
                 overwrite: bool = False) -> None:  # fmt: skip
        self.path = os.fspath(path)
        self._format = _FORMATS[video_suffix(self.path)]
        self.name = "video" if source is None else f"video of {source}"
        self.source = source
        self.frames_written = 0
        check_codec(codec, self.path, preset)
        self._coding: dict[str, Any] = {"codec": codec, "preset": preset, "crf": crf, "threads": threads}
        self._top_k, self._draw = top_k, draw
        self._told: Told = {}
        self._metadata = {"title": title or "", "comment": f"Faces analysed by fer-stream. Purpose: {purpose or 'not declared'}"}
        self._overwrite = overwrite
        self._pictures = Pictures()
        self._writer: _Writer | None = None
        self._ended: Ended | None = None
        self._closed = False

    def write(self, batch: Batch) -> None:
        if self._closed:
            return
        for frame in batch.frames:
            if self.source is None:
                self.source = frame.source
            if frame.source == self.source:
                self._write_frame(frame)
        for ended in batch.ended:
            if ended.source == self.source and ended.final:
                self._ended = ended

    def close(self) -> None:
        """Finish the file: the rest of the sound where the source ended by itself, then the index. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            whole = self._ended is not None and not self._ended.failed and self._ended.reason.startswith("end of file")
            self._guarded(lambda: self._writer.finish(whole))

    def _write_frame(self, frame: Frame) -> None:
        picture = self._pictures.copy(frame.image)
        if self._draw:
            draw_faces(canvas_of(picture, is_bt709(frame.image)), frame.faces, self._top_k, told=self._told, time_s=frame.pts_s)
        if self._writer is not None and (picture.width, picture.height) != self._writer.size:
            picture = self._pictures.letterboxed(picture, *self._writer.size)
        self._guarded(lambda: self._encode(frame, picture))
        self.frames_written += 1

    def _encode(self, frame: Frame, picture: av.VideoFrame) -> None:
        if self._writer is None:
            self._writer = _Writer(self.path, self._format, frame, picture, self._overwrite, self._coding, self._metadata)
        self._writer.write(frame, picture)

    def _guarded(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except BaseException as error:
            self._closed = True
            if self._writer is not None:
                self._writer.abandon()
            if isinstance(error, av.error.FFmpegError | OSError | ValueError | MemoryError):
                reason = "it exists; --overwrite replaces it" if isinstance(error, FileExistsError) else (
                    getattr(error, "strerror", None) or str(error) or type(error).__name__)  # fmt: skip
                raise SinkError(f"cannot write the video {self.path}: {reason}") from error
            raise


class _Writer:
    """An open output: encoder, sound, clock."""

    def __init__(self, path: str, format_name: str, frame: Frame, picture: av.VideoFrame, overwrite: bool,
                 coding: dict[str, Any], metadata: dict[str, str]) -> None:  # fmt: skip
        info = frame.info
        self.size = (picture.width, picture.height)
        self._info = info
        self._matroska = format_name == "matroska"
        self._time_base = LIVE_TIME_BASE if info.live else frame.time_base
        self._zero = frame.pts * frame.time_base
        self._last_pts = -1
        self._last_s = self._gap_s = self._end_s = Fraction(0)
        self._last_duration = 0
        self._held: Any = None
        self._audio: Audio | None = None
        self._file = GrowingFile(path, overwrite)
        try:
            self._audio = _audio_of(frame, self._zero, may_be_early=not self._matroska)
            late_s = self._audio.first_s if self._audio is not None and not self._matroska else Fraction(0)
            self._late_s = late_s if late_s > Fraction(1, 5) else Fraction(0)
            self._container = self._opened(format_name)
            self._container.metadata.update({key: value for key, value in metadata.items() if value})
            rate = info.average_rate if info.average_rate and 1 <= info.average_rate <= 240 else Fraction(25)
            self._rate = rate
            self._stream = self._video_stream(frame.image, rate, **coding)
            if self._audio is not None:
                self._audio.add_to(self._container, path)
            with same_priority():
                self._container.start_encoding()
            if self._late_s:
                self._mux_audio(self._late_s + Fraction(1, 1_000_000))
        except BaseException:
            self.abandon()
            raise

    def _opened(self, format_name: str) -> av.container.OutputContainer:
        options = {"max_interleave_delta": "1", "flush_packets": "1"}
        if not self._matroska:
            if self._late_s:
                options["audio_preload"] = str(min(int((self._late_s + 1) * 1_000_000), 2**31 - 2))
            if self._audio is not None and self._audio.first_s > 0:  # an empty edit counts in this unit; 1 ms would round it
                options["movie_timescale"] = str(self._audio.rate)
            options["movflags"] = "hybrid_fragmented+delay_moov"
            options["frag_duration"] = "500000"
            if self._time_base.denominator < 2**31:
                options["video_track_timescale"] = str(self._time_base.denominator)
        else:
            options["cluster_time_limit"] = "500"
        return av.open(self._file, "w", format=format_name, options=options, buffer_size=_ONE_WRITE)

    def _video_stream(self, image: av.VideoFrame, rate: Fraction, codec: str, preset: str, crf: int, threads: int | None) -> Any:
        held = int(rate * Fraction(2, 5))  # frames of 0.4 s
        threads = threads or max(2, min(3 * (os.cpu_count() or 1) // 2, held))
        chosen = encoder(codec, preset=preset, crf=crf, lookahead=min(10, held), threads=threads)
        stream = self._container.add_stream(chosen.name, rate=rate)
        stream.width, stream.height = self.size
        stream.pix_fmt = chosen.pix_fmt
        stream.time_base = stream.codec_context.time_base = self._time_base
        for name, value in colour_tags(image).items():
            setattr(stream.codec_context, name, value)
        if self._info.pixel_shape is not None:
            stream.codec_context.sample_aspect_ratio = self._info.pixel_shape
        if chosen.codec_tag is not None and not self._matroska:
            stream.codec_context.codec_tag = chosen.codec_tag
        stream.codec_context.options = chosen.options
        return stream

    def write(self, frame: Frame, picture: av.VideoFrame) -> None:
        time_s = frame.pts * frame.time_base - self._zero
        pts = max(round(time_s / self._time_base), self._last_pts + 1)  # exact in the file's own time base
        self._last_pts = pts
        duration_s = frame.image.duration * frame.time_base if frame.image.duration else 1 / self._rate
        self._last_duration, self._end_s = round(duration_s / self._time_base), time_s + duration_s
        self._last_s, self._gap_s = time_s, time_s - self._last_s
        picture.pts, picture.time_base, picture.pict_type = pts, self._time_base, 0
        self._mux_audio(pts * self._time_base)
        self._mux_video(self._stream.encode(picture))

    def finish(self, whole: bool) -> None:
        """`whole`: the source was read to its end, and so is its sound."""
        self._mux_video(self._stream.encode(None), last=True)
        if self._audio is not None:
            self._mux_audio(self._sound_end_s(whole))
            for packet in self._audio.rest():
                self._container.mux(packet)
            self._audio.close()
        self._container.close()
        self._file.close()

    def _sound_end_s(self, whole: bool) -> Fraction | None:
        """Where the sound is cut, None: nowhere. At the end that was asked for rather than at the last frame, after which some may
        have been left out (`stride`)."""
        asked_s = None if self._info.end_s is None else Fraction(self._info.end_s) - Fraction(self._info.start_s)
        if whole:
            return asked_s
        if asked_s is None:
            return self._end_s
        return max(self._end_s, min(asked_s, self._last_s + self._gap_s))

    def abandon(self) -> None:
        """Leave what is whole of the file, without another byte."""
        if not self._matroska:
            with contextlib.suppress(OSError):
                self._file.cut_torn_fragment()
        self._file.close()  # first: closing the container then writes no trailer
        if self._audio is not None:
            self._audio.close()
        if hasattr(self, "_container"):
            self._container.close()

    def _mux_audio(self, end_s: Fraction | None) -> None:
        if self._audio is not None:
            for packet in self._audio.until(end_s):
                self._container.mux(packet)

    def _mux_video(self, packets: list[Any], last: bool = False) -> None:
        """Muxes all but the newest packet: a fragment's last one needs its duration, which is the way to the next DTS."""
        for packet in packets:
            if self._held is not None:
                self._held.duration = packet.dts - self._held.dts
                self._container.mux(self._held)
            self._held = packet
        if last and self._held is not None:
            # Up to the video's end, though a B-frame is not its last: libavformat takes the length from the last fragment
            # alone, and where only B-frames are in it, players would cut off the frames that are shown after them.
            self._held.duration = max(self._last_pts + self._last_duration - self._held.pts, 1)
            self._container.mux(self._held)
            self._held = None


def _audio_of(frame: Frame, zero: Fraction, may_be_early: bool) -> Audio | None:
    """The sound that belongs to this video, None where there is none in its range.

    `may_be_early`: the container has edit lists. Matroska has none: a packet before zero would move the picture.
    """
    info = frame.info
    if not info.has_audio or info.live:
        return None
    if info.path is None:
        log.warning("%s: the sound of a pipe, which can be read only once, is left out; save it as a file first", info.name)
        return None
    try:
        audio = Audio(info.path, zero, cut_start=info.start_s > 0, may_be_early=may_be_early)
    except (av.error.FFmpegError, OSError) as error:
        log.warning("the sound of %s cannot be read and is left out: %s", info.name, getattr(error, "strerror", error))
        return None
    first = audio.first_s
    if first is None or (info.end_s is not None and first >= Fraction(info.end_s) - Fraction(info.start_s)):
        audio.close()
        return None
    return audio
