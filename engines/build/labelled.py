"""Labelled and calibration images from a folder, as they lie on disk: faces in Ultralytics' YOLO form, FER2013 as .npz.

    DATA/*val*.tar, *train*.tar, or an unpacked tree with images/{val,train}/*.webp and labels/{val,train}/*.txt
    DATA/fer2013.npz    images_dx (N, 48, 48) uint8 horizontal differences, label, usage, pixel_source

Nothing is unpacked to disk, and nothing of it goes into a model: calibration leaves ranges, accuracy leaves figures.
"""

from __future__ import annotations

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.errors import UsageError

_PICTURES = (".webp", ".jpg", ".jpeg", ".png", ".bmp")


@dataclass(frozen=True)
class Picture:
    """One image with its faces."""

    name: str
    image: np.ndarray
    """(H, W, 3) uint8 BGR."""
    boxes: np.ndarray
    """(N, 4) float32 xyxy, pixels of the image."""


@dataclass(frozen=True)
class Faces:
    """Faces with an expression each."""

    images: np.ndarray
    """(N, S, S) uint8 grey."""
    labels: np.ndarray
    """(N,) index into engines.contract.LABELS, FER2013's own."""
    majority: np.ndarray
    """(N,) the same from FER+: what most of ten taggers said; -1 where no one of the seven leads alone."""


def read_pictures(data: Path, split: str, limit: int | None = None) -> list[Picture]:
    """The images of a split ("val" or "train") with their boxes, sorted by name; `limit` of them, evenly spread.

    A folder of images without labels gives pictures without boxes (enough to calibrate). Raises UsageError where there are none, or
    one cannot be read.
    """
    try:
        return _pictures(Path(data), split, limit)
    except (OSError, EOFError, tarfile.TarError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # tarfile lists what it tried
        raise UsageError(f"cannot read the images in {data} ({type(error).__name__}: {reason}); give a whole copy of the folder") from error


def _pictures(data: Path, split: str, limit: int | None) -> list[Picture]:
    found = sorted(_members(data, split), key=lambda member: member[0])
    if not found:
        raise UsageError(f"{data} holds no {split} images; expected *{split}*.tar, or images/{split}/*.webp with labels/{split}/*.txt")
    if limit is not None and limit < len(found):
        found = [found[i] for i in np.linspace(0, len(found) - 1, limit).astype(int)]
    with contextlib.ExitStack() as stack:
        paths = {image[0] for _, (image, _) in found}
        archives = {path: stack.enter_context(tarfile.open(path)) for path in paths if path.suffix == ".tar"}

        def read(source: _Source | None) -> bytes:
            path, member = source or (None, "")
            if path is None or path not in archives:
                return path.read_bytes() if path else b""
            file = archives[path].extractfile(member)
            return file.read() if file else b""

        return [_picture(name, read(image), read(labels).decode()) for name, (image, labels) in found]


def read_faces(data: Path, usage: str, limit: int | None = None) -> Faces:
    """FER2013's "Training" or "PublicTest" images of `data`/fer2013.npz, without its lossy re-encodings; `limit` evenly spread.

    Raises UsageError where the file is missing or is another one.
    """
    path = Path(data) / "fer2013.npz" if Path(data).is_dir() else Path(data)
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = np.flatnonzero((file["usage"] == usage) & (file["pixel_source"] < 2))
            if limit is not None and limit < len(rows):
                rows = rows[np.linspace(0, len(rows) - 1, limit).astype(int)]
            images = np.cumsum(file["images_dx"][rows], axis=2, dtype=np.uint8)
            return Faces(images, file["label"][rows].astype(np.int64), _majority(file["ferplus_votes"][rows].astype(int)))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"cannot read faces from {path} ({type(error).__name__}: {error}); expected fer2013.npz") from error


def _majority(votes: np.ndarray) -> np.ndarray:
    """(N, 10) FER+ votes -> (N,)."""
    seven = votes[:, [4, 5, 6, 1, 3, 2, 0]]
    leads = (votes == votes.max(1, keepdims=True)).sum(1) == 1
    return np.where(leads & (seven.max(1) == votes.max(1)), seven.argmax(1), -1)


_Source = tuple[Path, str]
"""An archive and a member's name; or a file and ""."""


def _members(data: Path, split: str) -> Iterator[tuple[str, tuple[_Source, _Source | None]]]:
    if not data.is_dir():
        raise UsageError(f"there is no folder {data}; give the folder that holds the labelled images")
    for archive in sorted(data.glob(f"*{split}*.tar")):
        with tarfile.open(archive) as tar:
            names = {member.name for member in tar if member.isfile()}
        for name in names:
            label = _label_of(name)
            if name.lower().endswith(_PICTURES):
                yield Path(name).name, ((archive, name), (archive, label) if label in names else None)
    folders = [folder for folder in data.glob(f"**/images/{split}") if folder.is_dir()]
    unlabelled = not folders and not any(data.glob("*.tar"))
    for path in (path for folder in folders or ([data] if unlabelled else []) for path in folder.iterdir()):
        if path.suffix.lower() in _PICTURES:
            label_file = Path(_label_of(path.as_posix()))
            yield path.name, ((path, ""), (label_file, "") if label_file.is_file() else None)


def _label_of(image: str) -> str:
    head, _, tail = image.rpartition("images/")
    return f"{head}labels/{tail.rpartition('.')[0]}.txt"


def _picture(name: str, encoded: bytes, labels: str) -> Picture:
    import cv2

    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) if encoded else None
    if image is None:
        raise UsageError(f"{name} is not an image that OpenCV can read; take it out of the folder")
    return Picture(name, image, boxes_from_yolo(labels, image.shape[1], image.shape[0]))


def boxes_from_yolo(text: str, width: int, height: int) -> np.ndarray:
    """Lines of `class cx cy w h`, fractions of the image -> (N, 4) float32 xyxy pixels."""
    try:
        rows = np.array([line.split()[1:5] for line in text.splitlines() if line.strip()], np.float32).reshape(-1, 4)
    except ValueError as error:
        raise UsageError(f"labels must be lines of `class cx cy w h`, got {text[:60]!r}") from error
    x, y, w, h = rows.T
    return np.stack([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], 1)
