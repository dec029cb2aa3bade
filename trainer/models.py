"""The classifier's architecture: small, made for real time, two heads on one backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.contract import HEADS, LABELS


class EmotionCNN(nn.Module):
    """VGG-like stages of two 3×3 convolutions with BatchNorm, global average pooling, one linear layer per head.

    The forward pass takes (N, 1, S, S) uint8 or float grey levels 0…255 and standardises each image by its own mean
    and deviation inside the graph: light and contrast of a camera then matter little, and every engine normalises alike.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256), dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for i, width in enumerate(widths):
            for _ in range(2):
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                before = width
            if i < len(widths) - 1:
                layers.append(nn.MaxPool2d(2))
        self.backbone = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({head: nn.Linear(before, len(LABELS)) for head in HEADS})

    def forward(self, faces: Tensor) -> tuple[Tensor, ...]:
        """(N, 1, S, S) -> a tuple of (N, 7) logits, in the order of HEADS."""
        x = faces.float()
        mean = x.mean((1, 2, 3), keepdim=True)
        deviation = (x - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
        x = (x - mean) / (deviation + 8.0)  # 8 grey levels: a flat, dark crop must not become amplified noise
        features = self.dropout(self.backbone(x).mean((2, 3)))
        return tuple(self.heads[head](features) for head in HEADS)


def parameters(model: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in model.parameters())


class Ema:
    """Exponential moving average of a model's weights (Polyak averaging); buffers are copied."""

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
