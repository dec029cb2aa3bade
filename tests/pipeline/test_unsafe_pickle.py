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
from tiny_yolo import TINY, ultralytics_here

from engines import load_detector
from engines.errors import EngineError


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), portrait((640, 480)))
    return path


def fer_stream(*arguments: object, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """By the module: an environment for training has no script of ours. `without`: packages that are as good as not installed."""
    start = f"import sys; sys.modules.update(dict.fromkeys({without!r})); from pipeline.cli import main; main()"
    command = [sys.executable, "-c", start, *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False, cwd=root)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """It would make the folder `sprung` beside itself as soon as it is read."""
    path = tmp_path / "trap.pt"
    path.write_bytes(f"cos\nmkdir\n(S'{tmp_path / 'sprung'}'\ntR.".encode())
    return path


def test_a_checkpoint_is_not_unpickled_unless_the_user_vouches_for_it(picture: Path, tmp_path: Path, trap: Path) -> None:
    done = fer_stream("--source", picture, "--detector", trap, "--events", tmp_path / "rows.jsonl", "--quiet")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pickled checkpoint" in done.stderr
    assert "--unsafe-pickle" in done.stderr
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_checkpoint_without_the_packages_that_read_it_is_a_sentence_with_its_name(
    picture: Path, tmp_path: Path, trap: Path, backend: str
) -> None:
    arguments = ("--source", picture, "--detector", trap, "--unsafe-pickle", "--events", tmp_path / "rows.jsonl", "--quiet")
    done = fer_stream(*arguments, "--set", f"backend={backend}", without=("torch", "ultralytics"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"fer-stream: {trap} needs the packages torch and ultralytics, which are not installed; pip install 'fer-stream[torch]', "
        "or make an .onnx of it, wherever torch is: fer-build export detector trap.pt\n"
    )
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_checkpoint_with_torch_but_without_ultralytics_is_not_unpickled(
    tmp_path: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages" / "torch").mkdir(parents=True)  # enough to be found
    (tmp_path / "packages" / "torch" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(EngineError, match=r"trap\.pt needs the package ultralytics, which is not installed; pip install"):
        load_detector(trap, unsafe_pickle=True)
    with pytest.raises(EngineError, match=r"trap\.pt runs on torch alone, got backend 'openvino'; use backend torch"):
        load_detector(trap, unsafe_pickle=True, backend="openvino")
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_made_by_ultralytics_runs_once_it_is_vouched_for(picture: Path, tmp_path: Path) -> None:
    ultralytics = ultralytics_here()
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
    ultralytics_here()
    boxes = []
    for arguments in ((), ("--detector", weights / "yolo11n_face.pt", "--unsafe-pickle")):
        done = fer_stream("--source", picture, *arguments, "--events", tmp_path / "rows.jsonl", "--overwrite", "--quiet")
        assert done.returncode == 0, done.stderr
        (face,) = [row for row in rows(tmp_path / "rows.jsonl") if row["kind"] == "face"]
        boxes.append([face[side] for side in ("x1", "y1", "x2", "y2")])
    assert np.abs(np.subtract(*boxes)).max() < 20, "of a box of some 300 pixels"
