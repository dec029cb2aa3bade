from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")
pytest.importorskip("onnx", reason="exports need onnx: pip install -e '.[train]'")

from rich.console import Console

from engines.errors import UsageError
from trainer import compare as module
from trainer.compare import compare
from trainer.loop import train
from trainer.recipes import load_recipe

FOLDER = Path(__file__).parents[2] / "configs" / "train"
RECIPES = [FOLDER / "emotion_cnn_teacher.yaml", FOLDER / "plain_cnn.yaml"]
SMALL = ["model.widths=[8, 16]", "batch=16", "epochs=1", "schedule.warmup_steps=0", "data.validation=null"]


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_recipes_become_rows_of_one_table_are_not_trained_twice_but_timed_anew(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    table = compare(RECIPES, drawn, SMALL, None, tmp_path, Console(file=said, width=200))
    assert said.getvalue().count("epoch 1:") == 2
    assert sorted(line.split(" | ")[0] for line in table.splitlines()[4:]) == ["| emotion_cnn_teacher", "| plain_cnn"]
    protocol = table.splitlines()[0]
    assert "epochs=1" in protocol
    assert "all rows in turn" in protocol
    assert "CPU time" in protocol
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert all(row["ms_per_face"] > 0 and row["parameters"] > 0 for row in rows)
    assert (tmp_path / "accuracy_over_cost.png").read_bytes().startswith(b"\x89PNG")

    again = io.StringIO()
    monkeypatch.setattr(module, "ms_per_face", lambda paths: [1.25 + i for i, _ in enumerate(paths)])
    second = compare(RECIPES, drawn, SMALL, None, tmp_path, Console(file=again, width=200))
    assert "epoch" not in again.getvalue()
    columns = lambda text: {cells[1]: cells[2:] for line in text.splitlines()[4:] if (cells := line.split("|"))}  # noqa: E731
    for name, cells in columns(table).items():
        assert [cell for i, cell in enumerate(cells) if i != 6] == [cell for i, cell in enumerate(columns(second)[name]) if i != 6]
    times = {name.strip(): cells[6].strip() for name, cells in columns(second).items()}
    assert times == {"emotion_cnn_teacher": "1.25", "plain_cnn": "2.25"}


def test_a_stopped_rows_training_time_is_that_of_its_parts(drawn: Path, tmp_path: Path) -> None:
    path = RECIPES[0]
    changes = [*SMALL, "epochs=2"]
    train(load_recipe(path, changes[:-1]), drawn, tmp_path / path.stem, quiet())
    (tmp_path / path.stem / "recipe.json").write_text(load_recipe(path, changes).model_dump_json())  # as if it had been stopped there
    compare([path], drawn, changes, None, tmp_path, quiet())
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    log = [json.loads(line) for line in (tmp_path / path.stem / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2]
    assert row["train_cpu_s"] == pytest.approx(sum(line["cpu_s"] for line in log))
    assert all(line["cpu_s"] > 0 for line in log)


@pytest.mark.parametrize("name", ["efficientnet_b3", "vit_tiny"])
def test_a_network_of_the_field_becomes_a_row_at_a_small_size(name: str, drawn: Path, tmp_path: Path) -> None:
    if name == "vit_tiny":
        pytest.importorskip("timm", reason="the small ViT is timm's: pip install -e '.[train]'")
    changes = [*SMALL, "model.weights=none", "model.image_size=32"]
    table = compare([FOLDER / f"{name}.yaml"], drawn, changes, 32, tmp_path, quiet())
    assert f"| {name} | " in table
    assert "32 training faces" in table


def test_engines_are_timed_in_turn(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engines.backends.openvino import OpenVinoBackend

    compare(RECIPES, drawn, SMALL, None, tmp_path, quiet())
    order: list[str] = []
    infer = OpenVinoBackend.infer
    monkeypatch.setattr(OpenVinoBackend, "infer", lambda self, arrays: order.append(self._path.parent.name) or infer(self, arrays))
    assert len(module.ms_per_face([tmp_path / path.stem / "model.onnx" for path in RECIPES])) == 2
    turns = [name for i, name in enumerate(order) if i == 0 or name != order[i - 1]]
    assert len(turns) >= 10
    assert turns[:4] == ["emotion_cnn_teacher", "plain_cnn"] * 2


def test_a_folder_with_another_protocols_runs_is_refused(drawn: Path, tmp_path: Path) -> None:
    compare(RECIPES[:1], drawn, SMALL, None, tmp_path, quiet())
    with pytest.raises(UsageError, match=r"another run \(seed was 1, now 2"):
        compare(RECIPES[:1], drawn, [*SMALL, "seed=2"], None, tmp_path, quiet())
    with pytest.raises(UsageError, match="a run of 1 epochs, asked for 2"):
        compare(RECIPES[:1], drawn, [*SMALL, "epochs=2"], None, tmp_path, quiet())
    with pytest.raises(UsageError, match=r"comparison on fer2013\.csv, all faces, asked for fer2013\.csv, 32 faces"):
        compare(RECIPES[:1], drawn, SMALL, 32, tmp_path, quiet())
