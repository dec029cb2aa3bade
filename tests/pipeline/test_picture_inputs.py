"""Pictures of every kind: rows of one frame, a face where one is, and an annotated picture of the same size, upright."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import portrait
from command import faces, rows
from PIL import Image, ImageOps

from engines.classifier import Classifier
from engines.detector import Detector
from pipeline.api import run


def _exif(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: 90 degrees clockwise to see it
    Image.fromarray(np.rot90(portrait(PICTURE))[..., ::-1]).save(path, exif=exif)


def _pil(mode: str, **options: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(portrait(PICTURE)[..., ::-1]).convert(mode).save(path, **options)


def _cv(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], Any]:
    return lambda path: cv2.imwrite(str(path), change(portrait(PICTURE)))


def _alpha(picture: np.ndarray) -> np.ndarray:
    return np.dstack([picture, np.full(picture.shape[:2], 200, np.uint8)])


PICTURE = (200, 160)
PICTURES: list[tuple[str, str, Callable[[Path], Any], bool]] = [
    ("16 bits", "deep.png", _cv(lambda p: p.astype(np.uint16) * 257), True),
    ("16 bits, TIFF", "deep.tif", _cv(lambda p: p.astype(np.uint16) * 257), True),
    ("16 bits, grey", "deepgrey.png", _cv(lambda p: p[..., 1].astype(np.uint16) * 257), True),
    ("palette", "palette.png", _pil("P"), True),
    ("palette of two", "bits.png", _pil("1"), False),
    ("grey", "grey.jpg", _pil("L"), True),
    ("grey and alpha", "greyalpha.png", _pil("LA"), True),
    ("CMYK", "cmyk.jpg", _pil("CMYK"), True),
    ("CMYK, TIFF", "cmyk.tiff", _pil("CMYK"), True),
    ("alpha", "alpha.png", _cv(_alpha), True),
    ("alpha, WebP", "alpha.webp", _cv(_alpha), True),
    ("progressive", "progressive.jpg", _pil("RGB", progressive=True), True),
    ("bitmap", "plain.bmp", _pil("RGB"), True),
    ("palette, bitmap", "palette.bmp", _pil("P"), True),
    ("turned by EXIF", "turned.jpg", _exif, True),
    ("very wide", "wide.png", lambda path: cv2.imwrite(str(path), portrait((4000, 50))), False),
    ("very tall", "tall.png", lambda path: cv2.imwrite(str(path), portrait((50, 4000))), False),
    ("one pixel", "speck.png", lambda path: cv2.imwrite(str(path), portrait((1, 1))), False),
    ("odd, large", "large.jpg", lambda path: cv2.imwrite(str(path), portrait((3001, 2001))), True),
    ("no suffix", "picture", lambda path: path.write_bytes(cv2.imencode(".jpg", portrait(PICTURE))[1].tobytes()), True),
    ("an odd name", "[a] 100%#?: é😀.jpg", lambda path: path.write_bytes(cv2.imencode(".jpg", portrait(PICTURE))[1].tobytes()), True),
    ("a wrong suffix", "really.png", lambda path: path.write_bytes(cv2.imencode(".jpg", portrait(PICTURE))[1].tobytes()), True),
]


@pytest.mark.parametrize(("why", "name", "make", "face"), PICTURES, ids=[why for why, *_ in PICTURES])
def test_pictures_of_every_kind(
    why: str, name: str, make: Callable[[Path], Any], face: bool, tmp_path: Path, models: tuple[Detector, Classifier]
) -> None:
    path = tmp_path / name
    make(path)
    run(path, output=tmp_path / "seen.png", events=tmp_path / "seen.jsonl", models=models)
    found = [row for row in rows(tmp_path / "seen.jsonl") if row["kind"] in ("face", "frame")]
    assert {(row["frame"], row["pts_s"], row["source"]) for row in found} == {(0, 0.0, str(path))}
    assert bool(faces(found)) == face
    seen = cv2.imread(str(tmp_path / "seen.png"))
    with Image.open(path) as picture:
        assert seen.shape[:2] == ImageOps.exif_transpose(picture).size[::-1]
