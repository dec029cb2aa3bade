"""Annotated pictures: one file, or a folder with the names of the inputs, or a pattern.

Each is encoded in memory, written under a temporary name in the same folder and renamed, so that a reader never meets
half a picture. The run's purpose goes into PNG (an iTXt chunk) and JPEG (a comment); other formats have no such place
that OpenCV can reach, which is told once.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
from av.video.reformatter import VideoReformatter

from pipeline.canvas import BgrCanvas
from pipeline.draw import draw_faces
from pipeline.errors import SinkError
from pipeline.flow.batch import Batch
from pipeline.sinks.outputs import PATTERN, PICTURE_SUFFIXES, file_identity, is_stream, safe_name, unique_name
from pipeline.sinks.planes import bgr_of
from pipeline.types import Frame

log = logging.getLogger(__name__)

_COMMENTED = (".png", ".jpg", ".jpeg")
_QUALITY = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
            ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95]}  # fmt: skip


class ImagesSink:
    """Every picture of the run. `output`: a picture (its suffix names the format) for one input, a pattern with {source}, or a folder,
    made when the first comes. `inputs`: what is never written over, beside the picture at hand.

    In a folder each picture keeps its name; a format that cannot be written becomes .png, equal names are numbered (_2 …).
    SinkError: the folder cannot be written, a file is there already (without `overwrite`), or it is an input.
    """

    name = "pictures"
    best_effort = False

    def __init__(self, output: str | os.PathLike[str], *, top_k: int = 3, purpose: str = "", overwrite: bool = False,
                 inputs: Iterable[str | os.PathLike[str]] = ()) -> None:  # fmt: skip
        self.output = Path(output)
        self._pattern = PATTERN in os.fspath(output)
        self.single = not self._pattern and self.output.suffix.lower() in PICTURE_SUFFIXES and not self.output.is_dir()
        self.written: list[Path] = []
        self._inputs = {file_identity(path) for path in inputs} - {None}
        self._top_k, self._overwrite = top_k, overwrite
        self._untold = bool(purpose)
        self._comment = f"Faces analysed by fer-stream. Purpose: {purpose or 'not declared'}"
        self._taken: set[str] = set()
        self._reformatter = VideoReformatter()

    def write(self, batch: Batch) -> None:
        for frame in batch.frames:
            if frame.info.kind == "image":
                self._write(frame)

    def close(self) -> None:
        """Nothing is open between pictures."""

    def _write(self, frame: Frame) -> None:
        path = self._path(frame)
        image = bgr_of(frame, self._reformatter).copy()
        draw_faces(BgrCanvas(image), frame.faces, self._top_k)
        suffix = path.suffix.lower()
        try:
            done, data = cv2.imencode(suffix, image, _QUALITY.get(suffix, []))
        except cv2.error as error:
            raise SinkError(f"cannot encode {path}: {error.err or 'OpenCV refused it'}") from error
        if not done:
            raise SinkError(f"cannot encode {path} as {suffix}")
        try:
            if not self.single:
                path.parent.mkdir(exist_ok=True)
            write_whole(path, commented(data.tobytes(), suffix, self._comment))
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror or error}") from error
        self.written.append(path)
        if self._untold and suffix not in _COMMENTED:
            self._untold = False
            log.warning("%s: %s pictures have no place for the purpose; name .png or .jpg where it must stand in them", path, suffix)

    def _path(self, frame: Frame) -> Path:
        origin = frame.origin or frame.source
        if self.single:
            if self.written:
                raise SinkError(f"{self.output} is one picture, but {origin} is a second; name a folder")
            path = self.output
        elif self._pattern:
            path = Path(os.fspath(self.output).replace(PATTERN, unique_name(safe_name(origin), self._taken)))
        else:
            name = Path(origin)
            suffix = name.suffix if name.suffix.lower() in PICTURE_SUFFIXES else ".png"
            path = self.output / unique_name(f"{name.stem or 'picture'}{suffix}", self._taken)
        there = None if is_stream(path) else file_identity(path)
        if there is not None and (there in self._inputs or there == file_identity(origin)):
            raise SinkError(f"{path} is an input; name another folder")
        if there is not None and not self._overwrite:
            raise SinkError(f"{path} exists; --overwrite replaces it")
        return path


def write_whole(path: Path, data: bytes) -> None:
    """All of `data` under `path`, or nothing: written beside it, then renamed. A device or a pipe is written into."""
    if is_stream(path):
        path.write_bytes(data)
        return
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)  # short: `path` may be as long as names can be
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's 0600 would surprise
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def commented(data: bytes, suffix: str, comment: str) -> bytes:
    """An encoded picture with `comment` in it, where the format has a place: PNG iTXt, JPEG COM."""
    if suffix == ".png" and data[:8] == b"\x89PNG\r\n\x1a\n":
        chunk = b"iTXt" + b"Comment\0\0\0\0\0" + comment.encode()
        framed = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        return data[:33] + framed + data[33:]  # 8 signature, 25 IHDR
    if suffix in (".jpg", ".jpeg") and data[:2] == b"\xff\xd8":
        text = comment.encode()[:65000]
        return data[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[2:]
    return data
