"""FER2013 with FER+ crowd votes, as arrays.

FER2013 carries two sets of labels that disagree on a third of the images: the original ones and the votes of ten
FER+ taggers. Both are kept, a head is trained on each. Exact duplicates stand across the original splits; training
images that also stand in PublicTest are dropped from Training, so that the figures on PublicTest mean something.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.contract import LABELS

# FER+ columns: neutral happiness surprise sadness anger disgust fear contempt unknown NF -> our label order.
_FERPLUS_COLUMNS = [4, 5, 6, 1, 3, 2, 0]
_CONTEMPT, _UNKNOWN, _NOT_A_FACE = 7, 8, 9


@dataclass(frozen=True)
class FaceSet:
    """Faces of one split."""

    images: np.ndarray
    """(N, 48, 48) uint8, grey."""
    label: np.ndarray
    """(N,) int64, the original label, an index into LABELS."""
    crowd: np.ndarray
    """(N, 7) float32, share of FER+ votes per label; all zero where nobody voted for one of the seven."""
    majority: np.ndarray
    """(N,) int64, the unique FER+ majority among all ten columns if it is one of the seven, else -1."""
    in_training: np.ndarray
    """(N,) bool, the same pixels stand in the Training split too."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> FaceSet:
        return FaceSet(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def load_fer2013(path: Path) -> dict[str, FaceSet]:
    """The `.npz` form (pixels stored as horizontal differences) -> {"Training": …, "PublicTest": …}.

    Rows whose pixels are lossy re-encodings and rows whose crowd majority is "not a face" are left out of Training.
    Raises FileNotFoundError or ValueError with one sentence.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no training data at {path}; give the path of fer2013.npz with --data")
    with np.load(path, allow_pickle=False) as stored:
        missing = {"images_dx", "label", "usage", "ferplus_votes"} - set(stored.files)
        if missing:
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; expected the FER2013 .npz with FER+ votes")
        images = np.cumsum(stored["images_dx"], axis=2, dtype=np.uint8)
        label, usage, votes = stored["label"].astype(np.int64), stored["usage"], stored["ferplus_votes"].astype(np.float32)
        clean = stored["pixel_source"] < 2 if "pixel_source" in stored.files else np.ones(len(label), bool)
    if label.min() < 0 or label.max() >= len(LABELS):
        raise ValueError(f"{path}: labels must lie in 0…{len(LABELS) - 1}, got {label.min()}…{label.max()}")

    seven = votes[:, _FERPLUS_COLUMNS]
    crowd = seven / np.maximum(seven.sum(1, keepdims=True), 1e-9)
    top = votes.max(1, keepdims=True)
    unique = ((votes == top).sum(1) == 1) & (top[:, 0] > 0)
    majority = np.where(unique & (seven.max(1) == top[:, 0]), seven.argmax(1), -1)
    is_face = votes[:, _NOT_A_FACE] < top[:, 0]

    keys = np.array([image.tobytes() for image in images], dtype=object)
    training = usage == "Training"
    in_training = np.isin(keys, list(set(keys[training])))
    in_public = np.isin(keys, list(set(keys[usage == "PublicTest"])))
    everything = FaceSet(images, label, crowd.astype(np.float32), majority.astype(np.int64), in_training)
    return {
        "Training": everything.take(np.flatnonzero(training & clean & is_face & ~in_public)),
        "PublicTest": everything.take(np.flatnonzero(usage == "PublicTest")),
    }
