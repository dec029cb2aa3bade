"""Which file each source's rows and pictures go to, checked before anything is opened; UsageError for what cannot be."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sinks.events import events_format
from pipeline.sinks.outputs import (
    PATTERN,
    PICTURE_SUFFIXES,
    check_folder,
    check_kind,
    check_output,
    is_stream,
    paths_for_sources,
    video_suffix,
)
from pipeline.sinks.parquet import recover
from pipeline.sources.uri import Parsed


def event_files(wanted: str | None, named: dict[str, Parsed], overwrite: bool) -> list[tuple[str | None, str]]:
    """(source or None for all, file) of each sink of rows."""
    if wanted is None:
        return []
    if wanted == "/dev/stdout":  # a regular file where the shell sends it to one, to which what is open already is added
        wanted = "-"
    if is_stream(wanted):
        return [(None, wanted)]
    files = paths_for_sources(wanted, list(named), suffix=".jsonl", what="--events")
    for path in files.values():
        kind = events_format(path)
        _check(path, "--events", wanted, named, overwrite)
        if kind == "parquet":
            recover(path)
    return list(files.items())


def output_files(wanted: str | None, named: dict[str, Parsed], overwrite: bool) -> list[tuple[str | None, str]]:
    """(source, its video) and (None, the picture or folder of all pictures) of each sink that draws."""
    if wanted is None:
        return []
    pictures = [name for name, one in named.items() if one.kind == "images"]
    videos = [name for name in named if name not in pictures]
    check_kind(wanted, [*(["image"] if pictures else []), *(["video"] if videos else [])])
    files: list[tuple[str | None, str]] = []
    if pictures:
        count = sum(len(named[name].paths) for name in pictures)
        picture = Path(wanted).suffix.lower() in PICTURE_SUFFIXES
        if PATTERN in wanted:
            if not picture:
                expected = f"must end in their suffix, such as {wanted}.png, or name a folder"
                raise UsageError(f"--output {wanted}: a pattern for pictures {expected}")
            check_folder(Path(wanted).parent)
        elif picture and not Path(wanted).is_dir():
            if count > 1:
                raise UsageError(f"--output {wanted} names one picture for {count}; name a folder")
            _check(wanted, "--output", wanted, named, overwrite)
        else:
            check_folder(wanted)
        files.append((None, wanted))
    if videos:
        for name, path in paths_for_sources(wanted if not pictures else os.path.join(wanted, ""), videos, suffix=".mp4").items():
            video_suffix(path)
            if Path(path).is_fifo():
                raise UsageError(f"--output {path} is a pipe, in which a video's index cannot be written at the end; name a file")
            _check(path, "--output", wanted, named, overwrite)
            files.append((name, path))
    return files


def inputs_of(named: dict[str, Parsed]) -> list[Path | str]:
    """Everything that is read, and so never written."""
    return [place for one in named.values() for place in (one.paths or (one.text,))]


def _check(path: str, what: str, wanted: str, named: dict[str, Parsed], overwrite: bool) -> None:
    """One file of an output; a folder that several sources share is made when its own is there."""
    folder = Path(path).parent
    if path != wanted and not folder.exists():
        check_folder(folder, what=what)
        folder.mkdir()
    check_output(path, inputs=inputs_of(named), overwrite=overwrite, what=what)
