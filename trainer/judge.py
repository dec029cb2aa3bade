"""A model's answers beside the truth: which faces count, by which labels, and what came out."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.contract import LABELS
from engines.errors import UsageError
from trainer.data import DataWarning, FaceSet, load_faces
from trainer.data_sources import label_of
from trainer.figures import figures, map_labels
from trainer.predictor import Predictor


@dataclass(frozen=True)
class Judged:
    """One head's answers to the faces that have a truth."""

    head: str
    against: str
    """Whose labels they are judged by, in words."""
    images: np.ndarray
    """(N, S, S) or (N, S, S, 3) uint8, whole faces."""
    truth: np.ndarray
    """(N,) an index into the model's labels."""
    probabilities: np.ndarray
    """(N, C)."""
    figures: dict[str, Any]


def read_faces(
    path: Path, split: str = "PublicTest", *, size: int = 48, colour: str = "grey", label_map: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> tuple[FaceSet, list[str]]:
    """The faces of a split ("all": of every one), `limit` of them evenly spread, and what is to be known of them, a sentence each.

    `label_map` renames folders of classes that are not ours as they are read, so that any data set in folders can be judged by; its
    other entries are for judge(). Raises UsageError.
    """
    with ExitStack() as stack:
        foreign = {old: new for old, new in (label_map or {}).items() if not label_of(old)}
        if foreign and not path.is_dir():
            raise UsageError(f"--label-map names {min(foreign)!r}, which is no class of {path}; it has {', '.join(LABELS)}")
        if foreign:
            path = _renamed(path, foreign, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always", DataWarning)
        sets = load_faces(path, size=size, colour=colour)
        faces = _joined(list(sets.values())) if split == "all" else sets[split]
    if limit is not None and limit < len(faces):
        faces = faces.take(np.linspace(0, len(faces) - 1, limit).round().astype(int))
    return faces, [str(one.message).removeprefix(f"{path}: ") for one in caught if issubclass(one.category, DataWarning)]


def judge(
    predictor: Predictor, faces: FaceSet, head: str, *, tta: str = "none", label_map: Mapping[str, str] | None = None,
    advance: Callable[[int], Any] = lambda faces: None,
) -> Judged:
    """One head's answers to `faces`; faces without a truth or with a class that is left out do not count. Raises UsageError."""
    truth, against = truth_of(faces, head)
    labels = tuple(label_of(label) or label for label in predictor.labels)
    known = {label_of(old) or old: label_of(new) or new for old, new in (label_map or {}).items()}
    truth = map_labels(truth, faces.classes, labels, {old: new for old, new in known.items() if old in faces.classes})
    index = np.flatnonzero(truth >= 0)
    advance(len(faces) - len(index))
    images, truth = faces.images[index], truth[index]
    probabilities = predictor.probabilities(images, head, tta, advance)
    found = {"against": against, "faces_without_truth": len(faces) - len(index)}
    found |= figures(probabilities, truth, predictor.labels, in_training=faces.in_training[index], threshold=predictor.threshold)
    return Judged(head, against, images, truth, probabilities, found)


def truth_of(faces: FaceSet, head: str) -> tuple[np.ndarray, str]:
    """(N,) indices into faces.classes, -1 for none, and whose labels they are: for "crowd" the taggers' unique majority."""
    if head != "crowd":
        return faces.label, "the data's own labels"
    if faces.crowd.any():
        return faces.majority, "the unique FER+ majority"
    return faces.label, "the data's own labels, as it carries no FER+ votes"


def _joined(sets: list[FaceSet]) -> FaceSet:
    names = [field.name for field in fields(FaceSet) if field.name != "classes"]
    return replace(sets[0], **{name: np.concatenate([getattr(one, name) for one in sets]) for name in names})


def _renamed(path: Path, names: Mapping[str, str], scratch: Path) -> Path:
    """A tree of links to the files under `path` in which folders are renamed, or left out where their new name is empty."""
    names = {old.lower(): new for old, new in names.items()}
    seen: set[str] = set()
    for folder, _, files in os.walk(path):
        parts = Path(folder).relative_to(path).parts
        new = [names.get(part.lower(), part) for part in parts]
        seen |= {part.lower() for part in parts} & set(names)
        if "" in new:
            continue
        target = scratch.joinpath(*new)
        target.mkdir(parents=True, exist_ok=True)
        for file in (name for name in files if not name.startswith(".")):
            # The old folder's name keeps files apart whose folders become one.
            (target / f"{Path(folder).name}_{file}").symlink_to(Path(folder, file).resolve())
    missing = set(names) - seen
    if missing:
        raise UsageError(f"--label-map names {min(missing)!r}, and {path} has no such folder; name one it has")
    return scratch
