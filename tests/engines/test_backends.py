"""Every backend gives the same answers; auto chooses, and says why."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_yolo import ultralytics_here

from engines import load_classifier, load_detector, manifest, select
from engines.backends.base import in_parts, small_batch
from engines.errors import EngineError, ModelError, UsageError
from engines.manifest import MODELS

ROOT = Path(__file__).resolve().parents[2]
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs the extra {name}"))
    for name in ("torch", "onnxruntime")
]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    import cv2

    noise = np.random.default_rng(0).integers(0, 255, (3, 12, 20, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (160, 96), interpolation=cv2.INTER_CUBIC) for image in noise])


@pytest.mark.parametrize("backend", OTHERS)
def test_detectors_agree_with_openvino_in_fp32(backend, pictures):
    ours = load_detector(backend=backend, device="cpu", imgsz=160)._engine.infer([pictures])[0]
    theirs = load_detector(backend="openvino", precision="f32", imgsz=160)._engine.infer([pictures])[0]
    assert ours.shape == theirs.shape == (3, 5, 315)
    assert np.abs(ours[:, 4] - theirs[:, 4]).max() < 1e-3
    assert np.abs(ours[:, :4] - theirs[:, :4]).max() < 0.05


@pytest.mark.parametrize("backend", OTHERS)
def test_classifiers_agree_with_openvino_in_fp32(backend):
    faces = np.random.default_rng(1).integers(0, 255, (11, 1, 40, 40), dtype=np.uint8)
    ours = load_classifier(backend=backend, device="cpu").infer(faces)
    theirs = load_classifier(backend="openvino", precision="f32").infer(faces)
    assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize("backend", OTHERS)
def test_users_models_run_on_every_backend(backend, small_classifier):
    path = small_classifier(4, labels="a,b,c,d", softmax=True)
    faces = [np.full((50, 50), level, np.uint8) for level in (0, 100, 255)]
    ours = load_classifier(path, backend=backend, device="cpu").classify(faces)
    assert ours == pytest.approx(load_classifier(path, precision="f32").classify(faces), abs=1e-4)


@pytest.mark.parametrize("backend", OTHERS)
def test_what_a_backend_cannot_read_is_said(backend, tmp_path):
    path = tmp_path / "m.xml"
    path.write_text('<net name="x" version="11"></net>')
    with pytest.raises(EngineError, match="use backend openvino"):
        load_detector(path, backend=backend, device="cpu")


def test_an_openvino_xml_runs_like_its_onnx(tmp_path):
    import openvino

    openvino.save_model(openvino.Core().read_model(MODELS / "emotion_cnn.onnx"), tmp_path / "m.xml", compress_to_fp16=False)
    faces = np.random.default_rng(3).integers(0, 255, (3, 1, 40, 40), dtype=np.uint8)
    mine = load_classifier(tmp_path / "m.xml", head="fer2013", precision="f32")
    assert mine.contract.heads == ("crowd", "fer2013")
    assert mine.contract.temperature == {}
    answers = [one._engine.infer([faces])[one._output] for one in (mine, load_classifier(head="fer2013", precision="f32"))]
    assert np.allclose(*answers, atol=1e-4)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ModelError):
        load_classifier(tmp_path / "m.xml").classify([np.zeros((9, 9), np.uint8)])


def test_bf16_stays_near_fp32():
    faces = np.random.default_rng(2).integers(0, 255, (16, 1, 40, 40), dtype=np.uint8)
    assert np.abs(load_classifier(precision="bf16").infer(faces) - load_classifier(precision="f32").infer(faces)).max() < 0.1


def test_a_checkpoint_runs_only_when_vouched_for(weights):
    ultralytics_here()
    mine = load_detector(weights / "yolo11n_face.pt", unsafe_pickle=True, imgsz=64)
    assert mine.backend == "torch"
    assert len(mine.infer(np.zeros((1, 64, 64, 3), np.uint8))) == 1


def test_threads_and_precision_are_checked():
    with pytest.raises(UsageError, match="threads must be 1 or more"):
        load_detector(threads=0)
    with pytest.raises(UsageError, match="precision"):
        load_detector(precision="int4")
    assert len(load_classifier(threads=1).classify([np.zeros((9, 9), np.uint8)])) == 1


def test_tensorrt_by_name_is_tensorrt_or_an_error():
    with pytest.raises(EngineError, match="tensorrt"):
        load_detector(backend="tensorrt")


def test_a_backend_that_is_not_installed_names_its_extra():
    if importlib.util.find_spec("torch") is not None:
        pytest.skip("torch is installed here")
    with pytest.raises(EngineError, match=r"fer-stream\[torch\]"):
        load_detector(backend="torch")


def test_names_that_do_not_exist_are_usage_errors():
    with pytest.raises(UsageError, match="unknown backend 'tensorflow'; known: auto, openvino"):
        select.choose("tensorflow")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        select.choose("auto", "gpu")


def test_a_gpu_that_is_not_there_is_an_engine_error():
    with pytest.raises(EngineError, match="use device cpu"):
        load_detector(device=f"cuda:{select.gpu_count()}")
    with pytest.raises(EngineError, match="openvino"):
        select.choose("openvino", "cuda", gpus=1)


@pytest.mark.parametrize(
    ("units", "asked", "expected"),
    [
        (("avx2", "avx512_vnni", "avx512_bf16"), {}, "yolo11n_face_int8"),
        (("avx2", "avx_vnni"), {"backend": "openvino", "device": "cpu"}, "yolo11n_face_int8"),
        (("avx2", "avx512_vnni", "amx_bf16"), {}, "yolo11n_face"),
        (("avx2",), {}, "yolo11n_face_int8"),
        ((), {}, "yolo11n_face"),
        (("avx2", "avx512_vnni"), {"precision": "bf16"}, "yolo11n_face"),
        (("avx2", "avx512_vnni"), {"backend": "onnxruntime"}, "yolo11n_face"),
        (("avx2", "avx512_vnni"), {"gpus": 1}, "yolo11n_face"),
        (("avx2", "avx512_vnni"), {"gpus": 1, "device": "cpu"}, "yolo11n_face_int8"),
    ],
)
def test_the_default_is_in_int8_where_the_cpu_is_fastest_at_that(monkeypatch, units, asked, expected):
    monkeypatch.setattr("engines.cpu.units", lambda: units)
    assert select.default_model("detector", **({"gpus": 0} | asked)) == expected
    if "gpus" not in asked and asked.get("backend") != "onnxruntime":
        assert load_detector(**asked).name == expected
        assert load_classifier(**asked).name == expected.replace("yolo11n_face", "emotion_cnn")


def test_a_twin_that_was_made_of_other_weights_is_not_the_default_and_that_is_said(monkeypatch, caplog):
    monkeypatch.setattr("engines.cpu.units", lambda: ("avx2",))
    models = manifest.shipped()
    models["emotion_cnn"] = dataclasses.replace(models["emotion_cnn"], sha256="ab" * 32)
    monkeypatch.setattr(manifest, "shipped", lambda folder: models)
    assert select.default_model("classifier", gpus=0) == "emotion_cnn"
    assert "emotion_cnn_int8 was made of other weights" in caplog.text
    assert f"make it anew: {models['emotion_cnn_int8'].source['made_by']}" in caplog.text
    assert select.default_model("detector", gpus=0) == "yolo11n_face_int8"


def test_auto_on_a_cpu_is_openvino_and_says_so(caplog):
    with caplog.at_level(logging.INFO, "engines"):
        load_classifier("emotion_cnn", device="cpu")
    assert "classifier emotion_cnn runs on openvino, cpu (auto: device cpu was asked for)" in caplog.text
    assert select.choose(gpus=0) == select.Choice("openvino", "cpu", "auto: no NVIDIA GPU")


def test_a_gpu_that_no_package_can_use_is_not_passed_over_in_silence(caplog):
    if select.gpu_count():
        pytest.skip("a GPU is here")
    choice = select.choose(gpus=1)
    assert choice.backend == "openvino"
    assert "not used" in caplog.text
    with pytest.raises(EngineError, match="no backend can use cuda"):
        select.choose("auto", "cuda", gpus=1)


def test_a_cpu_run_imports_no_torch_even_where_it_is_installed(tmp_path):
    for package in ("torch", "ultralytics", "onnxruntime", "onnx", "tensorrt"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"raise SystemExit('{package} was imported')")
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[1])\n"
        "from engines import load_classifier, load_detector\n"
        "load_detector(imgsz=64).infer(np.zeros((1, 64, 64, 3), np.uint8))\n"
        "load_classifier().classify([np.zeros((9, 9, 3), np.uint8)])\n"
        "assert not {'torch', 'ultralytics', 'onnx', 'onnxruntime', 'tensorrt'} & set(sys.modules)\n"
    )
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # auto, on a machine of which the driver says that it has no GPU
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False, env=hidden)
    assert done.returncode == 0, done.stderr


def test_a_broken_model_is_a_model_error_on_every_backend(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes((MODELS / "emotion_cnn.onnx").read_bytes()[:-1000])
    for backend in ("openvino", *(p.values[0] for p in OTHERS if select.installed(p.values[0]))):
        with pytest.raises(ModelError):
            load_classifier(path, backend=backend, device="cpu")


def test_batches_in_parts_by_hand():
    seen = []

    def run(arrays):
        seen.append(len(arrays[0]))
        return [arrays[0] * 2]

    assert in_parts(run, [np.arange(5)], 2)[0].tolist() == [0, 2, 4, 6, 8]
    assert seen == [2, 2, 2]
    assert [small_batch(np.zeros(n)) for n in (1, 2, 3, 5, 32, 33, 100)] == [1, 2, 4, 8, 32, 32, 32]
