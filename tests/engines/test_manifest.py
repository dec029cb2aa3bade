"""Which file is run, and which is refused."""

from __future__ import annotations

import json
import shutil

import pytest

from engines.contract import ClassifierContract, DetectorContract
from engines.errors import ModelError, UsageError
from engines.manifest import DEFAULTS, MODELS, find, register, sha256_of, shipped


def test_what_ships_is_what_the_manifest_says():
    for entry in shipped().values():
        assert sha256_of(entry.path) == entry.sha256
        assert entry.licence == "AGPL-3.0-only"
        assert entry.data
        assert entry.metrics
        assert entry.source
    assert {shipped()[name].task for name in DEFAULTS.values()} == {"detector", "classifier"}


def test_the_default_the_name_and_the_path_find_the_same_file():
    assert find(None, "detector").path == find("yolo11n_face", "detector").path
    assert find(MODELS / "yolo11n_face.onnx", "detector").digest == find(None, "detector").sha256


def test_a_copy_of_a_shipped_model_is_read_as_that_one_and_a_changed_copy_is_not(tmp_path):
    for entry in shipped().values():
        copy = tmp_path / f"renamed{entry.path.suffix}"
        for suffix in {entry.path.suffix, ".bin"}:
            if (file := entry.path.with_suffix(suffix)).is_file():
                shutil.copy(file, copy.with_suffix(suffix))
        found = find(copy, entry.task)
        assert (found.path, found.contract) == (copy, entry.contract)
        with copy.open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
        assert find(copy, entry.task).contract != entry.contract


def test_a_model_is_read_with_the_contract_that_the_list_beside_it_gives(tmp_path):
    copy = tmp_path / "mine.onnx"
    copy.write_bytes((MODELS / "yolo11n_face.onnx").read_bytes() + b"\0")
    assert find(copy, "detector").contract == DetectorContract()
    contract = DetectorContract(conf=0.6, vote=0.7)
    register("mine", "detector", copy, contract, licence="", data="", folder=tmp_path)
    assert find(copy, "detector").contract == contract
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    assert find(copy, "detector").contract == DetectorContract()


def test_an_unknown_name_lists_what_ships_and_the_nearest():
    with pytest.raises(UsageError, match=r"shipped: yolo11n_face.*; did you mean yolo11n_face") as caught:
        find("yolo11_face", "detector")
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match=r"shipped: yolo11n_face.*; a path must end in"):
        find("zzz", "detector")


def test_a_model_of_the_other_task_is_refused():
    with pytest.raises(UsageError, match="emotion_cnn is a classifier, and a detector was asked for"):
        find("emotion_cnn", "detector")


@pytest.mark.parametrize("name", ["", " ", 5, 1.5])
def test_what_is_neither_name_nor_path_is_refused(name):
    with pytest.raises(UsageError):
        find(name, "detector")


def test_a_missing_path_and_a_folder_are_sentences(tmp_path):
    with pytest.raises(UsageError, match=r"there is no model .*none\.onnx; check the path"):
        find(tmp_path / "none.onnx", "detector")
    with pytest.raises(UsageError, match="is a folder"):
        find(tmp_path, "detector")


def test_a_changed_shipped_file_is_not_loaded(tmp_path):
    shutil.copytree(MODELS, tmp_path / "models")
    with (tmp_path / "models" / "yolo11n_face.onnx").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"x")
    with pytest.raises(ModelError, match="is not the released yolo11n_face"):
        find(None, "detector", folder=tmp_path / "models")
    (tmp_path / "models" / "yolo11n_face.onnx").unlink()
    with pytest.raises(ModelError, match="cannot read the model"):
        find(None, "detector", folder=tmp_path / "models")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".ckpt"])
def test_pickles_are_not_touched(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UsageError, match="pickle"):
        find(path, "detector")
    with pytest.raises(UsageError, match="pickle"):
        find(path, "classifier", unsafe_pickle=True)


def test_registering_writes_the_same_bytes_again_and_reads_back(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(b"weights")
    contract = ClassifierContract(crop_margin=0.9, temperature={"crowd": 1.5}, mean=(123.7, 116.3, 103.5), std=58.4)
    said = {"licence": "MIT", "data": "none", "metrics": {"b": 1, "a": 2}, "folder": tmp_path}
    entry = register("m", "classifier", model, contract, **said)
    assert (entry.contract, entry.sha256, entry.metrics) == (contract, sha256_of(model), {"a": 2, "b": 1})
    first = (tmp_path / "manifest.json").read_bytes()
    register("d", "detector", model, DetectorContract(), licence="MIT", data="none", folder=tmp_path)
    register("m", "classifier", model, contract, **said)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert list(content["models"]) == ["d", "m"]
    del content["models"]["d"]
    assert json.dumps(content, indent=2, sort_keys=True).encode() + b"\n" == first


def test_registering_refuses_a_file_elsewhere_and_a_wrong_contract(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(b"weights")
    with pytest.raises(UsageError, match="must lie in"):
        register("m", "detector", model, DetectorContract(), licence="", data="", folder=tmp_path / "models")
    with pytest.raises(UsageError, match="task must be one of"):
        register("m", "detector", model, ClassifierContract(), licence="", data="", folder=tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"models": {"a": {"task": "detector"}}}', '{"models": {"a": 5}}'])
def test_a_broken_manifest_is_a_model_error(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelError if text != '{"models": {}}' else ()):
        shipped(tmp_path)


def test_another_programs_deep_json_beside_a_model_says_nothing(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    (tmp_path / "m.onnx").write_bytes(b"mine")
    assert not find(tmp_path / "m.onnx", "detector").declared


def test_a_manifest_cannot_point_outside_of_its_folder(tmp_path):
    entry = {"task": "detector", "file": "../x.onnx", "sha256": "", "contract": {}}
    (tmp_path / "manifest.json").write_text(json.dumps({"models": {"x": entry}}))
    with pytest.raises(ModelError, match="outside"):
        shipped(tmp_path)
