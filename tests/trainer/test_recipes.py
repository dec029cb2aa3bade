"""Every recipe of the repository, with sizes set down: it starts, its loss falls over 30 steps, it goes on where it stopped."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")

from rich.console import Console

from engines.errors import UsageError
from trainer.loop import train
from trainer.recipes import load_recipe

FOLDER = Path(__file__).parents[2] / "configs" / "train"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("yolo"))
SMALL = ["batch=16", "patience=null", "schedule.warmup_steps=0", "model.weights=none", "distill.teachers=[]", "distill.unlabelled=null"]
SMALL += ["ema=0", "model.keep=0"]
STEPS_AN_EPOCH = 7


def reduced(name: str) -> list[str]:
    """Depth, width and input size set down; what is frozen is freed, since nothing pretrained is there to be kept."""
    network = load_recipe(FOLDER / f"{name}.yaml").model.name
    changes = [*SMALL, "model.unfreeze_blocks=null"]
    if network in ("emotion_cnn", "plain_cnn"):
        return [*changes, "model.widths=[16, 32, 48]", "input_size=40"]
    lighter = {"efficientnet_b3": "efficientnet_b0", "vit_b_16": "timm:vit_tiny_patch16_224"}  # the same with less depth and width
    return [*changes, f"model.name={lighter.get(network, network)}", "model.image_size=32"]


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_starts_lowers_its_loss_over_thirty_steps_and_resumes(name: str, drawn: Path, tmp_path: Path) -> None:
    changes = reduced(name)
    if "timm:" in str(changes):
        pytest.importorskip("timm", reason="the small ViT is timm's: pip install -e '.[train]'")
    said = io.StringIO()
    path = FOLDER / f"{name}.yaml"
    train(load_recipe(path, [*changes, "epochs=4"]), drawn, tmp_path, Console(file=said, width=200))
    assert "resumed" not in said.getvalue()
    metrics = train(load_recipe(path, [*changes, "epochs=5"]), drawn, tmp_path, Console(file=said, width=200))
    assert "resumed after epoch 4" in said.getvalue()
    curve = losses(tmp_path)
    assert len(curve) == 5
    assert 5 * STEPS_AN_EPOCH >= 30
    # With a learning rate of nothing ours stay above .99; the field's large ones have not learned more than that in so few steps.
    assert min(curve[3:]) < (0.97 if "cnn" in name else 1.0) * curve[0], curve
    assert 0 <= metrics["fer2013_accuracy"] <= 1


@pytest.mark.parametrize(("text", "said"), [("- epochs\n", "holds list, expected keys"), ("epochs: [1\n", "this is no YAML")])
def test_a_file_that_is_no_recipe_is_one_sentence_that_names_it(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=rf"mine\.yaml:? {said}") as caught:
        load_recipe(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value)


def test_every_published_line_has_its_recipe() -> None:
    networks = {load_recipe(FOLDER / f"{name}.yaml").model.name for name in RECIPES}
    assert {"googlenet", "efficientnet_b3", "mobilenet_v3_large", "vit_b_16", "resnet18", "plain_cnn", "emotion_cnn"} <= networks


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("epochs", "KEY=VALUE"),
        ("epochs=0", "epochs"),
        ("loss.gamma=2", "loss.gamma"),
        ("epochs.x=3", r"epochs\.x=3: epochs is a value"),
        ("loss.focal_gamma=[1", r"loss\.focal_gamma=\[1: this is no YAML"),
        ("precision=foo", "precision"),
        ("input_size=64", r"input_size: must be at most data\.size \(48"),
        ("model.name=no_such_net", "no_such_net"),
        ("model.weights=/no/such/file.pth", "names no file"),
        ("model.keep=0.5", r"model\.keep: must be 0 where model\.weights is none"),
        ("distill.unlabelled=faces.npy", r"distill\.unlabelled: must be null where distill\.teachers is empty"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(change: str, said: str, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        train(load_recipe(FOLDER / "resnet18.yaml", ["model.weights=none", change]), drawn, tmp_path, Console(file=io.StringIO()))
    assert "\n" not in str(caught.value)
