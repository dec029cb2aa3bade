"""What an export is called, what it says of its origin, and what is to be done after it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")
pytest.importorskip("onnx", reason="the export needs onnx: pip install -e '.[train]'")

from click.testing import CliRunner
from rich.console import Console

from engines.contract import ClassifierContract
from engines.manifest import register, shipped
from trainer import cli
from trainer.checkpoint import commit
from trainer.data import load_for
from trainer.export import _data_line
from trainer.loop import train
from trainer.recipes import Recipe, load_recipe

SMALL = ["model.widths=[8, 16]", "batch=16", "schedule.warmup_steps=2", "epochs=1"]


def test_an_export_has_its_runs_name_and_says_which_twin_is_to_be_made_anew(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    monkeypatch.setattr(cli, "_MODELS", models)
    recipe = load_recipe(Path(__file__).parents[2] / "configs" / "train" / "emotion_cnn_teacher.yaml", SMALL)
    train(recipe, drawn, tmp_path / "mine", Console(quiet=True), 16)

    def exported(*words: str) -> str:
        command = ["export", str(tmp_path / "mine"), "--data", str(drawn), *words]
        return CliRunner().invoke(cli.cli, command, catch_exceptions=False).output

    assert "note:" not in exported("--name", "emotion_cnn")
    ours = shipped(models)["emotion_cnn"]
    made = {"source_sha256": ours.sha256, "made_by": "fer-build engine emotion_cnn --ship"}
    twin = Path(shutil.copy(ours.path, models / "twin.onnx"))
    register("emotion_cnn_int8", "classifier", twin, ClassifierContract(), licence="", data="", source=made, folder=models)
    assert "note:" not in exported()
    assert set(shipped(models)) == {"emotion_cnn", "emotion_cnn_int8", "mine"}
    made["source_sha256"] = "ab" * 32
    register("emotion_cnn_int8", "classifier", twin, ClassifierContract(), licence="", data="", source=made, folder=models)
    assert exported("--name", "emotion_cnn").endswith("make it anew: fer-build engine emotion_cnn --ship\n")


def test_a_commit_is_only_told_of_the_repository_that_has_the_file(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    if not shutil.which("git"):
        pytest.skip("needs git")
    git("init")
    git("commit", "--allow-empty", "-m", "another's")
    file = tmp_path / "site-packages" / "checkpoint.py"
    file.parent.mkdir()
    file.touch()
    assert commit(file) == "unknown"
    git("add", ".")
    git("commit", "-m", "its own")
    assert git("rev-parse", "HEAD").startswith(commit(file))
    assert len(commit(file)) == 7


@pytest.mark.filterwarnings("ignore::trainer.data.DataWarning")
def test_faces_without_labels_are_not_said_to_be_anybodys(drawn: Path) -> None:
    recipe = Recipe(name="r", distill={"teachers": ["/runs/one"], "unlabelled": "mine.npy"})
    assert "PublicTest and faces without labels; taught by one; " in _data_line(recipe, {}, load_for(recipe, drawn))
