"""A run's folder holds one run: of one recipe, one limit, the same data, and its manifest tells of those."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")

import torch
from click.testing import CliRunner
from drawn_faces import write_csv
from rich.console import Console

from engines.errors import UsageError
from engines.manifest import shipped
from trainer.cli import cli
from trainer.export import export
from trainer.loop import train
from trainer.recipes import load_recipe

TEACHER = Path(__file__).parents[2] / "configs" / "train" / "emotion_cnn_teacher.yaml"
SMALL = ["model.widths=[8, 16]", "batch=16", "schedule.warmup_steps=2", "epochs=2"]


def trained(data: Path, run: Path, *changes: str, limit: int | None = None) -> str:
    said = io.StringIO()
    train(load_recipe(TEACHER, [*SMALL, *changes]), data, run, Console(file=said, width=200), limit)
    return said.getvalue()


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir()}


@pytest.fixture(scope="module")
def begun(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "begun"
    trained(drawn, run)
    return run


@pytest.mark.parametrize(
    ("changes", "limit", "said"),
    [
        (["loss.focal_gamma=2", "seed=5"], None, r"loss\.focal_gamma was 0\.0, now 2\.0; seed was 1, now 5"),
        (["model.widths=[8, 24]"], None, r"model\.widths was \[8, 16\], now \[8, 24\]"),
        (["epochs=1"], None, "epochs was 2, now 1"),
        ([], 32, r"the data were .*limit None, faces 112, .* now .*limit 32, faces 32"),
    ],
)
def test_another_recipe_or_limit_does_not_go_on(begun: Path, drawn: Path, changes: list[str], limit: int | None, said: str) -> None:
    before = files(begun)
    with pytest.raises(UsageError, match=rf"{said}.*another folder") as caught:
        trained(drawn, begun, *changes, limit=limit)
    assert "\n" not in str(caught.value)
    assert files(begun) == before


def test_other_data_do_not_go_on_with_a_run_and_the_same_under_another_name_do(begun: Path, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the data were fer2013\.csv, .* now other\.csv, "):
        trained(write_csv(tmp_path / "other.csv", 112, 35, seed=2), begun)
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    assert "resumed after epoch 2" in trained(Path(shutil.copy(drawn, tmp_path / "moved.csv")), run)


def test_more_epochs_are_the_same_run_and_one_without_a_note_of_its_data_goes_on(begun: Path, drawn: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "older"))
    (run / "data.json").unlink()
    assert "resumed after epoch 2" in trained(drawn, run, "epochs=3")
    assert json.loads((run / "recipe.json").read_text())["epochs"] == 3
    assert json.loads((run / "data.json").read_text())["faces"] == 112


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("recipe.json", None, r"recipe\.json cannot be read \(No such file"),
        ("recipe.json", b'{"name"', r"recipe\.json cannot be read \(it is no whole JSON\)"),
        ("recipe.json", b"[]", r"recipe\.json cannot be read \(it holds list\)"),
        ("data.json", b"", r"data\.json cannot be read \(it is no whole JSON\)"),
        ("last.ckpt", b"PK", r"last\.ckpt is no whole checkpoint.*or remove it"),
    ],
)
def test_a_file_of_a_run_that_is_missing_or_torn_is_one_sentence(
    name: str, content: bytes | None, said: str, begun: Path, drawn: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    (run / name).unlink() if content is None else (run / name).write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        trained(drawn, run)
    assert "\n" not in str(caught.value)


def test_a_run_that_is_a_file_is_refused_by_the_command(drawn: Path) -> None:
    done = CliRunner().invoke(cli, ["train", "emotion_cnn_teacher", "--data", str(drawn), "--run", str(drawn)])
    assert done.exit_code == 2
    assert "is a file" in done.output


def test_the_manifest_says_what_was_read(begun: Path, drawn: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "few", write_csv(tmp_path / "others.csv", 14, 35, seed=2)
    trained(drawn, run, "data.drop_duplicates=true", limit=64)
    for folder, data in ((begun, drawn), (run, other)):
        export(folder, data, tmp_path / "models", folder.name)
    told = {name: entry.data for name, entry in shipped(tmp_path / "models").items()}
    assert told["begun"] == "fer2013.csv Training, with the images that also stand in PublicTest; calibrated on PublicTest"
    assert told["few"] == (
        "64 faces of fer2013.csv Training, without the images that also stand in PublicTest; calibrated on the others.csv PublicTest"
    )


def test_a_resumed_run_knows_how_far_its_loss_was_scaled(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only CUDA scales, so Fabric's own plain precision stands in for that of half floats."""
    from lightning.fabric.plugins.precision import Precision

    loaded: list[dict] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Precision, "state_dict", lambda self: {"scale": 1024.0})
    monkeypatch.setattr(Precision, "load_state_dict", lambda self, state: loaded.append(state))
    for epochs in (1, 2):
        trained(drawn, tmp_path, f"epochs={epochs}", "precision=32-true", limit=16)
    assert loaded == [{"scale": 1024.0}]
