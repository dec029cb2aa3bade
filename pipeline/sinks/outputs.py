"""Which outputs are allowed, decided before anything is opened. Pure functions; each refusal is one UsageError."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import UsageError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
PATTERN = "{source}"
"""Stands for a source's name in the name of an output."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def is_stream(path: str | os.PathLike[str]) -> bool:
    """"-", a device or a pipe: never "existing", never replaced or renamed onto."""
    if os.fspath(path) == "-":
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_output(path: str | os.PathLike[str], *, inputs: Iterable[str | os.PathLike[str]] = (), overwrite: bool = False,
                 what: str = "--output") -> None:  # fmt: skip
    """May the file `path` be made? Not over an input, over an existing file only with `overwrite`, in a folder that is there."""
    text = os.fspath(path)
    if not text:
        raise UsageError(f"{what} is empty; name a file")
    if is_stream(text):
        return
    target = Path(text)
    if (there := file_identity(target)) is not None and there in map(file_identity, inputs):
        raise UsageError(f"{what} {text} is an input; name another file")
    if target.is_dir():
        raise UsageError(f"{what} {text} is a folder, expected a file")
    if target.exists():
        if not overwrite:
            raise UsageError(f"{what} {text} exists; --overwrite replaces it")
        if not os.access(target, os.W_OK):
            raise UsageError(f"{what} {text} exists and may not be written")
    _check_folder(target.absolute().parent, text, what)


def check_folder(path: str | os.PathLike[str], *, what: str = "--output") -> None:
    """May the folder `path` take files? It is there and writable, or its parent is (it is made when first used)."""
    folder = Path(path).absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{what} {os.fspath(path)} must be a folder here, got a file")
    _check_folder(folder if folder.is_dir() else folder.parent, os.fspath(path), what)


def video_suffix(path: str | os.PathLike[str], what: str = "--output") -> str:
    """The suffix of a video file that can be written, lower case."""
    suffix = Path(path).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise UsageError(f"{what} {os.fspath(path)}: a video's suffix must be .mp4, .mov or .mkv, got {suffix or 'none'}")
    return suffix


def paths_for_sources(output: str, names: list[str], *, suffix: str, what: str = "--output") -> dict[str, str]:
    """Source name → its file. One source: `output` itself, unless it is a folder or a pattern with {source}.

    Several: `output` must be a pattern ("out/{source}.mp4") or a folder, whose files get `suffix`. Names that come out
    the same get a number.
    """
    pattern = PATTERN in output
    is_folder = not pattern and (output.endswith(("/", os.sep)) or Path(output).is_dir() or not Path(output).suffix)
    if (not pattern and not is_folder) or is_stream(output):
        if len(names) > 1:
            raise UsageError(
                f"{what} {output} names one file for {len(names)} sources; name a folder, or a pattern such as out/{{source}}{suffix}"
            )
        return {name: output for name in names}
    safe = unique_names([safe_name(name) for name in names])
    if pattern:
        return {name: output.replace(PATTERN, part) for name, part in zip(names, safe, strict=True)}
    return {name: str(Path(output) / f"{part}{suffix}") for name, part in zip(names, safe, strict=True)}


def check_kind(output: str, kinds: Iterable[str], what: str = "--output") -> None:
    """A picture's result is a picture (or a folder of them), a video's result a video."""
    kinds, suffix = set(kinds), Path(output).suffix.lower()
    if suffix in VIDEO_SUFFIXES and "image" in kinds:
        raise UsageError(f"{what} {output} is a video, but the source is pictures; name a picture (.png, .jpg) or a folder")
    if suffix in PICTURE_SUFFIXES and kinds - {"image"}:
        raise UsageError(f"{what} {output} is a picture, but the source is a video; name a video (.mp4, .mov, .mkv)")


def safe_name(source: str) -> str:
    """A file name made of a source's name, path or URL: its stem, letters, digits and - _ . only, at most 80 long."""
    parts = urlsplit(source) if "://" in source else None
    if parts is not None:
        text = "_".join(filter(None, [parts.hostname or "", parts.path.strip("/")]))  # never user, password or query
    else:
        text = Path(source).stem if re.search(r"[/\\.]", source) else source
    text = re.sub(r"[^\w.-]+", "_", text).strip("._-")[:80]
    return text or "source"


def unique_names(names: list[str]) -> list[str]:
    """The same names in the same order; those that came before get _2, _3 … (before the suffix, if there is one)."""
    taken: set[str] = set()
    return [unique_name(name, taken) for name in names]


def unique_name(name: str, taken: set[str]) -> str:
    """`name`, numbered where it is in `taken` (lower case: some file systems ignore it), and added to it."""
    stem, suffix = os.path.splitext(name)
    candidate, number = name, 1
    while candidate.lower() in taken:
        number += 1
        candidate = f"{stem}_{number}{suffix}"
    taken.add(candidate.lower())
    return candidate


def file_identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Which file it is, whatever the way to it (links, letter case); None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _check_folder(folder: Path, text: str, what: str) -> None:
    if not folder.is_dir():
        raise UsageError(f"{what} {text}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{what} {text}: the folder {folder} may not be written")
