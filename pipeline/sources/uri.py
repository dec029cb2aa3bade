"""The one grammar of `--source`: text → an unopened Source. Imports neither av nor cv2.

    0, 1, …                     webcam by index
    /dev/video0                 webcam by device (any character device)
    lavfi:GRAPH                 FFmpeg test input through the webcam's path, "lavfi:testsrc2=size=640x480:rate=30,realtime"
    rtsp:// rtsps://            camera or server, over TCP
    http:// https://            MJPEG, HLS, or a file on a server
    demo                        the composed clip (sources/demo.py)
    -                           a video on standard input
    a path                      a picture (told by its content), a folder of pictures, else a video; file:///path is a path too
    NAME.streams                a list of sources (sources/listing.py)
    a pattern with * ? [        pictures that match are one source, each video is one of its own; ** crosses folders

A path that exists is never read as a pattern or a URL. Only the short words win over files: `./0`, `./-` and `./demo` name files.
`parse_all` is the whole grammar; `parse` reads what names exactly one source.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from pipeline.errors import UsageError
from pipeline.sources.listing import LIST_SUFFIX, lines_of
from pipeline.sources.redact import redact, redact_text, unique_names
from pipeline.sources.sniff import PICTURE_SUFFIXES, is_picture, is_video

if TYPE_CHECKING:
    from pipeline.config import Live
    from pipeline.flow.protocols import Source

__all__ = ["Parsed", "natural", "open_source", "parse", "parse_all", "redact", "redact_text", "unique_names"]

Kind = Literal["webcam", "lavfi", "stream", "demo", "video", "images"]
_STREAMS = ("rtsp", "rtsps", "http", "https")
_EXPECTED = "a file, a folder or pattern of pictures, a webcam (0 or /dev/video0), rtsp://, http://, - or demo"


@dataclass(frozen=True)
class Parsed:
    """What a text names; nothing is opened yet."""

    kind: Kind
    text: str
    """Device, filter graph, URL (password included: never show it) or path, as the source's class takes it."""
    name: str
    """The text as given, passwords redacted: what rows and messages call it."""
    paths: tuple[Path, ...] = ()
    """Pictures in natural order (kind "images" only)."""

    @property
    def live(self) -> bool:
        return self.kind in ("webcam", "lavfi", "stream")


def parse_all(texts: Sequence[str]) -> list[Parsed]:
    """The sources that some `--source` texts name, lists and patterns of videos spread out. Raises UsageError as `parse`."""
    found: list[Parsed] = []
    for text in texts:
        if text.lower().endswith(LIST_SUFFIX) and os.path.isfile(text):
            for number, line in lines_of(text):
                try:
                    found += [parse(line)] if line.lower().endswith(LIST_SUFFIX) else parse_all([line])
                except UsageError as error:
                    raise UsageError(f"{text}, line {number}: {error}") from error
        elif text and "\0" not in text and not os.path.lexists(text) and _is_pattern(text):
            found += _parse_pattern(text)
        else:
            found.append(parse(text))
    if not found:
        raise UsageError(f"no source is named; expected {_EXPECTED}")
    if sum(one.text == "-" and one.kind == "video" for one in found) > 1:
        raise UsageError("standard input (-) is named twice as a source; it can be read once")
    return found


def parse(text: str) -> Parsed:
    """Which one input a `--source` text names. Looks at the file system, opens at most the first bytes of files.

    Raises UsageError: nothing there, a folder without pictures, a pattern that matches none, a scheme that is not known.
    """
    if not text or "\0" in text:
        raise UsageError(f"the source is {text!r}; expected {_EXPECTED}")
    if text == "demo":
        return Parsed("demo", text, text)
    if text == "-":
        return Parsed("video", text, text)
    if re.fullmatch(r"[0-9]{1,3}", text):
        return Parsed("webcam", text, text)
    mode = None
    try:
        mode = os.stat(text).st_mode
    except PermissionError as error:
        raise UsageError(f"{redact(text)} cannot be looked at: permission denied; check its rights and those of its folder") from error
    except OSError:
        pass
    if mode is None:  # outside of `except`: what is said of a URL must not drag along an error that holds its password
        return _parse_no_path(text)
    if stat.S_ISCHR(mode):
        return Parsed("webcam", text, text)
    if stat.S_ISDIR(mode):
        return Parsed("images", text, text, _pictures_of_folder(Path(text)))
    if stat.S_ISREG(mode) and is_picture(Path(text)):
        return Parsed("images", text, text, (Path(text),))
    if text.lower().endswith(LIST_SUFFIX):
        raise UsageError(f"{text} is a list of sources, and one source was expected here; write the lines of it instead")
    return Parsed("video", text, text)


def open_source(
    text: str | Parsed,
    *,
    live: Live | None = None,
    realtime: bool = False,
    start_s: float | None = None,
    end_s: float | None = None,
    max_frames: int | None = None,
    name: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    decode: str = "cpu",
) -> Source:
    """A Source that is not opened yet: `frames()` opens it on the thread that reads.

    `live`: time-outs and back-off of live sources (defaults where None). `realtime` paces videos and the demo by their PTS;
    live sources and pictures take no notice. `start_s`/`end_s`: seconds from the first frame, [start, end), videos and demo
    only. `max_frames`: the source ends after as many. `name`: what rows call it (give unique ones, see `unique_names`).
    `clock`: monotonic seconds for `captured_at`, pacing and reconnects. `decode`: what decodes videos and streams, "cpu" or
    "cuda:N"; the others have nothing that a GPU decodes.
    Raises UsageError for what can be told without opening; what shows later is raised by `frames()` as SourceError.
    """
    parsed = text if isinstance(text, Parsed) else parse(text)
    label = parsed.name if name is None else name
    _check(parsed, start_s, end_s, max_frames)
    if parsed.kind == "video":
        from pipeline.sources.video import VideoSource

        return VideoSource(
            parsed.text, name=label, realtime=realtime, start_s=start_s, end_s=end_s, max_frames=max_frames, clock=clock, decode=decode
        )
    if parsed.kind == "images":
        from pipeline.sources.images import ImagesSource

        return ImagesSource(parsed.paths, name=label, max_frames=max_frames, clock=clock)
    if parsed.kind == "demo":
        from pipeline.sources.demo import DemoSource

        return DemoSource(name=label, realtime=realtime, start_s=start_s, end_s=end_s, max_frames=max_frames, clock=clock)
    from pipeline.config import Live
    from pipeline.sources.live import LiveSource

    on = decode if parsed.kind == "stream" else "cpu"
    return LiveSource(parsed.text, kind=parsed.kind, name=label, settings=live or Live(), max_frames=max_frames, clock=clock, decode=on)


def natural(path: str | Path) -> list[tuple[int, int, str]]:
    """Sort key in which "img2" comes before "img10"."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", str(path).casefold())]


def _parse_no_path(text: str) -> Parsed:
    if text.startswith("lavfi:"):
        if not text[6:]:
            raise UsageError('lavfi: names no filter graph; expected something such as "lavfi:testsrc2=size=640x480:rate=30,realtime"')
        return Parsed("lavfi", text[6:], text)
    if match := re.match(r"(?i)([a-z][a-z0-9+.-]+)://(.*)", text, re.DOTALL):
        return _parse_url(match[1].lower(), match[2], text)
    if glob.has_magic(text):
        found = _parse_pattern(text)
        if len(found) > 1:
            raise UsageError(f"the pattern {text!r} names {len(found)} sources, and one was expected here")
        return found[0]
    if text.startswith("/dev/"):
        raise UsageError(f"there is no device {text}; expected one such as /dev/video0: `ls /dev/video*` shows those of this machine")
    raise UsageError(f"there is no file or folder {redact(text)!r} (from {_folder()}); expected {_EXPECTED}")


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) and not text.startswith("lavfi:") and not re.match(r"(?i)[a-z][a-z0-9+.-]+://", text)


def _parse_pattern(text: str) -> list[Parsed]:
    """The pictures as one source, then each video."""
    found = sorted((path for path in map(Path, glob.glob(text, recursive=True)) if path.is_file()), key=natural)
    pictures = tuple(path for path in found if is_picture(path))
    videos = [str(path) for path in found if path not in pictures and is_video(path)]
    if not pictures and not videos:
        what = f"matches {len(found)} files, none of them a picture or a video" if found else "matches nothing"
        raise UsageError(f"the pattern {text!r} {what}; expected pictures or videos")
    return [*([Parsed("images", text, text, pictures)] if pictures else []), *(Parsed("video", path, path) for path in videos)]


def _parse_url(scheme: str, rest: str, text: str) -> Parsed:
    shown = redact(text)
    if scheme == "file":
        path = unquote(urlsplit(text).path)
        if not path or not os.path.exists(path):
            raise UsageError(f"there is no file or folder {path!r}, which {shown} names; expected {_EXPECTED}")
        return parse(path)
    if scheme not in _STREAMS:
        raise UsageError(f"{shown} begins with {scheme}://, which is not known; expected rtsps://, https:// or {_EXPECTED}")
    url = f"{scheme}://{rest}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # it may quote a part of the password
        raise UsageError(f"the host or port of {shown} is malformed; expected {scheme}://host:port/path") from None
    if not host:
        raise UsageError(f"{shown} names no host; expected {scheme}://host:port/path")
    return Parsed("stream", url, shown)


def _pictures_of_folder(folder: Path) -> tuple[Path, ...]:
    """Not recursive; hidden files (macOS leaves "._a.jpg" beside "a.jpg") are no pictures."""
    try:
        inside = sorted((path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()), key=natural)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be read: {error.strerror}") from error
    pictures = tuple(path for path in inside if is_picture(path))
    if not pictures:
        what = f"{len(inside)} files, none of them a picture" if inside else "no files"
        kinds = ", ".join(sorted(PICTURE_SUFFIXES))
        videos = next((path.suffix for path in inside if is_video(path)), None)
        hint = f'"{folder}/*{videos}" names its videos' if videos else "or name one file"
        raise UsageError(f"the folder {folder} has {what}; expected pictures ({kinds}) in the folder itself, {hint}")
    return pictures


def _check(parsed: Parsed, start_s: float | None, end_s: float | None, max_frames: int | None) -> None:
    if max_frames is not None and (not isinstance(max_frames, Integral) or max_frames < 1):
        raise UsageError(f"the number of frames must be a whole number, at least 1, got {max_frames!r}")
    for name, seconds in (("start", start_s), ("end", end_s)):
        if seconds is not None and not isinstance(seconds, Real):
            raise UsageError(f"{name} is {seconds!r}; expected seconds from the first frame, such as 90.5")
    if start_s is None and end_s is None:
        return
    if parsed.live or parsed.kind == "images":
        kind = "live" if parsed.live else "a picture or pictures"
        raise UsageError(f"start and end cut videos, and {parsed.name} is {kind}; leave them out")
    first = start_s or 0.0
    if not 0 <= first < float("inf"):
        raise UsageError(f"the start must be seconds from the first frame, 0 or more, got {start_s}")
    if end_s is not None and not first < end_s < float("inf"):
        raise UsageError(f"the end ({end_s} s) must come after the start ({first} s); leave it out for the whole")


def _folder() -> str:
    try:
        return f"the folder {os.getcwd()}"
    except OSError:
        return "a folder that is gone"
