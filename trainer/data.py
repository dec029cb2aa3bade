"""Labelled faces as arrays, split by split: FER2013 with FER+ crowd votes, or any faces in Kaggle's or folder form.

FER2013 carries two sets of labels that disagree on a third of the images: the original ones and the votes of ten
FER+ taggers. Both are kept, a head is trained on each. Exact duplicates stand across the original splits: Training
keeps them, so that figures compare with published ones, and `in_training` marks them, so that a figure without them
can be given beside. How the forms are read stands in data_sources.py.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.contract import LABELS
from engines.errors import UsageError
from trainer.data_sources import VOTES, Rows, label_of, read_rows, read_votes, splits_of
from trainer.duplicates import pixel_hashes

if TYPE_CHECKING:
    from trainer.recipes import Recipe

_NOT_A_FACE = VOTES.index("nf")
_VOTE_OF = {label_of(name): column for column, name in enumerate(VOTES)}
_HELD_SHARE = 0.1

PUBLISHED = {
    "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "PublicTest": (467, 56, 496, 895, 653, 415, 607),
    "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
}
"""Images of FER2013 per split, in the order of LABELS (Goodfellow et al. 2013)."""


class DataWarning(UserWarning):
    """The data are usable, but not what one might take them for."""


@dataclass(frozen=True)
class FaceSet:
    """Faces of one split."""

    images: np.ndarray
    """(N, S, S) uint8 grey, or (N, S, S, 3) uint8 RGB."""
    label: np.ndarray
    """(N,) int64, the original label, an index into `classes`."""
    crowd: np.ndarray
    """(N, C) float32, share of FER+ votes per class; all zero where nobody voted for one of them."""
    majority: np.ndarray
    """(N,) int64, the unique FER+ majority among all ten columns if it is one of the classes, else -1."""
    in_training: np.ndarray
    """(N,) bool, the same pixels stand in the Training split as published too; with data.validation, in the part that is trained on."""
    classes: tuple[str, ...] = LABELS

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> FaceSet:
        """The rows of an index or a mask."""
        columns = {field.name: getattr(self, field.name)[index] for field in fields(self) if field.name != "classes"}
        return replace(self, **columns)


class Splits(dict[str, FaceSet]):
    """Split -> faces; UsageError where one is asked for that the source lacks."""

    def __init__(self, path: Path, sets: dict[str, FaceSet], name: str) -> None:
        super().__init__(sets)
        self._path = path
        self.name = name
        """"FER2013" where the counts are the original's, else the file's or folder's."""

    def __missing__(self, split: str) -> FaceSet:
        raise UsageError(f"{self._path} has no split {split} (it has {', '.join(self)}); give data that has it, or a train/ folder")


def load_faces(
    path: Path,
    *,
    size: int = 48,
    colour: str = "grey",
    classes: tuple[str, ...] = LABELS,
    votes: Path | None = None,
    seed: int = 1,
    drop_duplicates: bool = False,
) -> Splits:
    """The faces at `path` by split: "Training", "PublicTest" and, where the source has it, "PrivateTest".

    `path` is fer2013.npz, Kaggle's CSV (plain, .gz, .zip), or a folder of train/<class>/ and test|val/<class>/ pictures; a source
    without a held-out split gets one, a tenth of every class, drawn by `seed`. `size` is pixels a side, `colour` "grey" or "rgb",
    `classes` any of LABELS (rows of the others are dropped), `votes` Microsoft's fer2013new.csv for a CSV, joined by row.

    Training leaves out rows whose pixels are lossy re-encodings and rows whose crowd majority is "not a face"; images that stand in
    another split too only with `drop_duplicates`. What differs from the original FER2013 is a DataWarning; what is broken is a
    UsageError that names the row or the file.
    """
    classes = _known(classes)
    rows = with_votes(read_rows(path, size, colour), path, votes)
    notes = differences(rows)
    for note in notes:
        warnings.warn(f"{path}: {note}", DataWarning, stacklevel=2)
    split = held_out(rows, seed)
    hashes = pixel_hashes(rows.images)
    in_training = np.isin(hashes, hashes[split == "Training"])
    elsewhere = np.isin(hashes, hashes[split != "Training"])
    wanted = np.isin(rows.label, [LABELS.index(label) for label in classes])
    trainable = ~rows.lossy & ~not_a_face(rows.votes) & ~(elsewhere & drop_duplicates)
    index_of = np.array([classes.index(label) if label in classes else -1 for label in LABELS])
    crowd, majority = crowd_shares(rows.votes, classes), crowd_majority(rows.votes, classes)
    faces = FaceSet(rows.images, index_of[rows.label], crowd, majority, in_training, classes)
    keep = {name: wanted & (split == name) & (trainable | (name != "Training")) for name in splits_of(split)}
    name = path.resolve().name if notes else "FER2013"
    return Splits(path, {split: faces.take(np.flatnonzero(mask)) for split, mask in keep.items()}, name)


def fingerprint(*sets: FaceSet) -> str:
    """16 hex digits that other faces, labels or votes, or another order, change."""
    digest = hashlib.sha256()
    for faces in sets:
        for column in (faces.images, faces.label, faces.crowd):
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:16]


def _known(classes: tuple[str, ...]) -> tuple[str, ...]:
    known = tuple(label_of(name) or name for name in classes)
    if not known or len(set(known)) < len(known) or not set(known) <= set(LABELS):
        raise UsageError(f"classes must be different ones of {', '.join(LABELS)}, got {', '.join(classes) or 'none'}")
    return known


def with_votes(rows: Rows, path: Path, votes: Path | None) -> Rows:
    """The rows with the FER+ votes of a file, row by row; UsageError where the two cannot belong together."""
    if votes is None:
        return rows
    if path.is_dir() or path.suffix.lower() == ".npz":
        raise UsageError(f"votes are joined to the rows of a CSV, and {path} is none (an .npz carries its own); leave the votes out")
    usage, table = read_votes(votes)
    if len(table) != len(rows.label):
        raise UsageError(f"{votes} has {len(table)} rows and {path} {len(rows.label)}; votes are joined by row, give the whole of both")
    splits = np.char.lower(np.array(usage, str))
    if (rows.split != "Training").any() and (other := np.flatnonzero(splits != np.char.lower(rows.split))).size:
        row = int(other[0])
        raise UsageError(f"row {row + 1} is {usage[row]} in {votes} and {rows.split[row]} in {path}; give both in their original order")
    return replace(rows, votes=table)


def not_a_face(votes: np.ndarray) -> np.ndarray:
    """(N, 10) FER+ votes -> (N,) bool: nothing has more votes than "not a face"."""
    return (votes[:, _NOT_A_FACE] == votes.max(1)) & votes.any(1)


def crowd_shares(votes: np.ndarray, classes: tuple[str, ...] = LABELS) -> np.ndarray:
    """(N, 10) FER+ votes -> (N, C) float32 shares over the classes; all zero where nobody voted for one of them."""
    ours = votes[:, [_VOTE_OF[label] for label in classes]]
    return (ours / np.maximum(ours.sum(1, keepdims=True), 1e-9)).astype(np.float32)


def crowd_majority(votes: np.ndarray, classes: tuple[str, ...] = LABELS) -> np.ndarray:
    """(N, 10) FER+ votes -> (N,) int64, the unique majority among all ten columns if it is one of the classes, else -1."""
    ours = votes[:, [_VOTE_OF[label] for label in classes]]
    top = votes.max(1, keepdims=True)
    unique = ((votes == top).sum(1) == 1) & (ours.max(1) == top[:, 0])
    return np.where(unique, ours.argmax(1), -1).astype(np.int64)


def differences(rows: Rows) -> list[str]:
    """In what the counts differ from the original FER2013's, a sentence per split."""
    notes = []
    for name in splits_of(rows.split):
        counts = class_counts(rows.label[rows.split == name])
        other = [f"{n:,} {label} for {was:,}" for label, n, was in zip(LABELS, counts, PUBLISHED[name], strict=True) if n != was]
        if other:
            notes.append(f"{name} is not the original FER2013's: {counts.sum():,} faces for {sum(PUBLISHED[name]):,} ({', '.join(other)})")
    if (rows.split == "Training").all():
        notes.append(f"there is no held-out split, so {_HELD_SHARE:.0%} of every class becomes PublicTest")
    return notes


def load_for(recipe: Recipe, path: Path) -> Splits:
    """The splits in the form that a recipe asks for. Raises as load_faces."""
    form = recipe.data
    return load_faces(
        path, size=form.size, colour=form.colour, classes=tuple(form.classes), votes=Path(form.votes).expanduser() if form.votes else None,
        seed=recipe.seed, drop_duplicates=form.drop_duplicates,
    )  # fmt: skip


def held_out(rows: Rows, seed: int) -> np.ndarray:
    """The split of every row, (N,) str: the source's own, or a stratified one where it has only Training."""
    if (rows.split != "Training").any():
        return rows.split
    split = np.full(len(rows.split), "Training", dtype="<U11")
    split[stratified_split(rows.label, _HELD_SHARE, seed)[1]] = "PublicTest"
    return split


def stratified_split(label: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) labels -> sorted indices (kept, held out), every class in proportion; a class of one stays with the kept."""
    from sklearn.model_selection import train_test_split

    values, counts = np.unique(label, return_counts=True)
    index = np.flatnonzero(np.isin(label, values[counts > 1]))
    if not len(index):
        return np.arange(len(label)), index
    held = max(round(share * len(index)), len(np.unique(label[index])))
    _, out = train_test_split(index, test_size=held, random_state=seed, stratify=label[index])
    return np.setdiff1d(np.arange(len(label)), out), np.sort(out)


def class_counts(label: np.ndarray, classes: int = len(LABELS)) -> np.ndarray:
    """(N,) -> (C,) int64."""
    return np.bincount(label, minlength=classes)


def class_weights(label: np.ndarray, classes: int = len(LABELS)) -> np.ndarray:
    """(N,) -> (C,) float32, one over the frequency, of mean 1 over the classes that are there; 0 for one that is not."""
    counts = class_counts(label, classes)
    weights = np.divide(1.0, counts, out=np.zeros(classes), where=counts > 0)
    return (weights / max(weights[counts > 0].mean(), 1e-9) if counts.any() else weights).astype(np.float32)


def crowd_targets(faces: FaceSet, kind: str) -> np.ndarray:
    """What the crowd head learns, (N, C) float32; a row without mass has no target.

    "probability": the shares of the votes. "majority": all on the unique majority, nothing where there is none or it is not one of the
    classes. "original": all on the original label (Barsoum et al. 2016 compare the first two).
    """
    if kind == "probability":
        return faces.crowd
    index = {"majority": faces.majority, "original": faces.label}.get(kind)
    if index is None:
        raise UsageError(f"crowd targets are majority, probability or original, got {kind!r}")
    return (index[:, None] == np.arange(len(faces.classes))).astype(np.float32)
