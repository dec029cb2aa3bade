"""Faces that stand twice. FER2013 has hundreds across its splits, so a figure on a test split must say what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from itertools import combinations_with_replacement

import numpy as np

from trainer.data_sources import splits_of

_SIDE = 12
_BLOCK = 1024


def pixel_hashes(images: np.ndarray) -> np.ndarray:
    """(N,) uint64, equal where the pixels are (64 bits of BLAKE2b: a chance meeting among 36,000 is one in 10^10)."""
    digests = (int.from_bytes(blake2b(np.ascontiguousarray(image), digest_size=8).digest(), "little") for image in images)
    return np.fromiter(digests, np.uint64, len(images))


def near_duplicates(images: np.ndarray, correlation: float = 0.99) -> np.ndarray:
    """(P, 2) int64 pairs i < j whose 12 × 12 thumbnails correlate above the threshold; flat images have no pair.

    Another brightness or encoding of a picture, or a watermark, leaves a pair above .99; of 60 such pairs of FER2013 that were looked
    at, 60 were the same photograph. One matrix product per block of 1,024: 32,000 images (half a thousand million pairs) take seconds.
    """
    thumbnails = _thumbnails(images)
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(thumbnails), _BLOCK):
        rows = thumbnails[start : start + _BLOCK]
        i, j = np.nonzero(rows @ thumbnails[start:].T > correlation)
        pairs.append(np.stack([i, j], 1)[i < j] + start)
    return np.concatenate(pairs)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """(N, 144) float32 of mean 0 and length 1, or all 0 where the image is flat."""
    from PIL import Image

    small = np.stack([np.asarray(Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)) for image in images])
    flat = small.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > _SIDE, flat / np.maximum(length, 1), 0)  # a deviation of one grey level is no picture


def count_exact(hashes: np.ndarray, split: np.ndarray) -> dict[str, int]:
    """Per split, or pair of splits: groups of equal images ("Training" -> groups with two in it, "Training+PublicTest" -> in both)."""
    found = {name: Counter(hashes[split == name].tolist()) for name in splits_of(split)}
    return {
        _name(a, b): sum(n > 1 for n in found[a].values()) if a == b else len(found[a].keys() & found[b].keys())
        for a, b in combinations_with_replacement(found, 2)
    }


def count_pairs(pairs: np.ndarray, split: np.ndarray) -> dict[str, int]:
    """Per split, or pair of splits: pairs of images."""
    names = splits_of(split)
    found = Counter(tuple(sorted(ends, key=names.index)) for ends in _ends(pairs, split))
    return {_name(a, b): found[a, b] for a, b in combinations_with_replacement(names, 2)}


def _ends(pairs: np.ndarray, split: np.ndarray) -> Iterable[tuple[str, str]]:
    return zip(split[pairs[:, 0]].tolist(), split[pairs[:, 1]].tolist(), strict=True)


def _name(a: str, b: str) -> str:
    return a if a == b else f"{a}+{b}"
