"""One loss for hard, soft, smoothed, weighted, focused and distilled targets: all of them are rows of probabilities."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def soft_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None, gamma: float = 0.0) -> Tensor:
    """Mean over the rows with mass of −Σ w·t·(1 − p)^γ·log p, p = softmax(logits): (N, C), (N, C), (C,) -> ().

    γ = 0 is cross-entropy, with soft targets the Kullback-Leibler divergence but for a constant; γ > 0 is the focal loss (Lin et al.
    2017, equation 5). As in torch, weighted rows are averaged by their weight. Rows without mass (nobody voted for one of the classes)
    are left out.
    """
    log_p = F.log_softmax(logits.float(), 1)
    weighted = target if weights is None else target * weights
    focus = (1 - log_p.exp()).clamp(min=1e-6) ** gamma if gamma else 1.0
    return -(weighted * focus * log_p).sum() / weighted.sum().clamp(min=1e-9)


def smoothed(label: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels as rows of probabilities, 1 − s + s/C for the label and s/C for the others: (N,) -> (N, C) (Szegedy et al. 2016)."""
    return F.one_hot(label, classes).float() * (1 - smoothing) + smoothing / classes
