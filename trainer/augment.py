"""Random changes that make 48 px scans resemble faces cut from video: batched, on tensors, all from one generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random_views(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """(N, 48, 48) uint8 -> (N, 1, size, size) float32, 0…255: flipped, turned, scaled, shifted, dimmed, blurred, noisy, erased.

    The centre `size` of 48 px is the unchanged view; scale is about that.
    """
    n, height = images.shape[0], images.shape[1]
    uniform = lambda low, high: torch.rand(n, generator=generator) * (high - low) + low  # noqa: E731
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    angle = uniform(-0.26, 0.26) + torch.where(torch.rand(n, generator=generator) < 0.15, uniform(-0.45, 0.45), torch.zeros(n))
    scale = torch.exp(uniform(-0.18, 0.18)) * size / height
    squeeze = torch.exp(uniform(-0.06, 0.06))
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([scale * squeeze * cos * flip, -scale * sin, uniform(-0.13, 0.13)], 1),
            torch.stack([scale * squeeze * sin * flip, scale * cos, uniform(-0.13, 0.13)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
    x = F.grid_sample(images.unsqueeze(1).float(), grid, mode="bilinear", padding_mode="border", align_corners=False)

    x = 255 * (x / 255).clamp(1e-4, 1) ** torch.exp(uniform(-0.35, 0.35)).view(n, 1, 1, 1)
    for fewer in (12, 18, 26):  # a small or blurred face: down and up again
        chosen = torch.rand(n, generator=generator) < 0.09
        if chosen.any():
            small = F.interpolate(x[chosen], size=(fewer, fewer), mode="bilinear", antialias=True, align_corners=False)
            x[chosen] = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    noisy = torch.where(torch.rand(n, generator=generator) < 0.25, uniform(0, 12), torch.zeros(n)).view(n, 1, 1, 1)
    x = x + noisy * torch.randn(x.shape, generator=generator)

    # Random erasing (Zhong et al. 2020), with the image's own mean: a hand, a cup, the edge of the picture.
    ys, xs = torch.arange(size).view(1, size, 1), torch.arange(size).view(1, 1, size)
    h, w = uniform(0.15, 0.5) * size, uniform(0.15, 0.5) * size
    top, left = uniform(0, 1) * (size - h), uniform(0, 1) * (size - w)
    box = lambda v: v.view(n, 1, 1)  # noqa: E731
    inside = (ys >= box(top)) & (ys < box(top + h)) & (xs >= box(left)) & (xs < box(left + w))
    inside &= (torch.rand(n, generator=generator) < 0.5).view(n, 1, 1)
    return torch.where(inside.unsqueeze(1), x.mean((1, 2, 3), keepdim=True), x).clamp(0, 255)


def centre(images: Tensor, size: int) -> Tensor:
    """(N, 48, 48) uint8 -> (N, 1, size, size) uint8, the window that evaluation and serving look at."""
    edge = (images.shape[-1] - size) // 2
    return images[:, edge : edge + size, edge : edge + size].unsqueeze(1)
