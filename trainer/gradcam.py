"""Where a network looks: Grad-CAM (Selvaraju et al. 2017) by captum, on the last layer that still has places."""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from engines.errors import UsageError


def last_spatial_layer(module: nn.Module, batch: Tensor) -> nn.Module:
    """The module whose output is the last (N, C, H, W) with more than one place; UsageError where there is none to explain."""
    found: list[nn.Module] = []

    def remember(layer: nn.Module, _: object, output: object) -> None:
        if layer is not module and isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1:
            found.append(layer)

    hooks = [layer.register_forward_hook(remember) for layer in module.modules()]
    try:
        with torch.no_grad():
            module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not found or any("attention" in type(layer).__name__.lower() for layer in module.modules()):
        raise UsageError("Grad-CAM needs a convolutional network, and this one mixes places by attention or has no places at all")
    return found[-1]


def gradcam(module: nn.Module, batch: np.ndarray, head: int, target: np.ndarray) -> np.ndarray:
    """(N, C, S, S) uint8 views, the head's place among the outputs, (N,) the label to explain -> (N, S, S) float32, 0…1.

    What raises the label's logit; 1 is the strongest place of each face. Raises UsageError as last_spatial_layer().
    """
    faces = torch.from_numpy(batch).float()
    layer = last_spatial_layer(module, faces[:1])
    explain = LayerGradCam(lambda x: module(x)[head], layer)
    found = explain.attribute(faces, target=torch.from_numpy(target.astype(np.int64)), relu_attributions=True).detach()
    found = LayerAttribution.interpolate(found, faces.shape[-2:], "bilinear")[:, 0]
    return (found / found.amax((1, 2), keepdim=True).clamp_min(1e-9)).numpy()


def overlay(face: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(S, S) or (S, S, 3) uint8 and (S, S) 0…1 -> (S, S, 3) uint8: the face, the hotter the more coloured."""
    import matplotlib

    grey = (face if face.ndim == 3 else np.repeat(face[..., None], 3, -1)).astype(np.float32)
    colour = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    share = 0.65 * heat[..., None]
    return (grey * (1 - share) + colour * share).round().astype(np.uint8)
