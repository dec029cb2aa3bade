"""What a network starts from, which of it learns, and its average."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from urllib.error import URLError

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")

import torch
from rich.console import Console

from engines.errors import FerError, UsageError
from trainer.loop import train
from trainer.models import Ema, build_model
from trainer.recipes import DataSettings, ModelSettings, load_recipe

FOLDER = Path(__file__).parents[2] / "configs" / "train"
PLAIN = {"name": "plain_cnn", "widths": [8, 16]}


def built(**settings) -> torch.nn.Module:
    return build_model(ModelSettings(**settings), DataSettings()).eval()


@pytest.mark.parametrize("network", ["plain_cnn", "resnet18"])
def test_colour_is_learnt_too(network: str, drawn: Path, tmp_path: Path) -> None:
    changes = [f"model.name={network}", "model.widths=[8, 16]", "model.weights=none", "model.image_size=32", "data.colour=rgb"]
    recipe = load_recipe(FOLDER / "resnet18.yaml", [*changes, "augment.colour=0.2", "batch=16", "epochs=1"])
    assert 0 <= train(recipe, drawn, tmp_path, Console(file=io.StringIO()), 32)["fer2013_accuracy"] <= 1


@pytest.mark.parametrize(
    ("name", "blocks", "free"),
    [
        ("mobilenet_v3_large", 2, ["features.15", "features.16"]),
        ("efficientnet_b3", 1, ["features.8"]),
        ("vit_b_16", 2, ["encoder.layers.encoder_layer_10", "encoder.layers.encoder_layer_11"]),
        ("resnet18", 1, ["layer4"]),
        ("resnet18", 8, ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
        ("googlenet", 2, ["inception5a", "inception5b"]),
        ("timm:vit_tiny_patch16_224", 1, ["blocks.11"]),
    ],
)
def test_only_the_heads_and_the_last_blocks_learn(name: str, blocks: int, free: list[str]) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="the small ViT is timm's: pip install -e '.[train]'")
    backbone = tuple(f"backbone.{block}." for block in free)
    for parameter, tensor in built(name=name, image_size=32, unfreeze_blocks=blocks).named_parameters():
        assert tensor.requires_grad is parameter.startswith(("classifier.", *backbone)), parameter


def test_weights_come_from_a_file_of_either_kind_or_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = built(**PLAIN).state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "carries_weights").mkdir()
    (tmp_path / "carries_weights" / "__init__.py").touch()
    torch.save(state, tmp_path / "carries_weights" / "a.pth")
    monkeypatch.syspath_prepend(tmp_path)
    for weights in (tmp_path / "a.pth", tmp_path / "a.safetensors", "package:carries_weights"):
        found = built(**PLAIN, weights=str(weights)).state_dict()
        assert all(torch.equal(found[name], state[name]) for name in state)
    sys.modules.pop("carries_weights", None)
    with pytest.raises(FerError, match=r"a\.pth fits \d+ of \d+ tensors"):
        built(name="resnet18", weights=str(tmp_path / "a.pth"))
    with pytest.raises(FerError, match="pip install no-such-package"):
        built(**PLAIN, weights="package:no_such_package")


@pytest.mark.parametrize("other", [{"widths": [8, 24]}, {"name": "emotion_cnn"}, {"name": "resnet18"}])
def test_a_run_of_another_network_to_start_from_is_one_sentence(other: dict, tmp_path: Path) -> None:
    torch.save({"ema": built(**PLAIN).state_dict()}, tmp_path / "best.ckpt")
    with pytest.raises(UsageError, match=r"is a run of another network than this recipe's; set model\.name") as caught:
        built(**{**PLAIN, **other}, weights=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("left", [0, 3, 1000, 5000])
def test_a_checkpoint_that_was_cut_off_is_one_sentence_that_names_it(left: int, tmp_path: Path) -> None:
    torch.save({"ema": built(**PLAIN).state_dict()}, tmp_path / "best.ckpt")
    (tmp_path / "best.ckpt").write_bytes((tmp_path / "best.ckpt").read_bytes()[:left])
    with pytest.raises(UsageError, match=r"best\.ckpt is no whole checkpoint of fer-train") as caught:
        built(**PLAIN, weights=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_network_gets_its_input_in_the_range_of_its_imagenet_weights(name: str) -> None:
    from torchvision.models import get_model

    net = built(name=name)
    seen: list[torch.Tensor] = []
    first = net.backbone.conv1 if name == "googlenet" else net.backbone.Conv2d_1a_3x3
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 299, 299))
    # What torchvision's own, loaded with weights, makes of levels normalised as on ImageNet: -1…1.
    assert torch.allclose(seen[0].mean((1, 2, 3)), torch.tensor([-1.0, 1.0]), atol=1e-5)
    assert get_model(name, aux_logits=False, init_weights=True).transform_input is False


def test_a_network_of_timm_gets_its_own_normalisation() -> None:
    timm = pytest.importorskip("timm", reason="the small ViT is timm's: pip install -e '.[train]'")
    net = built(name="timm:vit_tiny_patch16_224", image_size=32)
    assert net.mean.flatten().tolist() == pytest.approx(timm.create_model("vit_tiny_patch16_224").pretrained_cfg["mean"])
    assert net.std.flatten().tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert built(name="resnet18").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_weights_that_cannot_be_fetched_are_one_sentence_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_, **__) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(FerError, match=r"resnet18 can't be had here.*model\.weights=FILE.*model\.weights=none") as caught:
        built(name="resnet18", weights="imagenet")
    assert "\n" not in str(caught.value)


def test_a_run_stops_after_its_patience_and_its_best_epoch_counts(drawn: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    still = ["model.widths=[8, 16]", "batch=16", "epochs=6", "patience=2", "optimizer.lr=1e-12", "ema=0", "schedule.warmup_steps=0"]
    metrics = train(load_recipe(FOLDER / "plain_cnn.yaml", [*still, "data.validation=null"]), drawn, tmp_path, console, 32)
    assert "no better score in 2 epochs: stopped after epoch" in console.file.getvalue()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) < 6
    assert metrics["epoch"] == torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"]


def test_the_average_of_weights_follows_quickly_when_young_and_slowly_later() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = Ema(model, 0.9)
    torch.nn.init.ones_(model.weight)
    average.update(model, 0)
    assert average.shadow["weight"].item() == pytest.approx(0.9)  # 1 - (1 + 0) / (10 + 0)
    average.update(model, 10_000)
    assert average.shadow["weight"].item() == pytest.approx(0.91)  # 0.9 · 0.9 + 0.1 · 1
