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
from trainer.compare import compare

FOLDER = Path(__file__).parents[2] / "configs" / "train"
RECIPES = [FOLDER / "emotion_cnn.yaml", FOLDER / "plain_cnn.yaml"]
SMALL = ["model.widths=[8, 16]", "batch=16", "epochs=1", "schedule.warmup_steps=0", "data.validation=null"]


def test_recipes_become_rows_of_one_table_and_are_not_trained_twice(drawn: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    table = compare(RECIPES, drawn, SMALL, None, tmp_path, Console(file=said, width=200))
    assert said.getvalue().count("epoch 1:") == 2
    assert [line.split(" | ")[0] for line in table.splitlines()[4:]] in (["| emotion_cnn", "| plain_cnn"], ["| plain_cnn", "| emotion_cnn"])
    assert "epochs=1" in table.splitlines()[0]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert all(row["ms_per_face"] > 0 and row["parameters"] > 0 for row in rows)
    assert (tmp_path / "accuracy_over_cost.png").read_bytes().startswith(b"\x89PNG")
    again = io.StringIO()
    assert compare(RECIPES, drawn, SMALL, None, tmp_path, Console(file=again, width=200)) == table
    assert "epoch" not in again.getvalue()


def test_a_folder_with_another_protocols_runs_is_refused(drawn: Path, tmp_path: Path) -> None:
    compare(RECIPES[:1], drawn, SMALL, None, tmp_path, Console(file=io.StringIO()))
    with pytest.raises(UsageError, match="another recipe"):
        compare(RECIPES[:1], drawn, [*SMALL, "seed=2"], None, tmp_path, Console(file=io.StringIO()))
