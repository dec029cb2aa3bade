"""`kaggle:OWNER/NAME` wherever a command takes data: fetched by kagglehub, which keeps what it has fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engines.errors import EngineError, UsageError

_SCHEME = "kaggle:"


class DataPath(click.Path):
    """A path on disk; kaggle:OWNER/NAME becomes the path of what was fetched."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.startswith(_SCHEME):
            return fetched(value.removeprefix(_SCHEME))
        return super().convert(value, param, ctx)


data_option = click.option(
    "--data", type=DataPath(), required=True, help="fer2013.npz, Kaggle's CSV, a folder of class folders, or kaggle:OWNER/NAME."
)


def fetched(handle: str) -> Path:
    """OWNER/NAME of a data set -> its CSV or its folder of class folders on this disk. Raises UsageError, EngineError."""
    if handle.count("/") == 0 or not all(handle.split("/")):
        raise UsageError(f"{_SCHEME} takes OWNER/NAME of a data set, got {handle or 'nothing'}; for instance {_SCHEME}msambare/fer2013")
    by_hand = f"or fetch https://www.kaggle.com/datasets/{handle} in a browser and give its file or folder"
    try:
        import kagglehub
    except ImportError as error:
        raise EngineError(f"{_SCHEME}{handle} needs kagglehub: pip install kagglehub; {by_hand}") from error
    try:
        folder = Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub's own, requests' and the system's
        reason = next(iter(str(error).strip().splitlines()), "")[:120]
        raise EngineError(
            f"{_SCHEME}{handle} can't be had here ({type(error).__name__}: {reason}); try again where the network allows, {by_hand}"
        ) from error
    return faces_in(folder)


def faces_in(folder: Path) -> Path:
    """The data in a fetched folder, however deep: the CSV with emotion and pixels (one with Usage splits first, then the largest), else
    the folder over train/<class>/ or <class>/. Raises UsageError where there is neither."""
    from trainer.data_sources import SPLIT_FOLDERS, label_of

    tables = {file: columns for file in sorted(folder.rglob("*.csv")) if {"emotion", "pixels"} <= (columns := _columns(file))}
    if tables:
        return max(tables, key=lambda file: ("usage" in tables[file], file.stat().st_size))
    classes = [path for path in folder.rglob("*") if path.is_dir() and label_of(path.name)]
    over = {path.parent.parent if path.parent.name.lower() in SPLIT_FOLDERS else path.parent for path in classes}
    if not over:
        some = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise UsageError(f"{folder} has no CSV with emotion and pixels and no class folders (it holds {some}); choose another data set")
    return min(over, key=lambda path: (len(path.parts), path))


def _columns(file: Path) -> set[str]:
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        return {name.strip().lower() for name in lines.readline().split(",")}
