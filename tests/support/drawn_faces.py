"""Faces that a small network can tell apart in seconds: circles with a mouth and brows that differ by class, as Kaggle's CSV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

CLASSES = 7


def drawn_face(label: int, rng: np.random.Generator) -> np.ndarray:
    """(48, 48) uint8."""
    face = np.full((48, 48), 60, np.uint8)
    x, y = (int(v) for v in rng.integers(22, 27, 2))
    cv2.circle(face, (x, y), 19, 190, -1)
    for side in (-7, 7):
        cv2.circle(face, (x + side, y - 6), 2 + label % 3, 30, -1)
        cv2.line(face, (x + side - 4, y - 12 + label % 4), (x + side + 4, y - 12 - label % 4), 30, 1)
    cv2.ellipse(face, (x, y + 8), (3 + label, 2 + abs(3 - label)), 0, 0, 180 if label % 2 else 360, 30, 1 + label // 4)
    return np.clip(face.astype(int) + rng.integers(-12, 13, face.shape), 0, 255).astype(np.uint8)


def write_csv(path: Path, training: int, held: int, seed: int = 1) -> Path:
    """So many faces of Usage Training and PublicTest, the classes in turn."""
    rng = np.random.default_rng(seed)
    lines = ["emotion,pixels,Usage"]
    for usage, count in (("Training", training), ("PublicTest", held)):
        lines += [f"{i % CLASSES},{' '.join(map(str, drawn_face(i % CLASSES, rng).ravel()))},{usage}" for i in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_pictures(root: Path, training: int, held: int, seed: int = 1) -> Path:
    """So many 96×96 pictures of one face each with its box, as the detector's trainer reads them."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", training), ("val", held)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            picture = np.full((96, 96, 3), 90, np.uint8)
            x, y = (int(v) for v in rng.integers(0, 48, 2))
            picture[y : y + 48, x : x + 48] = drawn_face(i % CLASSES, rng)[..., None]
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), picture)
            (root / "labels" / split / f"{i}.txt").write_text(f"0 {(x + 24) / 96} {(y + 24) / 96} 0.4 0.4\n")
    return root
