"""One connection to a camera, a server or a test input: opening it, and saying in words why it cannot be opened."""

from __future__ import annotations

import errno
import socket
import sys
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import av
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError

from pipeline.config import Live
from pipeline.errors import SourceError
from pipeline.sources.hardware import check_stream, open_on
from pipeline.sources.quiet import silence_ffmpeg
from pipeline.sources.redact import redact_text

_OPTIONS = {
    # TCP: lost UDP packets are torn pictures. analyzeduration: a default open takes 1.2 s and then delivers 30 stale frames;
    # with 0.1 s it takes 0.24 s and loses nothing (`fflags=nobuffer` would throw the key frame away). Sound is not asked for:
    # a camera whose picture hangs while its sound goes on would never look silent.
    "rtsp": {"rtsp_transport": "tcp", "analyzeduration": "100000", "allowed_media_types": "video"},
    "http": {"analyzeduration": "1000000"},
}
_HLS_READ_S = 10.0
"""A playlist grows a segment at a time, of 2 to 10 s: no silence before that."""


class Connection:
    """An open container and its video stream. Made, read and closed on one thread: closing from another segfaults."""

    def __init__(self, text: str, kind: str, settings: Live, chosen: HWAccel | None = None) -> None:
        """`chosen`: the GPU that decodes, see hardware().

        Raises FFmpegError or OSError (the network, the device) and SourceError (no video in it, none that the GPU decodes). Blocks
        for at most `open_timeout_s`, not counting the system's own look-up of the host's name.
        """
        silence_ffmpeg()
        self._text = text
        url, form, options, timeout = _arguments(text, kind, settings)
        self.container = open_on(chosen, url, format=form, options=options, timeout=timeout, metadata_errors="replace")
        try:
            videos = [stream for stream in self.container.streams.video if stream.codec_context is not None]
            if not videos:
                raise SourceError("it has no video stream; expected one with a picture")
            self.stream = max(videos, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
            check_stream(self.stream, chosen)
            # Frame threads hold back one frame each, slices none.
            self.stream.thread_type = "SLICE"
        except BaseException:
            self.container.close()
            raise
        duration = self.container.duration
        self.duration_s = duration / av.time_base if kind == "stream" and duration and duration > 0 else None
        """Length of a recording that a server plays, None for cameras and test inputs."""
        hls = self.container.format.name == "hls"
        self.paced_by_us = hls or (self.duration_s is not None and not url.startswith("rtsp"))
        """A recording over HTTP comes as fast as the line allows, live HLS in bursts of a segment (77 % of the frames within 5 ms
        of the one before, which a lane of two frames drops); RTSP servers keep time themselves."""
        self.silence_s = max(settings.read_timeout_s, _HLS_READ_S) if hls else settings.read_timeout_s
        """Longest time without a picture."""
        self.by_arrival = "mpjpeg" in self.container.format.name or self.container.format.name == "mjpeg"
        """MJPEG over HTTP has no times, FFmpeg counts 25 a second instead: when it arrived is nearer the truth."""
        rate = self.stream.guessed_rate or self.stream.average_rate
        self.rate: Fraction | None = rate if rate and 1 <= rate <= 240 else None

    def close(self) -> None:
        self.container.close()


def _arguments(text: str, kind: str, settings: Live) -> tuple[str, str | None, dict[str, str], tuple[float, float]]:
    # H.264 by RTSP doubles the read time-out, because the parser holds each frame until the next one comes: (3.0, 3.0) gave 6.0 s,
    # (3.0, 1.5) gives 3.0 s on a frozen server and on one that is alive but silent.
    rtsp = text.startswith("rtsp")
    timeout = (settings.open_timeout_s, settings.read_timeout_s / 2 if rtsp else settings.read_timeout_s)
    if kind == "lavfi":
        return text, "lavfi", {}, timeout
    if kind == "webcam":
        return (*_device(text), {}, timeout)
    if ".m3u8" in text.partition("?")[0]:
        timeout = (settings.open_timeout_s, max(settings.read_timeout_s, _HLS_READ_S))
    return text, None, _OPTIONS[text.partition(":")[0].rstrip("s")], timeout


def _device(text: str) -> tuple[str, str]:
    """Device and FFmpeg's name for the system's camera interface."""
    if sys.platform == "darwin":
        return text, "avfoundation"
    if sys.platform == "win32":
        return text, "vfwcap"
    return f"/dev/video{int(text)}" if text.isdigit() else text, "video4linux2"


def local_failure(text: str, kind: str, error: Exception) -> str:
    """One sentence on a webcam or test input that cannot be opened; a local device isn't a flaky network."""
    if kind == "lavfi":
        expected = "expected a graph such as testsrc2=size=640x480:rate=30,realtime"
        return f"the test input lavfi:{text} cannot be opened ({_plain(error)}); {expected}"
    device, _ = _device(text)
    number = getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError) or (number in (errno.ENOENT, errno.ENODEV, errno.ENXIO)):
        others = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none on this machine"
        return f"there is no webcam {device}; webcams found: {others}"
    if isinstance(error, PermissionError):
        return f"the webcam {device} may not be used: permission denied; join the group `video`, or allow cameras in the system's settings"
    if number == errno.EBUSY:
        return f"the webcam {device} is busy; close the program that uses it"
    if number in (errno.ENOTTY, errno.EINVAL):
        return f"{device} is a device, but not a webcam ({_plain(error)}); `ls /dev/video*` shows those of this machine"
    return f"the webcam {device} cannot be opened ({_plain(error)}); check that it is plugged in and not in use"


def network_failure(text: str, error: Exception, settings: Live, opening: bool = False, unread_mp4: bool = False) -> str:
    """Why a stream cannot be opened or broke, a part of a sentence without any password. `unread_mp4`: an MP4, before its first picture."""
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return "the server wants a user and password, or refused those given (401)"
    if isinstance(error, av.error.HTTPForbiddenError):
        return "the server forbids it (403)"
    if isinstance(error, av.error.HTTPNotFoundError):
        return "the server has no such stream (404)"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens at that host and port"
    if getattr(error, "errno", None) == errno.EIO:
        if opening and not _host_is_known(text):
            return f"the host name {urlsplit(text).hostname} is not known"
        if unread_mp4:
            return (
                "it broke off before its first picture; an MP4 whose index is at its end needs a server that answers byte ranges: "
                "download it, or move the index to the front (ffmpeg -i in.mp4 -c copy -movflags +faststart out.mp4)"
            )
        # Also how MJPEG over HTTP ends, and what a web page without a length gives.
        return "the connection broke off, or what came is no video"
    if isinstance(error, (av.error.ExitError, TimeoutError)):
        return f"no answer within {settings.open_timeout_s:g} s to open, {settings.read_timeout_s:g} s to read"
    if isinstance(error, av.error.InvalidDataError):
        return "no answer, or one that is no video"
    return redact_text(_plain(error), text)


def _host_is_known(url: str) -> bool:
    """FFmpeg gives the same error for an unknown host as for a broken line."""
    try:
        socket.getaddrinfo(urlsplit(url).hostname, None)
    except (OSError, UnicodeError):
        return False
    return True


def _plain(error: Exception) -> str:
    text = error.strerror if isinstance(error, (FFmpegError, OSError)) and error.strerror else str(error)
    return " ".join(str(text).split()).lower()[:200] or type(error).__name__
