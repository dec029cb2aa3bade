"""Faces that stand twice are found, strangers are not."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from trainer.duplicates import count_exact, count_pairs, near_duplicates, pixel_hashes


def test_near_duplicates_are_found_over_blocks_and_strangers_are_not() -> None:
    noise = np.random.default_rng(5).integers(0, 256, (1500, 6, 6), np.uint8)
    images = np.stack([np.asarray(Image.fromarray(x).resize((48, 48), Image.Resampling.BICUBIC)) for x in noise])
    brighter = np.clip(images[3].astype(int) // 2 + 60, 0, 255).astype(np.uint8)
    Image.fromarray(images[1400]).save(packed := io.BytesIO(), "JPEG", quality=40)
    images = np.concatenate([images, [brighter, np.asarray(Image.open(packed)), np.zeros((48, 48)), np.zeros((48, 48))]]).astype(np.uint8)
    pairs = near_duplicates(images)
    assert pairs.tolist() == [[3, 1500], [1400, 1501]]
    split = np.array(["Training"] * 1500 + ["PublicTest"] * 4)
    assert count_pairs(pairs, split) == {"Training": 0, "Training+PublicTest": 2, "PublicTest": 0}
    assert count_exact(pixel_hashes(images), split) == {"Training": 0, "Training+PublicTest": 0, "PublicTest": 1}
