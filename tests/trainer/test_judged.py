"""By what a run is judged: faces that it has not learned from, heads that learned, the pixels that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")

import torch
from drawn_faces import drawn_face
from torch.nn.functional import cross_entropy

from engines.contract import HEADS, LABELS
from engines.errors import UsageError
from trainer.data import FaceSet
from trainer.evaluate import evaluate_model
from trainer.loop import Progressed, advance, face_sets, loss_of, targets_of
from trainer.models import build_model
from trainer.predictor import load_predictor
from trainer.recipes import Recipe, load_recipe

pytestmark = pytest.mark.filterwarnings("ignore::trainer.data.DataWarning")
FOLDER = Path(__file__).parents[2] / "configs" / "train"


def twice(path: Path) -> Path:
    """Every face of Training stands there twice, as in FER2013 some do; and seven of PublicTest."""
    random = np.random.default_rng(3)
    faces = [(i % 7, " ".join(map(str, drawn_face(i % 7, random).ravel()))) for i in range(77)]
    rows = [f"{label},{pixels},{'Training' if i < 70 else 'PublicTest'}" for i, (label, pixels) in enumerate(faces)]
    path.write_text("\n".join(["emotion,pixels,Usage", *rows, *rows[:70]]) + "\n")
    return path


def pixels(faces: FaceSet) -> list[bytes]:
    return [image.tobytes() for image in faces.images]


def test_a_part_of_training_that_is_held_out_knows_its_twins_in_the_rest(tmp_path: Path) -> None:
    path, data = FOLDER / "plain_cnn.yaml", twice(tmp_path / "faces.csv")
    kept, aside, _ = face_sets(load_recipe(path, ["data.validation=0.3"]), data)
    assert len(kept) + len(aside) == 140
    assert aside.in_training.tolist() == [one in set(pixels(kept)) for one in pixels(aside)]
    assert 0 < aside.in_training.sum() < len(aside)

    kept, again, _ = face_sets(load_recipe(path, ["data.validation=0.3", "data.drop_duplicates=true"]), data)
    assert pixels(again) == pixels(aside)
    assert not set(pixels(kept)) & set(pixels(again))
    assert not again.in_training.any()


def voted(n: int) -> FaceSet:
    random = np.random.default_rng(1)
    label = np.arange(n) % 7
    return FaceSet(random.integers(0, 256, (n, 48, 48), np.uint8), label, np.eye(7, dtype=np.float32)[label], label, np.zeros(n, bool))


@pytest.mark.parametrize("loss", [{"crowd": "none"}, {"crowd_weight": 0}])
def test_a_head_that_does_not_learn_does_not_say_which_epoch_is_best(loss: dict) -> None:
    recipe = Recipe(name="r", model={"widths": [4, 8]}, loss=loss)
    torch.manual_seed(0)
    model = build_model(recipe.model, recipe.data).eval()
    metrics = evaluate_model(model, voted(28), recipe)
    assert "crowd_accuracy" not in metrics
    assert "crowd_accuracy" in evaluate_model(model, voted(28), Recipe(name="r", model={"widths": [4, 8]}))
    state = Progressed()
    advance(state, metrics, recipe)
    assert state.best == metrics["fer2013_accuracy"]


@pytest.mark.parametrize("loss", [{"crowd": "none"}, {"crowd_weight": 0}])
def test_teachers_do_not_teach_a_head_that_does_not_learn(loss: dict) -> None:
    logits = tuple(torch.randn(4, 7, requires_grad=True) for _ in HEADS)
    wanted = targets_of(voted(4), recipe := Recipe(name="r", loss=loss))
    loss_of(logits, wanted, [torch.full((4, 7), 1 / 7) for _ in HEADS], None, recipe).backward()
    assert [bool(logit.grad.any()) for logit in logits] == [head in recipe.heads for head in HEADS]


def test_a_loss_is_the_share_of_the_labels_and_that_of_the_softened_teachers() -> None:
    recipe = Recipe(name="r", distill={"weight": 0.75, "temperature": 2.0})
    torch.manual_seed(0)
    logits, said, taught = torch.randn(4, 7), torch.eye(7)[:4], torch.eye(7)[3:7]
    loss = 0.25 * cross_entropy(logits, said) + 0.75 * 4 * cross_entropy(logits / 2, taught)
    both = loss_of((logits, logits), [said, said], [taught, taught], None, recipe)
    torch.testing.assert_close(both, (recipe.loss.crowd_weight + 1) * loss)


def run_of(folder: Path, **settings: object) -> Path:
    """What the training loop leaves of a small network."""
    recipe = Recipe(name=folder.name, model={"widths": [4, 8]}, **settings)
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    torch.save({"ema": build_model(recipe.model, recipe.data).state_dict(), "epoch": 1, "metrics": {}}, folder / "best.ckpt")
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    return folder


def test_only_heads_that_learned_are_exported(drawn: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="exports need onnx: pip install -e '.[train]'")
    from engines import load_classifier
    from trainer.export import export

    run = run_of(tmp_path / "run", loss={"crowd": "none"})
    metrics = export(run, drawn, tmp_path / "models", "one")
    assert not any(key.startswith("crowd") for key in metrics)
    entry = json.loads((tmp_path / "models" / "manifest.json").read_text())["models"]["one"]
    assert entry["contract"]["heads"] == list(entry["contract"]["temperature"]) == ["fer2013"]
    path = str(tmp_path / "models" / "one.onnx")
    with pytest.raises(UsageError, match="it has fer2013"):
        load_classifier(path)
    engine, mine = load_predictor(path), load_predictor(str(run))
    assert engine.heads == mine.heads == ("fer2013",)
    assert len(load_classifier(path, head="fer2013")._engine.outputs) == 1


@pytest.mark.parametrize(("size", "window"), [(96, 48), (48, 40)])
def test_an_exported_engine_is_judged_on_the_pixels_of_its_run(size: int, window: int, drawn: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="exports need onnx: pip install -e '.[train]'")
    from trainer.export import export

    run = run_of(tmp_path / "run", data={"size": size}, input_size=window)
    export(run, drawn, tmp_path / "models", "large")
    engine, mine = load_predictor(str(tmp_path / "models" / "large.onnx")), load_predictor(str(run))
    assert (engine.face_size, engine.input_size) == (mine.face_size, mine.input_size) == (size, window)


def test_the_shipped_classifier_is_judged_on_faces_of_48_pixels() -> None:
    assert [load_predictor(name).face_size for name in ("emotion_cnn", "emotion_cnn_int8")] == [48, 48]
    assert load_predictor("emotion_cnn").labels == LABELS
