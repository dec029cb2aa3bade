"""Sources of labelled faces that are whole, and yet not what they seem."""

from __future__ import annotations

import tarfile
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


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("images_dx", np.zeros((2, 48, 48), np.int16), r"images_dx is int16 \(2, 48, 48\), expected uint8 \(2, 48, 48\)"),
        ("images_dx", np.zeros((2, 2304), np.uint8), r"images_dx is uint8 \(2, 2304\)"),
        ("images_dx", np.zeros((3, 48, 48), np.uint8), r"images_dx is uint8 \(3, 48, 48\), expected uint8 \(2, 48, 48\) for 2 labels"),
        ("ferplus_votes", np.zeros((2, 8), np.uint8), r"ferplus_votes is uint8 \(2, 8\), expected float64 \(2, 10\)"),
        ("ferplus_votes", np.full((2, 10), "x"), "ferplus_votes is <U1"),
        ("label", np.zeros(2), r"label is float64 \(2,\), expected int64"),
        ("label", np.zeros((2, 1), int), r"label is int64 \(2, 1\)"),
        ("usage", np.array("Training"), r"usage is <U8 \(\)"),
        ("pixel_source", np.zeros(3, int), r"pixel_source is int64 \(3,\)"),
    ],
)
def test_a_column_of_an_npz_that_does_not_go_with_the_others_is_named(name: str, array: np.ndarray, said: str, tmp_path: Path) -> None:
    stored = dict(np.load(npz_of(tmp_path / "a.npz", ["Training", "PublicTest"])))
    np.savez(tmp_path / "b.npz", **{**stored, name: array})
    with pytest.raises(UsageError, match=rf"b\.npz: {said}"):
        read_rows(tmp_path / "b.npz")


def test_an_npz_without_a_face_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.npz holds no faces"):
        read_rows(npz_of(tmp_path / "a.npz", []))


def test_kaggles_tar_gz_is_read_as_the_csv_in_it(drawn: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as archive:
        archive.add(drawn, "fer2013/fer2013.csv")
        archive.add(__file__, "fer2013/README")
    assert np.array_equal(read_rows(tmp_path / "fer2013.tar.gz").images, read_rows(drawn).images)
    whole = (tmp_path / "fer2013.tar.gz").read_bytes()
    for left in (0, 100, len(whole) // 2):
        (tmp_path / "cut.tar.gz").write_bytes(whole[:left])
        with pytest.raises(UsageError, match=r"cut\.tar\.gz cannot be read as CSV"):
            read_rows(tmp_path / "cut.tar.gz")


def test_splits_of_an_npz_are_known_in_any_case_and_another_is_named(tmp_path: Path) -> None:
    rows = read_rows(npz_of(tmp_path / "a.npz", ["training", "PublicTest ", "PRIVATETEST"]))
    assert rows.split.tolist() == ["Training", "PublicTest", "PrivateTest"]
    with pytest.raises(UsageError, match=r"b\.npz, row 2: Usage must be one of .*, got 'Test'"):
        read_rows(npz_of(tmp_path / "b.npz", ["Training", "Test"]))
