"""Sources of labelled faces that are whole, and yet not what they seem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.errors import UsageError
from trainer.data_sources import read_rows


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_sixteen_bits_of_grey_become_eight(name: str, colour: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 48 * 48).reshape(48, 48).astype(np.uint16)
    (tmp_path / "happy").mkdir()
    Image.fromarray(ramp).save(tmp_path / "happy" / name)
    (image,) = read_rows(tmp_path, colour=colour).images
    assert np.array_equal(image, ramp >> 8 if colour == "grey" else np.repeat((ramp >> 8)[..., None], 3, -1))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_levels_of_no_known_range_are_an_error_that_names_the_file(kind: type, tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    Image.fromarray(np.full((48, 48), 300, kind)).save(tmp_path / "happy" / "wide.tif")
    with pytest.raises(UsageError, match=r"wide\.tif cannot be read as a picture \(.*8 or 16 bits"):
        read_rows(tmp_path)


def npz_of(path: Path, usage: list[str]) -> Path:
    n = len(usage)
    faces = {"images_dx": np.zeros((n, 48, 48), np.uint8), "label": np.zeros(n, np.uint8), "ferplus_votes": np.zeros((n, 10), np.uint8)}
    np.savez(path, usage=np.array(usage), **faces)
    return path


def test_splits_of_an_npz_are_known_in_any_case_and_another_is_named(tmp_path: Path) -> None:
    rows = read_rows(npz_of(tmp_path / "a.npz", ["training", "PublicTest ", "PRIVATETEST"]))
    assert rows.split.tolist() == ["Training", "PublicTest", "PrivateTest"]
    with pytest.raises(UsageError, match=r"b\.npz, row 2: Usage must be one of .*, got 'Test'"):
        read_rows(npz_of(tmp_path / "b.npz", ["Training", "Test"]))
