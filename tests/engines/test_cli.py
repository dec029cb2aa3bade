"""fer-build, as a person types it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_yolo import ultralytics_here

ROOT = Path(__file__).resolve().parents[2]


def fer_build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "engines.cli", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


def test_list_shows_models_backends_and_the_choice():
    done = fer_build("list")
    assert done.returncode == 0, done.stderr
    for word in ("yolo11n_face", "emotion_cnn", "ok (default)", "openvino", "tensorrt", "auto: "):
        assert word in done.stdout


def test_help_teaches_by_example():
    assert "fer-build export detector best.pt" in fer_build("--help").stdout
    assert "--overwrite" in fer_build("export", "detector", "--help").stdout


def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path):
    done = fer_build("export", "detector", str(tmp_path / "none.pt"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there is no checkpoint" in done.stderr
    there = tmp_path / "there.onnx"
    there.write_bytes(b"mine")
    done = fer_build("export", "detector", str(tmp_path / "x.pt"), "-o", str(there))
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert there.read_bytes() == b"mine"
    done = fer_build("export", "detector", str(tmp_path / "x.pt"), "-o", str(tmp_path / "my_faces"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is exported as .onnx, got my_faces" in done.stderr


def test_what_the_disk_refuses_is_one_sentence(tmp_path):
    done = fer_build("export", "detector", "x.pt", "-o", str(tmp_path / f"{'a' * 300}.onnx"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "File name too long" in done.stderr


@pytest.mark.skipif(find_spec("nncf") is not None, reason="NNCF is here")
def test_int8_without_nncf_is_refused_before_any_work(tmp_path):
    done = fer_build("engine", "emotion_cnn", "--backend", "onnx", "--precision", "int8", "--calibration", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "needs nncf: pip install" in done.stderr


def test_a_checkpoint_becomes_an_onnx_that_answers_like_it(weights, tmp_path):
    ultralytics_here()
    pytest.importorskip("onnx", reason="needs the extra build")
    import numpy as np

    from engines import load_detector

    checkpoint = weights / "yolo11n_face.pt"
    done = fer_build("export", "detector", str(checkpoint), "-o", str(tmp_path / "m.onnx"))
    assert done.returncode == 0, done.stderr
    batch = np.random.default_rng(0).integers(0, 255, (1, 64, 96, 3), dtype=np.uint8)
    detectors = (load_detector(model, precision="f32", device="cpu", unsafe_pickle=True) for model in (tmp_path / "m.onnx", checkpoint))
    mine, original = (detector._engine.infer([batch])[0] for detector in detectors)
    assert np.abs(mine - original)[:, :4].max() < 0.1, "pixels"
    assert np.abs(mine - original)[:, 4].max() < 0.001
