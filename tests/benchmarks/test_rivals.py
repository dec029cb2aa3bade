"""The fer package's video analysis, with a stand-in of the package that walks a clip as its Video.analyze does."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest

from benchmarks import rivals


class Detector:
    def __init__(self, mtcnn: bool) -> None:
        self.mtcnn = mtcnn

    def detect_emotions(self, picture: Any) -> list[dict[str, Any]]:
        return [{"box": [0, 0, 9, 9], "emotions": {"happy": 1.0}}] * 2


class Broken(Detector):
    def detect_emotions(self, picture: Any) -> list[dict[str, Any]]:
        raise ValueError("no face model")


class Video:
    asked: dict[str, Any]

    def __init__(self, clip: str, outdir: str) -> None:
        self.clip = clip

    def analyze(self, detector: Any, **asked: Any) -> None:
        """Logs what a frame raises and stops, as fer 25.10 does."""
        Video.asked, capture, count = asked, cv2.VideoCapture(self.clip), 0
        while (read := capture.read())[0] and count != asked["max_results"]:
            try:
                detector.detect_emotions(read[1])
            except ValueError:
                break
            count += 1


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    modules = {name: ModuleType(name) for name in ("fer", "fer.fer", "fer.classes", "facenet_pytorch")}
    modules["fer.fer"].FER, modules["fer.classes"].Video = Detector, Video  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules["fer.fer"]


@pytest.mark.parametrize(("outputs", "written"), [("full", True), ("events", False)])
def test_its_own_analysis_writes_the_video_where_ours_does(package: ModuleType, clip: Path, outputs: str, written: bool) -> None:
    record = rivals.run({"kind": "fer-haar", "clip": str(clip), "folder": "", "outputs": outputs, "max_frames": 30})
    assert (record["frames"], record["counted"], record["faces"]) == (30, 24, 60)
    assert record["begin"] < record["end"]
    assert (Video.asked["save_video"], Video.asked["annotate_frames"], Video.asked["save_frames"]) == (written, written, False)


def test_an_analysis_that_broke_off_is_no_measurement(package: ModuleType, clip: Path) -> None:
    package.FER = Broken  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no face model"):
        rivals.run({"kind": "fer-mtcnn", "clip": str(clip), "folder": "", "outputs": "full", "max_frames": None})
