"""`fer-bench scale` and the clips it composes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.clips import _place, compose_faces
from engines.errors import UsageError

from .conftest import bench


def test_a_clip_with_more_faces_differs_in_nothing_else(tmp_path: Path) -> None:
    places = [_place(number, 1.0, 1280, 720) for number in range(32)]
    assert len(set(places)) == 32
    pictures = []
    for faces in (1, 2):
        with av.open(str(compose_faces(tmp_path / f"{faces}.mp4", faces, width=640, height=360, frames=2))) as container:
            pictures.append(next(container.decode(video=0)).to_ndarray(format="gray").astype(int))
    x, y = _place(1, 0.0, 640, 360)
    changed = np.abs(pictures[0] - pictures[1]) > 24
    assert changed[y - 40 : y + 40, x - 40 : x + 40].mean() > 0.3
    changed[y - 50 : y + 50, x - 50 : x + 50] = False
    assert changed.mean() < 0.001


def test_the_faces_of_a_clip_are_found(tmp_path: Path, detector) -> None:
    with av.open(str(compose_faces(tmp_path / "five.mp4", 5, frames=1))) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert len(detector.detect(picture)) == 5


@pytest.fixture(scope="module")
def detector():
    from engines import load_detector

    return load_detector()


def test_more_faces_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 to 32"):
        compose_faces(tmp_path / "x.mp4", 33)


def test_points_are_told_as_shares_of_the_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "scale", "--axis", "sources", "--values", "sources=1,2", "--runs", 1, "--frames", 24,
                "--set", "backend=fake", "--set", "detect.imgsz=320", "--report", tmp_path, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    points = ran.document["axes"]["sources"]["points"]
    assert [point["value"] for point in points] == [1, 2]
    assert points[0]["speed"] == points[0]["cpu_cost"] == 1.0
    assert points[1]["speed"] == pytest.approx(points[1]["fps"] / points[0]["fps"], rel=0.01)
    assert (tmp_path / "scale.html").read_text().count("data:image/png") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--axis", "colour"), ("--values", "faces=many"), ("--values", "colour=1"),
        ("--axis", "resolution", "--values", "resolution=99"), ("--axis", "sources", "--values", "sources=0"),
        ("--axis", "sources,faces", "--values", "faces=99"), ("--axis", "sources,imgsz", "--values", "imgsz=5"), ("--values", "imgsz"),
        ("--axis", ","), ("--axis", "faces", "--values", "sources=2"), ("--set", "detect.interval=3"), ("--set", "detect.imgsz=320"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_sentence(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "scale", *arguments)
    assert ran.code == 2
    assert len(ran.err.strip().splitlines()) == 1
