"""Random changes that make scans resemble faces cut from video: batched, on tensors, all from one generator.

Batched, since one face at a time in Python would cost more than the small network's step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.recipes import Augmentation


def random_views(images: Tensor, size: int, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """(N, C, H, H) uint8 -> (N, C, size, size) float32, 0…255.

    The centre `size` of H pixels is the unchanged view; scale is about that.
    """
    n = len(images)
    uniform = lambda low, high: torch.rand(n, generator=generator) * (high - low) + low  # noqa: E731
    chosen = lambda share: torch.rand(n, generator=generator) < share  # noqa: E731
    grid = _grid(n, images.shape[-1], size, settings, uniform, chosen)
    x = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)

    x = 255 * (x / 255).clamp(1e-4, 1) ** torch.exp(uniform(-settings.gamma, settings.gamma)).view(n, 1, 1, 1)
    if settings.colour:
        x = x * (1 + settings.colour * (2 * torch.rand(n, x.shape[1], 1, 1, generator=generator) - 1))
    for fewer in (12, 18, 26):  # a small or blurred face: down and up again
        few = chosen(settings.small / 3)
        if few.any():
            small = F.interpolate(x[few], size=(fewer, fewer), mode="bilinear", antialias=True, align_corners=False)
            x[few] = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    noise = torch.where(chosen(0.25), uniform(0, settings.noise), torch.zeros(n)).view(n, 1, 1, 1)
    x = x + noise * torch.randn(x.shape, generator=generator)
    return torch.where(_boxes(size, settings.erase, uniform, chosen), x.mean((1, 2, 3), keepdim=True), x).clamp(0, 255)


def _grid(n: int, height: int, size: int, settings: Augmentation, uniform, chosen) -> Tensor:
    """Where each pixel of a view looks in its image: (N, size, size, 2), −1…1."""
    flip = torch.where(chosen(settings.flip), -1.0, 1.0)
    turn = math.radians(settings.rotate)
    angle = uniform(-turn, turn) + torch.where(chosen(settings.tilt), uniform(-0.45, 0.45), torch.zeros(n))
    scale = torch.exp(uniform(-settings.scale, settings.scale)) * size / height
    squeeze = torch.exp(uniform(-settings.squeeze, settings.squeeze))
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([scale * squeeze * cos * flip, -scale * sin, uniform(-settings.shift, settings.shift)], 1),
            torch.stack([scale * squeeze * sin * flip, scale * cos, uniform(-settings.shift, settings.shift)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
    if settings.perspective:
        tilt = torch.stack([uniform(-settings.perspective, settings.perspective) for _ in range(2)], 1).view(n, 1, 1, 2)
        grid = grid / (1 + (grid * tilt).sum(-1, keepdim=True))
    return grid


def _boxes(size: int, share: float, uniform, chosen) -> Tensor:
    """Random erasing (Zhong et al. 2020), filled with the image's own mean: a hand, a cup, the edge. -> (N, 1, size, size) bool."""
    ys, xs = torch.arange(size).view(1, size, 1), torch.arange(size).view(1, 1, size)
    h, w = uniform(0.15, 0.5) * size, uniform(0.15, 0.5) * size
    top, left = uniform(0, 1) * (size - h), uniform(0, 1) * (size - w)
    box = lambda v: v.view(-1, 1, 1)  # noqa: E731
    inside = (ys >= box(top)) & (ys < box(top + h)) & (xs >= box(left)) & (xs < box(left + w))
    return (inside & box(chosen(share))).unsqueeze(1)


def mix(views: Tensor, targets: list[Tensor], settings: Augmentation, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019) of a batch with itself reversed, one share for the batch.

    Where both are set, each batch takes one of them by a coin. (N, C, S, S) and rows of probabilities in and out.
    """
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(settings, kind)]
    if not kinds:
        return views, targets
    kind = kinds[int(torch.randint(len(kinds), (1,), generator=generator))]
    share = float(_beta(getattr(settings, kind), generator))
    if kind == "mixup":
        views = share * views + (1 - share) * views.flip(0)
    else:
        size = views.shape[-1]
        side = int(size * math.sqrt(1 - share))
        top, left = (int(torch.randint(size - side + 1, (1,), generator=generator)) for _ in range(2))
        views = views.clone()
        views[:, :, top : top + side, left : left + side] = views.flip(0)[:, :, top : top + side, left : left + side]
        share = 1 - (side / size) ** 2
    return views, [share * target + (1 - share) * target.flip(0) for target in targets]


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw of Beta(alpha, alpha): two Gamma draws (torch's own take no generator) from seeded NumPy."""
    import numpy as np

    return np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator))).beta(alpha, alpha)


def centre(images: Tensor, size: int) -> Tensor:
    """(N, C, H, H) uint8 -> (N, C, size, size) uint8, the window that evaluation and serving look at."""
    edge = (images.shape[-1] - size) // 2
    return images[..., edge : edge + size, edge : edge + size]


def planes(images) -> Tensor:
    """Stored faces as torch wants them: (N, H, W) or (N, H, W, 3) uint8 arrays -> (N, 1 or 3, H, W) uint8."""
    stored = torch.from_numpy(images)
    return stored.unsqueeze(1) if stored.ndim == 3 else stored.permute(0, 3, 1, 2).contiguous()
