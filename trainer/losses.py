"""The losses of the two heads."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of −Σ target·log softmax(logits) over the rows whose target has mass: (N, C), (N, C) -> ().

    Rows without mass (nobody voted for one of the seven) are left out.
    """
    mass = target.sum(1)
    loss = -(target * F.log_softmax(logits.float(), 1)).sum(1)
    return loss.sum() / mass.gt(0).sum().clamp(min=1)


def two_heads(crowd_logits: Tensor, original_logits: Tensor, crowd: Tensor, label: Tensor, smoothing: float, crowd_weight: float) -> Tensor:
    """Soft cross-entropy on the FER+ votes plus smoothed cross-entropy on the original labels."""
    original = F.cross_entropy(original_logits.float(), label, label_smoothing=smoothing)
    return original + crowd_weight * soft_cross_entropy(crowd_logits, crowd)
