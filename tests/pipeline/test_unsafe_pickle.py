"""Checkpoints of Ultralytics as detectors: never unpickled unasked, run as they are where the user vouches for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import portrait
from command import rows
from tiny_yolo import TINY


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), portrait((640, 480)))
    return path


def fer_stream(*arguments: object) -> subprocess.CompletedProcess[str]:
    """By the module: an environment for training has no script of ours."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False, cwd=root)


def test_a_checkpoint_is_not_unpickled_unless_the_user_vouches_for_it(picture: Path, tmp_path: Path) -> None:
    """This one would make a file as soon as it is read."""
    trap, sprung = tmp_path / "trap.pt", tmp_path / "sprung"
    trap.write_bytes(f"cos\nmkdir\n(S'{sprung}'\ntR.".encode())
    done = fer_stream("--source", picture, "--detector", trap, "--events", tmp_path / "rows.jsonl", "--quiet")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pickled checkpoint" in done.stderr
    assert "--unsafe-pickle" in done.stderr
    assert not sprung.exists()
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_checkpoint_made_by_ultralytics_runs_once_it_is_vouched_for(picture: Path, tmp_path: Path) -> None:
    ultralytics = pytest.importorskip("ultralytics", reason="needs ultralytics: pip install 'fer-stream[torch]'")
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'fer-stream[torch]'")
    (tmp_path / "yolo11tiny.yaml").write_text(TINY)
    torch.manual_seed(0)
    model = ultralytics.YOLO(str(tmp_path / "yolo11tiny.yaml"), task="detect")
    for branch in model.model.model[-1].cv3:
        torch.nn.init.constant_(branch[-1].bias, 2.0)  # never trained: it sees a face everywhere
    model.save(str(tmp_path / "tiny.pt"))
    arguments = ("--source", picture, "--detector", tmp_path / "tiny.pt", "--unsafe-pickle", "--events", tmp_path / "rows.jsonl", "--quiet")
    done = fer_stream(*arguments)
    assert done.returncode == 0, done.stderr
    first, *found = rows(tmp_path / "rows.jsonl")
    detector = json.loads(first["info"])["models"]["detector"]
    assert (detector["name"], detector["backend"]) == ("tiny.pt", "torch")
    assert [row for row in found if row["kind"] == "face"]


def test_a_trained_checkpoint_finds_the_face_that_the_shipped_detector_finds(picture: Path, tmp_path: Path, weights: Path) -> None:
    pytest.importorskip("ultralytics", reason="needs ultralytics: pip install 'fer-stream[torch]'")
    boxes = []
    for arguments in ((), ("--detector", weights / "yolo11n_face.pt", "--unsafe-pickle")):
        done = fer_stream("--source", picture, *arguments, "--events", tmp_path / "rows.jsonl", "--overwrite", "--quiet")
        assert done.returncode == 0, done.stderr
        (face,) = [row for row in rows(tmp_path / "rows.jsonl") if row["kind"] == "face"]
        boxes.append([face[side] for side in ("x1", "y1", "x2", "y2")])
    assert np.abs(np.subtract(*boxes)).max() < 20, "of a box of some 300 pixels"
