"""An engine that does not fit is refused, with the sentence that says why and what to type."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import pytest

from engines import load_classifier, load_detector, select
from engines.contract import ClassifierContract, DetectorContract
from engines.errors import EngineError, ModelError, UsageError
from engines.manifest import find, sha256_of, shipped
from engines.sidecar import Machine, Profile, Sidecar, check_machine, check_source, read_sidecar, sidecar_path, write_sidecar

HERE = Machine("tensorrt", "10.13.3", "NVIDIA L4", "8.9")


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "yolo.engine"
    path.write_bytes(b"an engine")
    write_sidecar(path, sidecar(path))
    return path


def sidecar(path, **changes) -> Sidecar:
    made = Sidecar(
        backend="tensorrt", precision="fp16", task="detector", contract=dataclasses.asdict(DetectorContract(conf=0.45)),
        source="yolo11n_face", source_sha256=shipped()["yolo11n_face"].sha256,
        sha256=sha256_of(path), parity={}, library_version="10.13.3", gpu="NVIDIA L4",
        compute_capabilities=("8.9",), driver="12.8", profile=Profile("images", (1, 32, 32, 3), (4, 384, 640, 3), (16, 640, 640, 3)),
        outputs=("boxes",),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_what_was_written_is_read_again(engine):
    assert read_sidecar(engine) == sidecar(engine)
    check_machine(engine, read_sidecar(engine), HERE)


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (dataclasses.replace(HERE, library_version="10.14.0"), "built with tensorrt 10.13.3, this machine has 10.14.0"),
        (dataclasses.replace(HERE, gpu="NVIDIA RTX 4090"), "built on NVIDIA L4, this GPU is NVIDIA RTX 4090"),
        (dataclasses.replace(HERE, gpu="NVIDIA T4", compute_capability="7.5"), r"compute capability 8.9, this GPU \(NVIDIA T4\) has 7.5"),
        (dataclasses.replace(HERE, backend="tensorrt-rtx"), "built with tensorrt, to be run with tensorrt-rtx"),
    ],
)
def test_another_machine_is_said_with_the_command(engine, machine, said):
    with pytest.raises(EngineError, match=said) as caught:
        check_machine(engine, read_sidecar(engine), machine)
    command = "fer-build engine yolo11n_face --backend tensorrt --precision fp16 --batch 1:4:16 --output"
    assert command in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_rtx_engine_runs_on_every_gpu_it_was_compiled_for(engine):
    made = sidecar(engine, backend="tensorrt-rtx", library_version="1.7", gpu="", compute_capabilities=("8.6", "8.9"))
    for gpu, capability in (("NVIDIA RTX 3060", "8.6"), ("NVIDIA RTX 4090", "8.9")):
        check_machine(engine, made, Machine("tensorrt-rtx", "1.7", gpu, capability))
    with pytest.raises(EngineError, match=r"has 9\.0"):
        check_machine(engine, made, Machine("tensorrt-rtx", "1.7", "NVIDIA H100", "9.0"))


def test_another_source_is_said(engine):
    check_source(engine, read_sidecar(engine), shipped()["yolo11n_face"].sha256)
    write_sidecar(engine, sidecar(engine, source_sha256="ab" * 32))
    with pytest.raises(ModelError, match="was built from another yolo11n_face"):
        load_detector(engine)


def test_a_changed_engine_and_a_missing_or_broken_description_are_model_errors(engine):
    text = sidecar_path(engine).read_text()
    engine.write_bytes(b"another engine")
    with pytest.raises(ModelError, match=r"is not the file that yolo\.engine\.json describes"):
        read_sidecar(engine)
    for broken in ("{", "[]", "{}", text.replace('"gpu"', '"gqu"'), json.dumps({**json.loads(text), "profile": 5})):
        sidecar_path(engine).write_text(broken)
        with pytest.raises(ModelError, match="does not describe an engine"):
            read_sidecar(engine)
    for key, value in (("contract", None), ("source", [1]), ("sha256", 5), ("parity", 3)):
        sidecar_path(engine).write_text(json.dumps({**json.loads(text), key: value}))
        with pytest.raises(ModelError, match=f"does not describe an engine .TypeError: {key} is "):
            load_detector(engine)
    sidecar_path(engine).write_text("[" * 100_000)
    with pytest.raises(ModelError, match="RecursionError"):
        read_sidecar(engine)
    sidecar_path(engine).write_text(json.dumps({**json.loads(text), "format": 2}))
    with pytest.raises(ModelError, match="is of format 2"):
        read_sidecar(engine)
    sidecar_path(engine).unlink()
    with pytest.raises(ModelError, match=r"has no yolo\.engine\.json beside it"):
        read_sidecar(engine)


@pytest.mark.parametrize(("suffix", "backend"), [(".onnx", "onnx"), (".xml", "openvino"), (".engine", "tensorrt")])
def test_what_cannot_be_read_is_built_anew_for_the_backend_that_runs_such_a_file(tmp_path, suffix, backend):
    sidecar_path(tmp_path / f"m{suffix}").write_text("{")
    with pytest.raises(ModelError, match=f"build it anew: fer-build engine MODEL --backend {backend} --output "):
        read_sidecar(tmp_path / f"m{suffix}")


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("classifier", {"temperature": 2.0}), ("classifier", {"temperature": {"crowd": 0}}), ("classifier", {"temperature": {"crowd": -1}}),
        ("classifier", {"mean": "x"}), ("classifier", {"std": [1, 0, 1]}), ("classifier", {"output": "bogus"}),
        ("classifier", {"colour": "RGB"}), ("classifier", {"labels": "angry"}), ("classifier", {"labels": ["a", "a"]}),
        ("classifier", {"heads": 5}), ("classifier", {"input_size": "40"}), ("classifier", {"crop_margin": 0}),
        ("classifier", {"min_confidence": float("nan")}), ("detector", {"kind": "retina"}), ("detector", {"conf": 1}),
        ("detector", {"mirror": "no"}), ("detector", {"stride": 32.0}), ("detector", {"vote": 2}), ("detector", {"zoom": 2}),
    ],
)  # fmt: skip
def test_a_contract_edited_by_hand_is_a_model_error(tmp_path, task, changes):
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"a model")
    good = dataclasses.asdict(DetectorContract() if task == "detector" else ClassifierContract())
    write_sidecar(path, sidecar(path, backend="onnx", task=task, contract=good, source="mine", profile=None))
    assert find(path, task).declared
    write_sidecar(path, sidecar(path, backend="onnx", task=task, contract=good | changes, source="mine", profile=None))
    with pytest.raises(ModelError, match=f"holds no contract of a {task} .*{next(iter(changes))}"):
        find(path, task)


def test_an_engine_brings_its_contract_and_is_never_replaced_by_another_backend(engine):
    assert find(engine, "detector").contract == DetectorContract(conf=0.45)
    with pytest.raises(UsageError, match="is a detector, and a classifier was asked for"):
        find(engine, "classifier")
    with pytest.raises(EngineError):
        load_detector(engine)  # auto: the engine's own library or an error
    with pytest.raises(EngineError, match="runs on tensorrt alone, got backend 'openvino'"):
        load_detector(engine, backend="openvino")


def test_a_gpu_backend_without_a_gpu_is_an_error():
    for backend in select.GPU_ONLY:
        with pytest.raises(EngineError, match="is not installed" if not select.installed(backend) else "needs an NVIDIA GPU"):
            select.choose(backend, gpus=0)


def test_a_built_onnx_keeps_its_calibration(tmp_path):
    from engines.manifest import MODELS

    path = tmp_path / "mine.onnx"
    path.write_bytes((MODELS / "emotion_cnn.onnx").read_bytes())
    contract = ClassifierContract(temperature={"crowd": 0.5, "fer2013": 2.0}, crop_margin=0.9)
    made = sidecar(path, backend="onnx", task="classifier", contract=dataclasses.asdict(contract), source="mine", profile=None)
    write_sidecar(path, made)
    assert load_classifier(path, head="fer2013").contract == contract


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs the extra tensorrt-rtx")
def test_an_engine_needs_the_backend_that_made_it(engine):
    with pytest.raises(EngineError, match=r"needs an NVIDIA GPU|runs engines"):
        load_detector(backend="tensorrt-rtx")
