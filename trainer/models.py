"""The classifiers: ours, small and made for real time, and the field's, each behind the same two heads.

Every network eats (N, C, S, S) uint8 or float levels 0…255 and normalises inside its graph, so that training, evaluation and every
engine do it alike.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.contract import HEADS
from engines.errors import EngineError, UsageError
from trainer.recipes import DataSettings, ModelSettings, in_runs

_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class Heads(nn.Module):
    """One linear layer per head on the same features: (N, F) -> a tuple of (N, C) logits, in the order of HEADS."""

    def __init__(self, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({head: nn.Linear(features, classes) for head in HEADS})

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        features = self.dropout(features)
        return tuple(head(features) for head in self.heads.values())


class EmotionCNN(nn.Module):
    """VGG-like stages of two 3×3 convolutions with BatchNorm, global average pooling, one linear layer per head.

    Each image is standardised by its own mean and deviation inside the graph: light and contrast of a camera then matter little.
    """

    def __init__(self, widths: tuple[int, ...], classes: int, dropout: float, channels: int = 1, convolutions: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for i, width in enumerate(widths):
            for _ in range(convolutions):
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                before = width
            if i < len(widths) - 1:
                layers.append(nn.MaxPool2d(2))
        self.backbone = nn.Sequential(*layers)
        self.classifier = Heads(before, classes, dropout)

    def forward(self, faces: Tensor) -> tuple[Tensor, ...]:
        """(N, C, S, S) -> a tuple of (N, classes) logits, in the order of HEADS."""
        x = faces.float()
        mean = x.mean((1, 2, 3), keepdim=True)
        deviation = (x - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
        x = (x - mean) / (deviation + 8.0)  # 8 grey levels: a flat, dark crop must not become amplified noise
        return self.classifier(self.backbone(x).mean((2, 3)))


class Adapted(nn.Module):
    """A network of the field behind our contract: grey repeated to three channels, enlarged, normalised as on ImageNet, two heads."""

    def __init__(self, backbone: nn.Module, features: int, classes: int, dropout: float, image_size: int | None) -> None:
        super().__init__()
        self.backbone, self.image_size = backbone, image_size
        self.classifier = Heads(features, classes, dropout)
        of_timm = getattr(backbone, "pretrained_cfg", None) or {}
        mean, std = of_timm.get("mean", _IMAGENET[0]), of_timm.get("std", _IMAGENET[1])
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, faces: Tensor) -> tuple[Tensor, ...]:
        """(N, 1 or 3, S, S) -> a tuple of (N, classes) logits, in the order of HEADS."""
        x = (faces.float() / 255).expand(-1, 3, -1, -1)
        if self.image_size:
            x = F.interpolate(x, size=(self.image_size, self.image_size), mode="bilinear", align_corners=False)
        return self.classifier(self.backbone((x - self.mean) / self.std))


def build_model(model: ModelSettings, data: DataSettings) -> nn.Module:
    """The network of a recipe, with what it starts from. Raises UsageError for a name or weights that are not to be had."""
    classes, channels = len(data.classes), 1 if data.colour == "grey" else 3
    if model.name in ("emotion_cnn", "plain_cnn"):
        # A plain CNN is what most notebooks on FER2013 build: one convolution a stage.
        built: nn.Module = EmotionCNN(tuple(model.widths), classes, model.dropout, channels, 2 if model.name == "emotion_cnn" else 1)
        if model.weights == "imagenet":
            raise UsageError(f"{model.name} has no ImageNet weights; set model.weights to none or to a file")
        _load_file(built, model.weights)
    else:
        backbone, features = _of_timm(model) if model.name.startswith("timm:") else _of_torchvision(model)
        built = Adapted(backbone, features, classes, model.dropout, model.image_size)
    if (run := in_runs(model.weights) / "best.ckpt").is_file():  # of an earlier run, heads included
        try:
            built.load_state_dict(read_state(run)["ema"])
        except RuntimeError as error:
            alike = "set model.name, model.widths, data.classes and data.colour as its recipe.json has them"
            raise UsageError(f"model.weights: {run.parent} is a run of another network than this recipe's; {alike}") from error
    if model.unfreeze_blocks is not None:
        _freeze(built, model.unfreeze_blocks)
    return built


def _of_torchvision(model: ModelSettings) -> tuple[nn.Module, int]:
    """A classifier of torchvision without its last layer, and the number of its features."""
    from torchvision.models import get_model, get_model_weights, list_models

    if model.name not in list_models():
        some = ", ".join(list_models()[:6])
        raise UsageError(f"unknown network {model.name!r}; expected emotion_cnn, plain_cnn, timm:NAME or one of {some}, …")
    options: dict = {"image_size": model.image_size} if model.name.startswith("vit_") and model.image_size else {}
    if model.name in ("googlenet", "inception_v3"):
        # Their ImageNet weights want another range than the other networks', and torchvision says so only where it loads them itself.
        # For every run, as one is rebuilt from its recipe without what it started from.
        options |= {"aux_logits": False, "init_weights": True, "transform_input": True}
    if model.weights == "imagenet":
        state = _downloaded(lambda: get_model_weights(model.name).DEFAULT.get_state_dict(progress=True), model.name)
        net = get_model(model.name, **options)
        if "image_size" in options:
            from torchvision.models.vision_transformer import interpolate_embeddings

            state = interpolate_embeddings(model.image_size, net.patch_size, state)
        net.load_state_dict(state, strict=False)
    else:
        net = get_model(model.name, **options)
        _load_file(net, model.weights)
    for attribute in ("fc", "classifier", "heads", "head"):  # what torchvision's families call their last layers
        last = getattr(net, attribute, None)
        if last is None:
            continue
        layers = [last] if isinstance(last, nn.Linear) else [m for m in last.modules() if isinstance(m, nn.Linear)]
        features = layers[0].in_features  # MobileNetV3 and VGG keep hidden layers there; ours starts at the pooled features
        setattr(net, attribute, nn.Identity())
        return net, features
    raise UsageError(f"{model.name} has no classification layer that we know; choose a classifier of torchvision or timm:NAME")


def _of_timm(model: ModelSettings) -> tuple[nn.Module, int]:
    """A network of timm without its head."""
    try:
        import timm
    except ImportError as error:
        raise EngineError(f"{model.name} needs timm: pip install timm") from error
    name = model.name.removeprefix("timm:")
    if name not in timm.list_models():
        raise UsageError(f"timm has no {name!r}; timm.list_models() lists what it has")
    options: dict = {"img_size": model.image_size} if name.startswith(("vit_", "deit")) and model.image_size else {}
    make = lambda pretrained: timm.create_model(name, pretrained=pretrained, num_classes=0, **options)  # noqa: E731
    net = _downloaded(lambda: make(True), name) if model.weights == "imagenet" else make(False)
    if model.weights != "imagenet":
        _load_file(net, model.weights)
    return net, net.num_features


def _downloaded(fetch, name: str):
    try:
        return fetch()
    except Exception as error:  # urllib, huggingface_hub, requests: each has errors of its own
        reason = next(iter(str(error).splitlines()), "")[:120]
        raise EngineError(
            f"ImageNet weights of {name} can't be had here ({type(error).__name__}: {reason}); "
            "fetch them elsewhere and give their file (--set model.weights=FILE), or train from scratch (--set model.weights=none)"
        ) from error


def _load_file(net: nn.Module, weights: str) -> None:
    """A file's tensors into a network by name, where shapes agree; one where fewer than half do is not its file."""
    path = _in_package(weights.removeprefix("package:")) if weights.startswith("package:") else Path(weights).expanduser()
    if weights == "none" or (in_runs(weights) / "best.ckpt").is_file():
        return
    if not path.is_file():
        expected = "none, imagenet, package:NAME, a .pth or .safetensors file, or a run"
        first = "" if path.suffix else f" (fer-train train {weights} makes one of a recipe of that name)"
        raise UsageError(f"model.weights names no file or run: {weights}; expected {expected}{first}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    own = net.state_dict()
    if not set(state) & set(own):  # perhaps the same network by another author: same tensors in the same order, a classifier at the end
        state = dict(zip(own, state.values(), strict=False))
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if 2 * len(fitting) < len(own):
        raise UsageError(f"{path.name} fits {len(fitting)} of {len(own)} tensors; it holds the weights of another network")
    net.load_state_dict(fitting, strict=False)


def _in_package(name: str) -> Path:
    """The weights that an installed package carries."""
    spec = importlib.util.find_spec(name)
    found = sorted(path for folder in (spec.submodule_search_locations or [] if spec else []) for path in Path(folder).rglob("*.pth"))
    if not found:
        raise EngineError(f"no package {name} with weights is installed: pip install {name.replace('_', '-')}")
    return found[0]


def read_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What a checkpoint of the trainer holds, its tensors on `device`. Raises UsageError where it was cut off, or is another's."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if "ema" in state:
            return state
        reason = "it holds no averaged weights"
    except (RuntimeError, EOFError, OSError, TypeError, pickle.UnpicklingError) as error:  # torch's, by where it was cut off
        reason = type(error).__name__
    raise UsageError(f"{path} is no whole checkpoint of fer-train ({reason}); put a whole one in its place, or remove it")


def _freeze(net: nn.Module, blocks: int) -> None:
    """Only the heads and the last `blocks` blocks of the backbone learn.

    A block is an entry of the longest sequence of layers that holds most of the backbone, or else a layer of the backbone itself (ResNets,
    GoogLeNet: their sequences are stages and branches).
    """
    for parameter in net.backbone.parameters():
        parameter.requires_grad_(False)
    sequences = [m for m in net.backbone.modules() if isinstance(m, nn.Sequential | nn.ModuleList)]
    trunks = [m for m in sequences if 5 * parameters(m) >= 4 * parameters(net.backbone)]
    trunk = [block for block in max(trunks, key=len, default=net.backbone).children() if parameters(block)]
    for block in trunk[max(0, len(trunk) - blocks) :]:
        for parameter in block.parameters():
            parameter.requires_grad_(True)


def parameters(model: nn.Module) -> int:
    """Number of values."""
    return sum(p.numel() for p in model.parameters())


def blend(weights: Mapping[str, Tensor], others: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Two sets of weights of one network as one: (1 − share) of the first and `share` of the second; whole-number buffers are the first's.

    A network fine-tuned and what it started from answer so almost as their ensemble would, for the price of one (Wortsman et al. 2022,
    "Robust fine-tuning of zero-shot models").
    """
    return {k: v.lerp(others[k].to(v), share) if v.dtype.is_floating_point else v for k, v in weights.items()}


class Ema:
    """Exponential moving average of a model's weights (Polyak averaging); whole-number buffers are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: v.detach().clone().float() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # young averages follow quickly
        for k, v in model.state_dict().items():
            if v.dtype.is_floating_point:
                self.shadow[k].lerp_(v.float(), 1 - decay)
            else:
                self.shadow[k] = v.detach().clone()
