from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")

import cv2
import numpy as np
import torch
from drawn_faces import drawn_face
from rich.console import Console

from engines.errors import UsageError
from trainer import precision
from trainer.augment import centre, mix, random_views
from trainer.checkpoint import load_run, save
from trainer.data import FaceSet
from trainer.loop import Progressed, advance, learning_rate, loss_weights, train
from trainer.losses import smoothed, soft_loss
from trainer.recipes import Augmentation, Recipe, load_recipe
from trainer.report import read_log

FOLDER = Path(__file__).parents[2] / "configs" / "train"
SMALL = ["model.widths=[8, 16]", "batch=16", "schedule.warmup_steps=2", "epochs=3"]


def quiet() -> Console:
    return Console(file=io.StringIO())


def weights(run: Path) -> dict:
    return torch.load(run / "last.ckpt", weights_only=True)["model"]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_killed_in_an_epoch_ends_with_the_weights_of_one_that_was_not(drawn: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.cli", "train", "emotion_cnn_teacher", "--data", str(drawn), "--run", str(tmp_path / "cut")]
    command += [part for change in SMALL for part in ("--set", change)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=root) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2:"):  # which is said before it is saved
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert "resumed after epoch" in done.stderr
    train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", SMALL), drawn, tmp_path / "whole", quiet())
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_an_epoch_whose_checkpoint_was_not_saved_is_in_the_log(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(state: dict, path: Path) -> None:
        if path.name == "last.ckpt":
            raise KeyboardInterrupt
        save(state, path)

    recipe = load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*SMALL, "epochs=2"])
    with monkeypatch.context() as patched:
        patched.setattr("trainer.loop.save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, drawn, tmp_path, quiet(), 16)
    assert [row["epoch"] for row in read_log(tmp_path / "log.jsonl")] == [1]
    train(recipe, drawn, tmp_path, quiet(), 16)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    assert [row["epoch"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2]


@pytest.mark.parametrize("clip", ["null", "1"])
def test_a_training_that_diverges_is_one_sentence_and_keeps_what_was_saved(clip: str, drawn: Path, tmp_path: Path) -> None:
    changes = [*SMALL, "precision=32-true", f"optimizer.clip={clip}", "schedule.warmup_steps=0", "epochs=1"]
    train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", changes), drawn, tmp_path, quiet(), 32)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    saved["model"]["backbone.0.weight"][:] = float("nan")
    torch.save(saved, tmp_path / "last.ckpt")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".ckpt"}
    with pytest.raises(UsageError, match=r"the loss is nan in epoch 2.*lower optimizer\.lr") as caught:
        train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*changes, "epochs=2"]), drawn, tmp_path, quiet(), 32)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".ckpt"} == before


def test_another_seed_gives_other_weights(drawn: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*SMALL, "epochs=1", f"seed={seed}"]), drawn, tmp_path / str(seed), quiet())
    assert not same(weights(tmp_path / "1"), weights(tmp_path / "2"))


FOLDERS = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")


def write_folders(root: Path, without: int | None = None) -> Path:
    rng = np.random.default_rng(2)
    for split, count in (("train", 8), ("test", 3)):
        for label, name in enumerate(FOLDERS):
            (root / split / name).mkdir(parents=True)
            for i in range(count if label != without else 0):
                cv2.imwrite(str(root / split / name / f"{i}.png"), drawn_face(label, rng))
    return root


@pytest.mark.parametrize("header", ["emotion,pixels,Usage", " emotion, Usage, pixels"])
def test_kaggles_two_spellings_train_to_the_same_weights(header: str, drawn: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in drawn.read_text().splitlines()[1:]]
    order = [0, 2, 1] if header.startswith(" ") else [0, 1, 2]
    path = tmp_path / "spelt.csv"
    path.write_text("\n".join([header, *(",".join(row[k] for k in order) for row in rows)]) + "\n")
    for name, data in (("one", drawn), ("two", path)):
        train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*SMALL, "epochs=1"]), data, tmp_path / name, quiet())
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))


@pytest.mark.parametrize("without", [None, 1])
def test_class_folders_train_also_where_a_class_has_no_picture(without: int | None, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", without)
    changes = [*SMALL, "epochs=1", "loss.class_weights=1"]
    metrics = train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", changes), data, tmp_path / "run", quiet())
    assert 0 <= metrics["fer2013_accuracy"] <= 1
    assert metrics["loss"] == pytest.approx(3.3, abs=1.0)  # two heads of about ln 7 each, the second weighing .7


def test_a_folder_with_a_broken_picture_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data")
    (data / "train" / "happy" / "torn.png").write_bytes(b"\x89PNG\r\n no more")
    with pytest.raises(UsageError, match=r"torn\.png"):
        train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", SMALL), data, tmp_path / "run", quiet())


def test_a_student_learns_from_its_teacher_alone(drawn: Path, tmp_path: Path) -> None:
    train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*SMALL, "epochs=6"]), drawn, tmp_path / "teacher", quiet())
    changes = [*SMALL, "epochs=6", f"distill.teachers=['{tmp_path / 'teacher'}']", "distill.weight=1"]
    train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", changes), drawn, tmp_path / "student", quiet())
    views = torch.randint(0, 256, (64, 1, 40, 40), dtype=torch.uint8)
    teacher, student = (load_run(tmp_path / name)[0](views)[1].softmax(1) for name in ("teacher", "student"))
    start, _, _ = load_run(tmp_path / "student")
    torch.manual_seed(0)
    for layer in start.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    untaught = start(views)[1].softmax(1)
    assert (teacher - student).abs().mean() < (teacher - untaught).abs().mean()


def test_a_frozen_backbone_keeps_its_weights_and_statistics_while_the_heads_learn(drawn: Path, tmp_path: Path) -> None:
    changes = ["model.weights=none", "model.image_size=32", "batch=16", "patience=null"]
    path = FOLDER / "mobilenet_v3_frozen.yaml"
    for epochs in (1, 2):
        train(load_recipe(path, [*changes, f"epochs={epochs}"]), drawn, tmp_path / str(epochs), quiet())
    once, twice = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert all(torch.equal(once[k], twice[k]) for k in once if k.startswith("backbone"))
    assert not torch.equal(once["classifier.heads.crowd.weight"], twice["classifier.heads.crowd.weight"])


def test_a_run_starts_from_the_weights_of_an_earlier_one(drawn: Path, tmp_path: Path) -> None:
    train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*SMALL, "epochs=2"]), drawn, tmp_path / "first", quiet())
    changes = [*SMALL, "epochs=1", f"model.weights='{tmp_path / 'first'}'", "optimizer.lr=1e-9", "ema=0"]
    train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", changes), drawn, tmp_path / "second", quiet())
    before = torch.load(tmp_path / "first" / "best.ckpt", weights_only=True)["ema"]["classifier.heads.crowd.weight"]
    assert torch.allclose(weights(tmp_path / "second")["classifier.heads.crowd.weight"], before, atol=1e-4)


def test_what_counts_keeps_its_share_of_the_weights_it_started_from_also_after_a_cut(drawn: Path, tmp_path: Path) -> None:
    train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*SMALL, "epochs=1"]), drawn, tmp_path / "first", quiet())
    before = torch.load(tmp_path / "first" / "best.ckpt", weights_only=True)["ema"]
    changes = [*SMALL, f"model.weights='{tmp_path / 'first'}'", "model.keep=0.25", "ema=0"]
    for epochs in (1, 2):  # the second call goes on where the first ended
        train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*changes, f"epochs={epochs}"]), drawn, tmp_path / "second", quiet())
        trained, best = (torch.load(tmp_path / "second" / name, weights_only=True) for name in ("last.ckpt", "best.ckpt"))
        assert best["epoch"] == epochs
        expected = {k: 0.75 * v + 0.25 * before[k] for k, v in trained["ema"].items() if v.dtype.is_floating_point}
        assert all(torch.allclose(best["ema"][k], v, atol=1e-6) for k, v in expected.items())
        assert not torch.allclose(best["ema"]["backbone.0.weight"], trained["ema"]["backbone.0.weight"], atol=1e-6)
        trained["progressed"]["best"] = -1.0  # so that the next epoch counts, whatever it reaches
        torch.save(trained, tmp_path / "second" / "last.ckpt")


def test_soft_loss_is_cross_entropy_for_hard_targets_and_leaves_out_rows_without_mass() -> None:
    logits, label = torch.randn(5, 7), torch.tensor([0, 3, 6, 2, 2])
    target = smoothed(label, 7, 0.0)
    expected = torch.nn.functional.cross_entropy(logits, label)
    assert torch.allclose(soft_loss(logits, target), expected)
    target[4] = 0
    assert torch.allclose(soft_loss(logits, target), torch.nn.functional.cross_entropy(logits[:4], label[:4]))
    w = torch.rand(7)
    expected = torch.nn.functional.cross_entropy(logits, label, weight=w, label_smoothing=0.0)
    assert torch.allclose(soft_loss(logits, smoothed(label, 7, 0.0), w), expected)


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    p = logits.softmax(1)[:, 0]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    assert torch.allclose(soft_loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), gamma=2.0), expected)


def test_loss_weights_are_inverse_frequencies_with_mean_one() -> None:
    nothing = np.zeros((4, 3), np.float32)
    label, unseen = np.array([0, 0, 0, 1]), np.zeros(4, bool)
    faces = FaceSet(np.zeros((4, 8, 8), np.uint8), label, nothing, np.full(4, -1), unseen, ("angry", "sad", "fear"))
    assert torch.allclose(loss_weights(faces, 1.0), torch.tensor([0.5, 1.5, 0.0]))
    assert loss_weights(faces, 0.5)[1] / loss_weights(faces, 0.5)[0] == pytest.approx(3**0.5)


def test_views_without_any_change_are_the_centre_window() -> None:
    still = Augmentation(**{name: 0.0 for name in Augmentation.model_fields})
    images = torch.randint(0, 256, (6, 1, 48, 48), dtype=torch.uint8)
    views = random_views(images, 40, still, torch.Generator().manual_seed(1))
    assert (views - centre(images, 40).float()).abs().max() < 0.05


def test_views_are_the_same_from_the_same_generator_and_stay_in_range() -> None:
    images = torch.randint(0, 256, (16, 3, 48, 48), dtype=torch.uint8)
    settings = Augmentation(colour=0.3, perspective=0.2)
    one, two = (random_views(images, 44, settings, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (16, 3, 44, 44)
    assert one.min() >= 0 <= 255 >= one.max()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_targets_keep_their_mass_and_follow_the_pixels(kind: str) -> None:
    views = torch.stack([torch.zeros(1, 40, 40), torch.ones(1, 40, 40)])
    mixed, (target,) = mix(views, [torch.eye(2)], Augmentation(**{kind: 1.0}), torch.Generator().manual_seed(5))
    assert torch.allclose(target.sum(1), torch.ones(2))
    assert torch.allclose(mixed[0].mean(), target[0, 1], atol=1e-5)


def test_learning_rates_of_the_schedules() -> None:
    recipe = Recipe(name="r", epochs=10, optimizer={"lr": 1.0}, schedule={"name": "cosine", "warmup_steps": 4})
    assert learning_rate(0, recipe, 10) == pytest.approx(0.25)
    assert learning_rate(4, recipe, 10) == pytest.approx(1.0)
    assert learning_rate(100, recipe, 10) == pytest.approx(0.0)
    step = Recipe(name="r", optimizer={"lr": 1.0}, schedule={"name": "step", "warmup_steps": 0, "step_epochs": 2, "factor": 0.1})
    assert [learning_rate(at, step, 10) for at in (0, 19, 20, 40)] == pytest.approx([1, 1, 0.1, 0.01])


def test_plateau_falls_after_its_patience_and_waits_anew() -> None:
    recipe = Recipe(name="r", schedule={"name": "plateau", "factor": 0.5, "patience": 2})
    state = Progressed()
    falls = [(advance(state, {"fer2013_accuracy": score}, recipe), state.fall)[1] for score in (0.5, 0.4, 0.4, 0.4, 0.4, 0.6)]
    assert falls == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert state.best == 0.6
    assert state.since == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"),
        ({"bf16": True}, "bf16-mixed"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_a_cpu_that_would_emulate_bf16_trains_in_float32(flags: dict, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert precision.chosen("auto") == expected
    assert precision.chosen("bf16-true") == "bf16-true"


@pytest.mark.parametrize(("has", "said"), [(True, "bf16-mixed on cpu"), (False, "32-true on cpu")])
def test_the_loop_says_in_what_it_computes(has: bool, said: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has)
    console = Console(file=io.StringIO(), width=200)
    train(load_recipe(FOLDER / "emotion_cnn_teacher.yaml", [*SMALL, "epochs=1"]), drawn, tmp_path, console, 16)
    assert said in console.file.getvalue()
