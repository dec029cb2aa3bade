"""What a run learns from beside its data: teachers, a start, faces without labels."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")

import numpy as np
import torch
from drawn_faces import write_pictures
from rich.console import Console

from engines.errors import UsageError
from trainer.checkpoint import save
from trainer.loop import train
from trainer.recipes import load_recipe
from trainer.unlabelled import faces_from_pictures

TEACHER = Path(__file__).parents[2] / "configs" / "train" / "emotion_cnn_teacher.yaml"
SMALL = ["model.widths=[8, 16]", "batch=16", "schedule.warmup_steps=2", "epochs=1"]


def trained(data: Path, run: Path, *changes: str) -> str:
    said = io.StringIO()
    train(load_recipe(TEACHER, [*SMALL, *changes]), data, run, Console(file=said, width=200), 32)
    return said.getvalue()


@pytest.fixture
def runs(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$FER_RUNS with a teacher and faces without labels."""
    monkeypatch.setenv("FER_RUNS", str(tmp_path))
    trained(drawn, tmp_path / "teacher")
    np.save(tmp_path / "faces.npy", np.zeros((8, 48, 48), np.uint8))
    return tmp_path


TAUGHT = ("distill.teachers=[teacher]", "model.weights=teacher", "distill.unlabelled=faces.npy")


def test_other_files_of_the_same_names_do_not_go_on_with_a_run(runs: Path, drawn: Path) -> None:
    trained(drawn, runs / "student", *TAUGHT)
    assert "resumed after epoch 1" in trained(drawn, runs / "student", *TAUGHT)
    before = json.loads((runs / "student" / "data.json").read_text())
    was = before["unlabelled"]

    np.save(runs / "faces.npy", np.ones((8, 48, 48), np.uint8))
    with pytest.raises(UsageError, match=rf"the data were .*, unlabelled {was}.* now .*, unlabelled (?!{was})"):
        trained(drawn, runs / "student", *TAUGHT)
    np.save(runs / "faces.npy", np.zeros((8, 48, 48), np.uint8))
    state = torch.load(runs / "teacher" / "best.ckpt", weights_only=True)
    state["ema"]["backbone.0.weight"] += 1
    save(state, runs / "teacher" / "best.ckpt")
    for change, key in (("distill.teachers=[teacher]", "teachers"), ("model.weights=teacher", "start")):
        shutil.rmtree(runs / "student")
        trained(drawn, runs / "student", change)
        state["ema"]["backbone.0.weight"] += 1
        save(state, runs / "teacher" / "best.ckpt")
        with pytest.raises(UsageError, match=rf"the data were .*, {key} .* now .*, {key} "):
            trained(drawn, runs / "student", change)

    old = {key: value for key, value in before.items() if key not in ("teachers", "start", "unlabelled")}
    (runs / "student" / "data.json").write_text(json.dumps(old))  # of a run from before they were written down
    assert "resumed after epoch 1" in trained(drawn, runs / "student", "model.weights=teacher")


def test_a_head_that_the_teacher_has_not_learned_is_not_taught(runs: Path, drawn: Path) -> None:
    trained(drawn, runs / "half", "loss.crowd=none")
    with pytest.raises(UsageError, match=r"teacher half has not learned the head crowd.*set loss\.crowd to none"):
        trained(drawn, runs / "student", "distill.teachers=[half]")
    trained(drawn, runs / "student", "distill.teachers=[half]", "loss.crowd=none")


@pytest.mark.parametrize(
    ("faces", "colour", "said"),
    [
        (np.zeros((8, 40, 40), np.uint8), "grey", r"holds grey uint8 \(8, 40, 40\), expected \(N, 48, 48\) uint8 in grey"),
        (np.zeros((8, 48, 48), np.uint8), "rgb", r"holds grey uint8 \(8, 48, 48\), expected \(N, 48, 48\) uint8 in rgb"),
        (np.zeros((0, 48, 48), np.uint8), "grey", r"holds grey uint8 \(0, 48, 48\)"),
        (np.zeros((8, 48, 48), np.float32), "grey", "holds grey float32"),
        (None, "grey", "cannot be read as .npy"),
    ],
)
def test_faces_without_labels_that_do_not_go_with_the_others_are_one_sentence(
    faces: np.ndarray | None, colour: str, said: str, runs: Path, drawn: Path
) -> None:
    if faces is None:
        (runs / "faces.npy").write_bytes(b"torn")
    else:
        np.save(runs / "faces.npy", faces)
    trained(drawn, runs / "teacher_in_colour", "data.colour=rgb")
    taught = {"grey": "teacher", "rgb": "teacher_in_colour"}[colour]
    with pytest.raises(UsageError, match=said) as caught:
        trained(drawn, runs / "student", f"distill.teachers=[{taught}]", "distill.unlabelled=faces.npy", f"data.colour={colour}")
    assert "\n" not in str(caught.value)


def test_faces_are_cut_into_a_folder_that_was_not_there_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, output = write_pictures(tmp_path / "faces", 8, 4), tmp_path / "runs" / "new" / "faces.npy"

    def cut_off(file, array: np.ndarray) -> None:
        Path(getattr(file, "name", file)).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            faces_from_pictures(pictures, output, 1.0)
    assert not output.exists()
    assert faces_from_pictures(pictures, output, 1.0) == 8
    assert np.load(output).shape == (8, 48, 48)
    assert [path.name for path in output.parent.iterdir()] == ["faces.npy"]


def test_pictures_without_a_face_are_one_sentence(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "faces", 2, 1)
    for path in (pictures / "labels" / "train").iterdir():
        path.write_text("")
    with pytest.raises(UsageError, match="holds no labelled face of 28 px or more"):
        faces_from_pictures(pictures, tmp_path / "faces.npy", 1.0)
