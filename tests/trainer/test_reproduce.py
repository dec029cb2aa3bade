"""The chain from data to a file that ships, made small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from drawn_faces import write_pictures

from engines.errors import UsageError
from trainer.cli import cli

SMALL = ["model.widths=[8, 16]", "batch=16", "schedule.warmup_steps=0"]


def reproduce(*words: str, changes: list[str] | tuple = ()) -> str:
    command = ["reproduce", *words, *(part for change in changes for part in ("--set", change))]
    said = CliRunner().invoke(cli, command, catch_exceptions=False).output
    return "\n".join(line for line in said.splitlines() if line.startswith(("fer2013_", "crowd_")))


def test_teachers_of_teachers_model_and_export_come_of_one_command(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "lightning", "onnx"):
        pytest.importorskip(package, reason=f"training needs {package}: pip install -e '.[train]'")
    from engines import load_classifier

    monkeypatch.setenv("FER_RUNS", str(tmp_path / "untouched"))
    changes = [*SMALL, "distill.teachers=[emotion_cnn_student]", "model.weights=none", "model.keep=0"]
    command = ("emotion_cnn", "--data", str(drawn), "--epochs", "1", "--limit", "64", "--output", str(tmp_path / "small"))
    with pytest.raises(UsageError, match="--pictures"):
        reproduce(*command, changes=changes)
    (tmp_path / "emotion_cnn_student").mkdir()
    monkeypatch.chdir(tmp_path)  # where a folder of a teacher's name is no teacher
    command = (*command, "--pictures", str(write_pictures(tmp_path / "faces", 8, 4)))
    said = reproduce(*command, changes=changes)
    assert "fer2013_accuracy" in said
    assert {path.name for path in (tmp_path / "small" / "runs").iterdir()} == {
        "emotion_cnn", "emotion_cnn_student", "emotion_cnn_teacher", "unlabelled_faces.npy",
    }  # fmt: skip
    assert not (tmp_path / "untouched").exists()
    recipe = json.loads((tmp_path / "small" / "runs" / "emotion_cnn" / "recipe.json").read_text())
    assert recipe["distill"]["teachers"] == ["emotion_cnn_student"]
    assert load_classifier(str(tmp_path / "small" / "emotion_cnn.onnx")).contract.input_size == 40
    assert reproduce(*command, changes=changes) == said  # nothing is trained twice


def test_a_changed_chain_does_not_overwrite_what_ships(drawn: Path) -> None:
    with pytest.raises(UsageError, match="--output"):
        reproduce("emotion_cnn", "--data", str(drawn), "--limit", "64")
    with pytest.raises(UsageError, match=r"--set fraction"):
        reproduce("yolo11n_face", "--data", str(drawn), "--limit", "64", "--output", "out/none")
    with pytest.raises(UsageError, match="--start"):
        reproduce("yolo11n_face", "--data", str(drawn))
