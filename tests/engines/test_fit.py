"""An engine that fits is taken, one that does not is built anew or refused, and it is said why."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import sys
import threading

import numpy as np
import pytest

from engines import fit, load_classifier, load_detector, select
from engines.build.engine import build_engine
from engines.contract import DetectorContract
from engines.errors import EngineError, ModelError, UsageError
from engines.manifest import MODELS, find, sha256_of, shipped
from engines.sidecar import Machine, Profile, Sidecar, read_sidecar, sidecar_path, write_sidecar

HERE = Machine("tensorrt", "10.13.3", "NVIDIA L4", "8.9")
needs_build = pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="needs the extra demo")
needs_rtx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorrt_rtx", "onnx", "skimage")),
    reason="needs the extras tensorrt-rtx, build and demo",
)


def write_engine(path, **changes) -> Sidecar:
    """A file that says it is an engine of the shipped detector, for the L4 of HERE."""
    path.write_bytes(b"an engine")
    sidecar = Sidecar(
        backend="tensorrt", precision="fp16", task="detector", contract=dataclasses.asdict(DetectorContract()), source="yolo11n_face",
        source_sha256=shipped()["yolo11n_face"].sha256, sha256=sha256_of(path), parity={}, library_version=HERE.library_version,
        gpu=HERE.gpu, compute_capabilities=("8.9",), outputs=("boxes",),
        profile=Profile("images", (1, 32, 32, 3), (4, 384, 640, 3), (16, 640, 640, 3)),
    )  # fmt: skip
    sidecar = dataclasses.replace(sidecar, **changes)
    write_sidecar(path, sidecar)
    return sidecar


@pytest.fixture
def tensorrt_here(tmp_path, monkeypatch):
    """The package's name and version, enough to be found and asked; nothing of it can run."""
    (tmp_path / "packages" / "tensorrt").mkdir(parents=True)
    (tmp_path / "packages" / "tensorrt" / "__init__.py").write_text(f"__version__ = {HERE.library_version!r}\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    engines = tmp_path / "engines"
    engines.mkdir()
    monkeypatch.setenv("FER_ENGINES", str(engines))
    yield engines
    sys.modules.pop("tensorrt", None)


def test_an_engine_that_fits_has_no_misfits(tmp_path):
    path = tmp_path / "y.engine"
    assert fit.misfits(path, write_engine(path), HERE, precision="f16", imgsz=640) == []


@pytest.mark.parametrize(
    ("changes", "asked", "said"),
    [
        ({"library_version": "9.0"}, {}, "built with tensorrt 9.0, this machine has 10.13.3"),
        ({"gpu": "NVIDIA L40"}, {}, "built on NVIDIA L40, this GPU is NVIDIA L4"),
        ({"compute_capabilities": ("9.0",)}, {}, "built for compute capability 9.0, this GPU (NVIDIA L4) has 8.9"),
        ({"source_sha256": "ab" * 32}, {}, "built from another yolo11n_face"),
        ({"sha256": "ab" * 32}, {}, "its file is not the one that its .json describes"),
        ({}, {"precision": "f32"}, "built in fp16, fp32 is asked for"),
        ({}, {"imgsz": 960}, "built for pictures of up to 640 pixels, 960 are asked for"),
    ],
)
def test_each_misfit_is_said(tmp_path, changes, asked, said):
    path = tmp_path / "y.engine"
    assert fit.misfits(path, write_engine(path, **changes), HERE, **asked) == [said]


def test_too_large_pictures_are_refused_at_loading_with_the_command(tmp_path):
    path = tmp_path / "y.engine"
    write_engine(path)
    with pytest.raises(EngineError, match="takes pictures of up to 640 pixels, got imgsz 960") as caught:
        load_detector(path, imgsz=960)
    command = "fer-build engine yolo11n_face --backend tensorrt --precision fp16 --batch 1:4:16 --imgsz 960 --output"
    assert command in str(caught.value)


def test_what_rebuild_cannot_do_is_said(tmp_path):
    path = tmp_path / "y.engine"
    with pytest.raises(UsageError, match="rebuild must be one of never, auto, got 'yes'"):
        load_classifier(rebuild="yes")
    sidecar = write_engine(path, source=str(tmp_path / "gone.onnx"))
    with pytest.raises(ModelError, match=r"its source .*gone\.onnx is not there; give the model yourself: fer-build engine"):
        fit.build_anew(path, sidecar)
    sidecar_path(path).unlink()
    with pytest.raises(ModelError, match="beside it, which says what it runs on"):
        load_detector(path, rebuild="auto")


def test_rebuilding_without_the_library_is_an_error_and_keeps_the_engine(tmp_path):
    if select.installed("tensorrt"):
        pytest.skip("TensorRT is installed here")
    path = tmp_path / "y.engine"
    write_engine(path)
    with pytest.raises(EngineError, match=r"y\.engine needs the package tensorrt, .*fer-stream\[tensorrt\]"):
        load_detector(path, rebuild="auto")
    assert path.read_bytes() == b"an engine"


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_an_engine_whose_library_is_not_installed_is_a_sentence_with_its_name(tmp_path, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    path = tmp_path / "y.engine"
    write_engine(path)
    with pytest.raises(EngineError) as caught:
        load_detector(path, backend=backend)
    assert str(caught.value) == (
        f"{path} needs the package tensorrt, which is not installed; pip install 'fer-stream[tensorrt]', "
        "or give the model that it was built from, yolo11n_face"
    )
    assert caught.value.exit_code == 1


def test_an_engine_without_a_gpu_or_for_another_backend_is_a_sentence_with_its_name(tensorrt_here):
    path = tensorrt_here / "y.engine"
    write_engine(path)
    with pytest.raises(EngineError, match=r"y\.engine needs an NVIDIA GPU, and device cpu was asked for; give .* yolo11n_face$"):
        load_detector(path, device="cpu")
    with pytest.raises(EngineError, match=r"y\.engine runs on tensorrt alone, got backend 'openvino'; use backend tensorrt, or give"):
        load_detector(path, backend="openvino")


def test_auto_takes_the_engine_of_a_model_that_fits_and_says_why_not_the_others(tensorrt_here):
    write_engine(tensorrt_here / "a.engine", library_version="9.0")
    write_engine(tensorrt_here / "b.engine", precision="int8")
    write_engine(tensorrt_here / "c.engine")
    write_engine(tensorrt_here / "d.engine", source="emotion_cnn", source_sha256=shipped()["emotion_cnn"].sha256, task="classifier")
    write_engine(tensorrt_here / "e.engine", source_sha256="ab" * 32)
    entry, choice = select.for_entry(find(None, "detector"), "auto", "auto", gpus=1)
    assert (entry.name, entry.path, choice.backend, choice.device) == ("yolo11n_face", tensorrt_here / "c.engine", "tensorrt", "cuda:0")
    assert "not a.engine: built with tensorrt 9.0, this machine has 10.13.3" in choice.reason
    assert "not e.engine: built from another yolo11n_face" in choice.reason
    assert "d.engine" not in choice.reason
    entry, _ = select.for_entry(find(None, "detector"), "auto", "auto", gpus=1, precision="int8")
    assert entry.path.name == "b.engine"


def test_auto_without_a_gpu_looks_at_no_engine(tensorrt_here, caplog):
    if select.gpu_count():
        pytest.skip("a GPU is here")
    write_engine(tensorrt_here / "c.engine")
    with caplog.at_level(logging.INFO, "engines"):
        detector = load_detector("yolo11n_face", imgsz=64)
    assert (detector.backend, detector.entry.path) == ("openvino", MODELS / "yolo11n_face.onnx")
    assert "tensorrt" not in sys.modules
    assert [record.message for record in caplog.records if "runs on" in record.message] == [
        "detector yolo11n_face runs on openvino, cpu (auto: no NVIDIA GPU)"
    ]


def test_auto_on_a_gpu_without_a_fitting_engine_goes_on_in_order(tensorrt_here):
    if select.gpu_count():
        pytest.skip("a GPU is here")
    write_engine(tensorrt_here / "a.engine", library_version="9.0")
    entry, choice = select.for_entry(find(None, "detector"), "auto", "auto", gpus=1)
    assert (entry.path, choice.backend) == (MODELS / "yolo11n_face.onnx", "openvino")
    order = [choice.reason.index(word) for word in ("a.engine: built with tensorrt 9.0", "torch", "onnxruntime")]
    assert order == sorted(order)
    entry, choice = select.for_entry(find(None, "classifier"), "auto", "auto", gpus=1)
    assert f"no TensorRT engine of emotion_cnn in {tensorrt_here}" in choice.reason


@needs_build
def test_rebuild_auto_keeps_what_fits_and_replaces_what_does_not_saying_why(tmp_path):
    output, said = tmp_path / "m.xml", []
    request = {"backend": "openvino", "precision": "fp16", "output": output, "rebuild": "auto", "say": said.append}
    first = build_engine("emotion_cnn", **request)
    assert "was kept" not in first.note
    kept = build_engine("emotion_cnn", **request)
    assert "fits this machine, so it was kept" in kept.note
    assert dataclasses.replace(kept.parity, scores={}) == first.parity
    values = json.loads(sidecar_path(output).read_text())
    sidecar_path(output).write_text(json.dumps({**values, "source_sha256": "ab" * 32, "precision": "fp32"}))
    assert "was kept" not in build_engine("emotion_cnn", **request).note
    assert "m.xml does not fit: built from another emotion_cnn; built in fp32, fp16 is asked for; it is built anew" in said
    assert read_sidecar(output).source_sha256 == shipped()["emotion_cnn"].sha256


@needs_build
def test_rebuild_auto_never_replaces_a_file_of_someone_else(tmp_path):
    output = tmp_path / "m.xml"
    output.write_text("mine")
    with pytest.raises(ModelError, match=r"has no m\.xml\.json beside it"):
        build_engine("emotion_cnn", backend="openvino", output=output, rebuild="auto")
    assert output.read_text() == "mine"


@needs_rtx
def test_an_engine_of_another_version_is_built_anew_from_the_onnx_that_its_sidecar_names(tmp_path, small_classifier, caplog):
    source = small_classifier()
    engine = tmp_path / "m.engine"
    build_engine(source, backend="tensorrt-rtx", precision="fp32", batch=(1, 2, 4), output=engine)
    made = read_sidecar(engine)
    assert made.source == str(source)
    fit.made_to_fit(engine, rebuild="auto")
    assert caplog.text == ""  # it fits
    write_sidecar(engine, dataclasses.replace(made, library_version="0.1"))
    engine.write_bytes(b"cut off")
    with caplog.at_level(logging.WARNING, "engines"):
        fit.made_to_fit(engine, rebuild="auto")
    assert f"built with tensorrt-rtx 0.1, this machine has {made.library_version}" in caplog.text
    assert "its file is not the one that its .json describes" in caplog.text
    again = read_sidecar(engine)
    assert (again.library_version, again.profile, again.source_sha256) == (made.library_version, made.profile, made.source_sha256)
    assert np.isfinite(again.parity["mean_deviation"])


@pytest.mark.skipif(not select.gpu_count(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("backend", select.GPU_ONLY)
def test_an_engine_is_built_found_by_auto_and_answers_like_fp32_in_every_batch_and_from_three_threads(backend, tmp_path, monkeypatch):
    for package in (select.BACKENDS[backend][1], "onnx", "skimage"):
        pytest.importorskip(package, reason=f"needs the extras {backend}, build and demo")
    monkeypatch.setenv("FER_ENGINES", str(tmp_path))
    try:
        build_engine("emotion_cnn", backend=backend, precision="fp16", batch=(1, 8, 32), output=tmp_path / "e.engine")
    except EngineError as error:
        if "use --backend tensorrt" not in str(error):
            raise
        pytest.skip(f"TensorRT-RTX does not build for this GPU: {error}")
    if backend == "tensorrt":
        assert (tmp_path / read_sidecar(tmp_path / "e.engine").timing_cache).stat().st_size > 0
    crops = np.random.default_rng(3).integers(0, 255, (33, 1, 40, 40), dtype=np.uint8)
    exact = load_classifier(backend="openvino", precision="f32").infer(crops)
    one = load_classifier()
    assert (one.backend, one.name) == (backend, "emotion_cnn")
    for count in (1, 2, 5, 32, 33, 1):
        assert np.abs(one.infer(crops[:count]) - exact[:count]).max() < 0.02
    found: list[float] = []

    def run(start: int) -> None:
        for _ in range(20):
            found.append(float(np.abs(one.infer(crops[start : start + 8]) - exact[start : start + 8]).max()))

    threads = [threading.Thread(target=run, args=(start,)) for start in (0, 8, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    assert len(found) == 60
    assert max(found) < 0.02
