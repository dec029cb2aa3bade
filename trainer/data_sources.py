"""Labelled faces as they lie on disk -> rows: the project's .npz, Kaggle's CSV, folders of pictures.

Each form has its traps. Kaggle spells the CSV's header in two ways and orders the columns in two. A folder of class
folders is sorted by its owner's spelling (disgust before fear, surprise before or after neutral), so a label comes from
the name of a folder and never from its place. FER+ leaves the image name empty where it dropped a picture: its votes
belong to the row of the same number, not to the next name.
"""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image, ImageOps

from engines.contract import LABELS
from engines.errors import UsageError

SPLITS = ("Training", "PublicTest", "PrivateTest")
"""FER2013's own names."""

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "nf")
"""Columns of FER+, in its order; the last is "not a face"."""

_SPELLINGS = {
    "angry": ("angry", "anger"),
    "disgust": ("disgust", "disgusted"),
    "fear": ("fear", "fearful", "afraid", "scared"),
    "happy": ("happy", "happiness", "joy"),
    "sad": ("sad", "sadness"),
    "surprise": ("surprise", "surprised"),
    "neutral": ("neutral",),
}
_CLASS = {spelling: label for label, spellings in _SPELLINGS.items() for spelling in spellings}
SPLIT_FOLDERS = {"train": "Training", "training": "Training", "privatetest": "PrivateTest"} | dict.fromkeys(
    ("test", "val", "valid", "validation", "publictest"), "PublicTest"
)
"""Names of folders in lower case -> the split that they hold."""

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm"}
_SIDE = 48


@dataclass(frozen=True)
class Rows:
    """All rows of a source, in its own order, nothing left out."""

    images: np.ndarray
    """(N, S, S) uint8 grey or (N, S, S, 3) uint8 RGB."""
    label: np.ndarray
    """(N,) int64, an index into LABELS."""
    split: np.ndarray
    """(N,) str, one of SPLITS; all "Training" where the source names none."""
    votes: np.ndarray
    """(N, 10) float32, FER+ votes in the order of VOTES; all zero where there are none."""
    lossy: np.ndarray
    """(N,) bool, the pixels are a lossy re-encoding of the original's."""
    pictures: Counter[str]
    """What the files hold, as "48x48 grey" -> how many, before any resizing."""


def splits_of(split: np.ndarray) -> list[str]:
    """Which of SPLITS occur, in their order."""
    return [name for name in SPLITS if (split == name).any()]


def label_of(name: str) -> str | None:
    """The label that a class name means, whatever its usual spelling; None where it means none of the seven."""
    return _CLASS.get(name.strip().lower())


def read_rows(path: Path, size: int = 48, colour: str = "grey") -> Rows:
    """Whatever `path` is, resized to `size` pixels a side. UsageError with one sentence where it cannot be read."""
    if colour not in ("grey", "rgb"):
        raise UsageError(f"colour must be grey or rgb, got {colour!r}")
    if not 8 <= size <= 1024:
        raise UsageError(f"the size of the faces must lie in 8…1024 pixels, got {size}")
    if path.is_dir():
        return _folder(path, size, colour)
    if not path.is_file():
        raise UsageError(f"no training data at {path}; give a .csv, .csv.gz, .zip or .npz file, or a folder of train/<class>/ pictures")
    if path.suffix.lower() == ".npz":
        return _npz(path, size, colour)
    if path.suffix.lower() in (".csv", ".gz", ".zip"):
        return _csv(path, size, colour)
    raise UsageError(f"{path} is no training data; expected a .csv, .csv.gz, .zip or .npz file, or a folder of train/<class>/ pictures")


def _npz(path: Path, size: int, colour: str) -> Rows:
    """Pixels are stored as horizontal differences, to be smaller."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            stored = dict(archive)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path} cannot be read as .npz ({str(error).split('. ')[0]}); fetch it again") from error
    if missing := {"images_dx", "label", "usage", "ferplus_votes"} - stored.keys():
        raise UsageError(f"{path} lacks {', '.join(sorted(missing))}; expected the FER2013 .npz with FER+ votes")
    n, side = stored["label"].size, stored["images_dx"].shape[-1:]
    forms = {"images_dx": (np.uint8, (n, *side, *side)), "label": (np.int64, (n,)), "usage": (np.str_, (n,))}
    forms |= {"ferplus_votes": (np.float64, (n, len(VOTES))), "pixel_source": (np.int64, (n,))}
    for name, (kind, shape) in forms.items():
        if name in stored and (stored[name].shape != shape or not np.can_cast(stored[name].dtype, kind)):
            got = f"{stored[name].dtype} {stored[name].shape}"
            raise UsageError(f"{path}: {name} is {got}, expected {kind.__name__} {shape} for {n} labels; fetch it again")
    if not n:
        raise UsageError(f"{path} holds no faces; fetch it again")
    images = np.cumsum(stored["images_dx"], axis=2, dtype=np.uint8)
    label, votes = stored["label"].astype(np.int64), stored["ferplus_votes"].astype(np.float32)
    split = np.array([_split_of(usage, f"{path}, row {row + 1}") for row, usage in enumerate(stored["usage"].astype(str))], str)
    lossy = stored["pixel_source"] >= 2 if "pixel_source" in stored else np.zeros(len(label), bool)
    if not 0 <= label.min() <= label.max() < len(LABELS):
        raise UsageError(f"{path}: labels must lie in 0…{len(LABELS) - 1}, got {label.min()}…{label.max()}")
    return Rows(_resized(images, size, colour), label, split, votes, lossy, _grey_squares(images))


def _csv(path: Path, size: int, colour: str) -> Rows:
    """Kaggle's `emotion,pixels,Usage` or ` emotion, Usage, pixels`; the pixels are 48 × 48 numbers in one field."""
    labels: list[int] = []
    splits: list[str] = []
    pixels = bytearray()
    for where, row in _table(path, ("emotion", "pixels")):
        emotion = row["emotion"].strip()
        if emotion not in ("0", "1", "2", "3", "4", "5", "6"):
            raise UsageError(f"{where}: emotion must be 0…6 (angry … neutral), got {emotion!r}; repair or remove the row")
        labels.append(int(emotion))
        splits.append(_split_of(row.get("usage", "Training"), where))
        pixels += _pixels(row["pixels"], where)
    if not labels:
        raise UsageError(f"{path} holds no faces, only its first line; fetch it again")
    images = np.frombuffer(bytes(pixels), np.uint8).reshape(-1, _SIDE, _SIDE)
    n = len(labels)
    nothing = np.zeros((n, len(VOTES)), np.float32), np.zeros(n, bool)
    return Rows(_resized(images, size, colour), np.array(labels, np.int64), np.array(splits, str), *nothing, _grey_squares(images))


def _split_of(usage: str, where: str) -> str:
    """The one of SPLITS that a row names, in whatever case."""
    found = next((name for name in SPLITS if name.lower() == usage.strip().lower()), None)
    if found is None:
        raise UsageError(f"{where}: Usage must be one of {', '.join(SPLITS)}, got {usage.strip()!r}; repair or remove the row")
    return found


def _pixels(text: str, where: str) -> bytes:
    try:
        pixels = bytes(map(int, text.split()))
    except ValueError as error:
        raise UsageError(f"{where}: pixels must be whole numbers in 0…255 ({error}); repair or remove the row") from error
    if len(pixels) != _SIDE * _SIDE:
        raise UsageError(f"{where}: {len(pixels)} pixels, expected {_SIDE * _SIDE} (48 × 48); repair or remove the row")
    return pixels


def read_votes(path: Path) -> tuple[list[str], np.ndarray]:
    """Microsoft's fer2013new.csv -> Usage per row, (N, 10) float32 votes. Image names are not looked at: some are empty."""
    if not path.is_file():
        raise UsageError(f"no FER+ votes at {path}; give Microsoft's fer2013new.csv")
    usage, votes = [], []
    for where, row in _table(path, ("usage", *VOTES)):
        try:
            votes.append([float(row[column] or 0) for column in VOTES])
        except ValueError as error:
            raise UsageError(f"{where}: votes must be numbers ({error}); fetch fer2013new.csv again") from error
        usage.append(row["usage"].strip())
    return usage, np.array(votes, np.float32).reshape(-1, len(VOTES))


def _table(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV with a header, as ("FILE, line N", {column in lower case: text})."""
    try:
        with _text(path) as stream:
            reader = csv.DictReader(stream, restval="")
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = [column for column in needed if column not in reader.fieldnames]
            if missing:
                found = ", ".join(reader.fieldnames)[:80] or "nothing"
                raise UsageError(f"{path} lacks the column {', '.join(missing)} (its first line: {found}); give the CSV with its header")
            for row in reader:
                yield f"{path}, line {reader.line_num}", row
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, UnicodeDecodeError, csv.Error, RuntimeError) as error:
        raise UsageError(f"{path} cannot be read as CSV ({error}); fetch it again") from error


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            name = _only_csv(path, archive.namelist())
            with archive.open(name) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
                yield text
    elif path.name.lower().endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            name = _only_csv(path, [member.name for member in archive if member.isfile()])
            with archive.extractfile(name) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
                yield text
    elif path.suffix.lower() == ".gz":
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as text:
            yield text
    else:
        with open(path, encoding="utf-8-sig", newline="") as text:
            yield text


def _only_csv(path: Path, members: list[str]) -> str:
    names = [n for n in members if n.lower().endswith(".csv") and not Path(n).name.startswith(".")]
    if len(names) != 1:
        raise UsageError(f"{path} holds {', '.join(names) or 'no CSV'}; unpack it and give one CSV or the folder of pictures")
    return names[0]


def _folder(path: Path, size: int, colour: str) -> Rows:
    """`train/<class>/…` beside `test|val/<class>/…`, or `<class>/…` alone. Where both val and test stand, test is PrivateTest."""
    folders = _folders(path)
    splits = {folder: SPLIT_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_FOLDERS}
    if sorted(splits.values()).count("PublicTest") > 1:
        splits |= {folder: "PrivateTest" for folder in splits if folder.name.lower() == "test"}
    stray = sorted(folder.name for folder in folders if folder not in splits)
    if splits and stray:
        raise UsageError(f"{path} has {', '.join(stray)} beside {', '.join(sorted(f.name for f in splits))}; move it away")
    files = [
        (file, LABELS.index(_label_of_folder(folder)), split)
        for root, split in (splits or {path: "Training"}).items()
        for folder in _folders(root)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in _PICTURES and not file.name.startswith(".")
    ]
    if not files:
        raise UsageError(f"{path} holds no pictures in class folders; expected train/<class>/ or <class>/, classes {', '.join(LABELS)}")
    images = np.empty((len(files), size, size, 3) if colour == "rgb" else (len(files), size, size), np.uint8)
    pictures: Counter[str] = Counter()
    for image, (file, _, _) in zip(images, files, strict=True):
        image[:], kind = _picture(file, size, colour)
        pictures[kind] += 1
    n, label, split = len(files), np.array([f[1] for f in files], np.int64), np.array([f[2] for f in files], str)
    return Rows(images, label, split, np.zeros((n, len(VOTES)), np.float32), np.zeros(n, bool), pictures)


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _label_of_folder(folder: Path) -> str:
    if label := label_of(folder.name):
        return label
    if folder.name.strip().isdigit():
        raise UsageError(f"{folder}: a digit means another class in every data set; rename the folder to one of {', '.join(LABELS)}")
    what = f"rename it to one of {', '.join(LABELS)}, move it away, or give the folder that holds train/"
    raise UsageError(f"{folder}: unknown class {folder.name!r}; {what}")


def _picture(file: Path, size: int, colour: str) -> tuple[np.ndarray, str]:
    """A square from the middle, upright, and what the file held."""
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            kind = f"{picture.width}x{picture.height} {'grey' if picture.mode in ('1', 'L', 'LA', 'I', 'I;16', 'F') else 'colour'}"
            if picture.mode.startswith("I;16"):  # which convert() would clip to white
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            if picture.mode in ("I", "F"):
                raise ValueError("its levels are 32-bit numbers of no known range; save it with 8 or 16 bits")
            picture = picture.convert("RGB" if colour == "rgb" else "L")
    except (OSError, SyntaxError, ValueError, ImportError, Image.DecompressionBombError) as error:
        # ImportError: where ultralytics was imported, it has wrapped Image.open and asks for pi_heif at every file that is none.
        raise UsageError(f"{file} cannot be read as a picture ({str(error).split(str(file))[0].strip()}); remove or replace it") from error
    return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)), kind


def _resized(images: np.ndarray, size: int, colour: str) -> np.ndarray:
    """(N, 48, 48) grey -> (N, size, size) or, the grey level three times, (N, size, size, 3)."""
    if images.shape[1] != size and len(images):
        images = np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images])
    return np.repeat(images[..., None], 3, -1) if colour == "rgb" else images


def _grey_squares(images: np.ndarray) -> Counter[str]:
    return Counter({f"{images.shape[2]}x{images.shape[1]} grey": len(images)})
