"""ONNX operators in torch, as far as YOLO detectors and plain CNNs need them (https://onnx.ai/onnx/operators)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.onnx_file import DTYPES

TORCH = {np.dtype(k): v for k, v in (
    ("float32", torch.float32), ("float16", torch.float16), ("float64", torch.float64), ("uint8", torch.uint8), ("int8", torch.int8),
    ("int16", torch.int16), ("int32", torch.int32), ("int64", torch.int64), ("bool", torch.bool),
)}  # fmt: skip
_KINDS = {number: TORCH[np.dtype(kind)] for number, kind in DTYPES.items() if np.dtype(kind) in TORCH}


class Unknown(Exception):
    """A variant of an operator that is not written here."""


def _pads(a: dict[str, Any], x: Tensor, dims: int, kernel: Sequence[int]) -> tuple[list[int], bool]:
    """ONNX (begin…, end…) pads; whether both ends are alike."""
    if len(kernel) != dims:
        raise Unknown(f"pooling over {len(kernel)} axes")
    mode = a.get("auto_pad", b"NOTSET")
    if mode == b"NOTSET":
        pads = a.get("pads") or [0] * (2 * dims)
    elif mode == b"VALID":
        pads = [0] * (2 * dims)
    else:
        strides, dilations = a.get("strides") or [1] * dims, a.get("dilations") or [1] * dims
        sides, reach = x.shape[2:], [(kernel[i] - 1) * dilations[i] + 1 for i in range(dims)]
        total = [max(0, (-(-sides[i] // strides[i]) - 1) * strides[i] + reach[i] - sides[i]) for i in range(dims)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if mode == b"SAME_UPPER" else large + small
    return list(pads), pads[:dims] == pads[dims:]


def _padded(x: Tensor, pads: list[int], dims: int, value: float) -> Tensor:
    order = [side for i in reversed(range(dims)) for side in (pads[i], pads[dims + i])]
    return F.pad(x, order, value=value)


def _conv(a: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    dims = weight.dim() - 2
    pads, even = _pads(a, x, dims, weight.shape[2:])
    if not even:
        x, pads = _padded(x, pads, dims, 0.0), [0] * (2 * dims)
    call = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    return call(x, weight, bias, a.get("strides") or 1, pads[:dims], a.get("dilations") or 1, a.get("group", 1))


def _max_pool(a: dict[str, Any], x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    pads, even = _pads(a, x, 2, kernel)
    if not even:
        x, pads = _padded(x, pads, 2, float("-inf")), [0] * 4
    return F.max_pool2d(x, kernel, a.get("strides") or 1, pads[:2], a.get("dilations") or 1, bool(a.get("ceil_mode", 0)))


def _average_pool(a: dict[str, Any], x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    pads, even = _pads(a, x, 2, kernel)
    if not even:
        raise Unknown("AveragePool with uneven padding")
    if set(a.get("dilations") or [1]) != {1}:
        raise Unknown("AveragePool with dilations")
    return F.avg_pool2d(x, kernel, a.get("strides") or 1, pads[:2], bool(a.get("ceil_mode", 0)), bool(a.get("count_include_pad", 0)))


def _ints(value: Tensor | None) -> list[int]:
    return [] if value is None else [int(v) for v in value.reshape(-1).tolist()]


def _reshape(a: dict[str, Any], x: Tensor, shape: Tensor) -> Tensor:
    sizes = _ints(shape)
    if not a.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _slice(a: dict[str, Any], x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    begin, end = _ints(starts), _ints(ends)
    dims, step = _ints(axes) or list(range(len(begin))), _ints(steps) or [1] * len(begin)
    cut = [slice(None)] * x.dim()
    for b, e, d, s in zip(begin, end, dims, step, strict=True):
        if s < 1:
            raise Unknown("Slice with a negative step")
        cut[d] = slice(b, e, s)
    return x[tuple(cut)]


def _split(a: dict[str, Any], x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, parts = a.get("axis", 0), _ints(sizes) or a.get("split")
    if not parts:
        raise Unknown("Split without sizes")
    return torch.split(x, list(parts), axis)


_HALVES = (b"half_pixel", b"pytorch_half_pixel")
_NEAREST = {(b"asymmetric", b"floor"), *itertools.product(_HALVES, (b"round_prefer_floor", b"round_prefer_ceil"))}
"""What torch's nearest is, by a whole factor."""


def _resize(a: dict[str, Any], x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
    if a.get("axes") or a.get("antialias") or a.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise Unknown("Resize with axes, antialias or keep_aspect_ratio_policy")
    factors = [] if scales is None else scales.tolist()
    exact = _ints(sizes) or [np.float32(side) * np.float32(factor) for side, factor in zip(x.shape, factors, strict=True)]
    target = [int(side) for side in exact]
    if exact != target or target[:2] != list(x.shape[:2]):
        raise Unknown("Resize to sides that are not whole, or of other axes than height and width")  # torch's factor would be another
    mode, transform = a.get("mode", b"nearest"), a.get("coordinate_transformation_mode", b"half_pixel")
    rounding = a.get("nearest_mode", b"round_prefer_floor")
    # To one pixel pytorch_half_pixel takes the first, torch itself the middle.
    if mode == b"linear" and transform in (*_HALVES, b"align_corners") and (transform != b"pytorch_half_pixel" or 1 not in target[2:]):
        return F.interpolate(x, size=target[2:], mode="bilinear", align_corners=transform == b"align_corners")
    if mode == b"nearest" and (transform, rounding) in _NEAREST:
        if any(t % n for t, n in zip(target, x.shape, strict=True)):
            raise Unknown("Resize nearest by a factor that is not whole")
        return F.interpolate(x, size=target[2:], mode="nearest")
    raise Unknown(f"Resize in the mode {mode.decode()} {transform.decode()} {rounding.decode()}")


def _reduce(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(a: dict[str, Any], x: Tensor, axes: Tensor | None = None) -> Tensor:
        dims = _ints(axes) or a.get("axes") or ([] if a.get("noop_with_empty_axes") else list(range(x.dim())))
        return call(x, dim=list(dims), keepdim=bool(a.get("keepdims", 1))) if dims else x

    return run


def _gemm(a: dict[str, Any], x: Tensor, y: Tensor, c: Tensor | None = None) -> Tensor:
    x = x.t() if a.get("transA") else x
    y = y.t() if a.get("transB") else y
    out = a.get("alpha", 1.0) * (x @ y) if a.get("alpha", 1.0) != 1 else x @ y
    return out if c is None else out + a.get("beta", 1.0) * c


def _gather(a: dict[str, Any], x: Tensor, index: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.dim()
    index = torch.where(index < 0, index + x.shape[axis], index).to(x.device)
    return torch.index_select(x, axis, index.reshape(-1).long()).reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _unsqueeze(a: dict[str, Any], x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = _ints(axes) or a["axes"]
    for d in sorted(d % (x.dim() + len(dims)) for d in dims):
        x = x.unsqueeze(d)
    return x


def _squeeze(a: dict[str, Any], x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = _ints(axes) or a.get("axes")
    return x.squeeze(tuple(dims)) if dims else x.squeeze()


def _divide(a: dict[str, Any], x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _flatten(a: dict[str, Any], x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _batch_norm(a: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, a.get("epsilon", 1e-5))


def _clip(a: dict[str, Any], x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x.clamp(a.get("min") if low is None else float(low), a.get("max") if high is None else float(high))


OPS: dict[str, Callable[..., Any]] = {
    "Add": lambda a, x, y: x + y, "Sub": lambda a, x, y: x - y, "Mul": lambda a, x, y: x * y, "Div": _divide,
    "Pow": lambda a, x, y: x ** y.to(x.dtype), "Sqrt": lambda a, x: x.sqrt(), "Exp": lambda a, x: x.exp(), "Log": lambda a, x: x.log(),
    "Neg": lambda a, x: -x, "Abs": lambda a, x: x.abs(), "Relu": lambda a, x: x.relu(), "Sigmoid": lambda a, x: x.sigmoid(),
    "Tanh": lambda a, x: x.tanh(), "Erf": lambda a, x: x.erf(), "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "HardSwish": lambda a, x: F.hardswish(x), "HardSigmoid": lambda a, x: (x * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "PRelu": lambda a, x, slope: torch.where(x < 0, x * slope, x), "Clip": _clip, "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "Identity": lambda a, x: x, "Dropout": lambda a, x, *_: x, "Cast": lambda a, x: x.to(_KINDS[a["to"]]),
    "Conv": _conv, "MaxPool": _max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "Gemm": _gemm, "MatMul": lambda a, x, y: x @ y, "BatchNormalization": _batch_norm,
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]), "Split": _split, "Slice": _slice, "Reshape": _reshape, "Flatten": _flatten,
    "Transpose": lambda a, x: x.permute(a.get("perm") or list(reversed(range(x.dim())))), "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Expand": lambda a, x, shape: x.broadcast_to(torch.broadcast_shapes(x.shape, tuple(_ints(shape)))), "Gather": _gather,
    "Resize": _resize, "ReduceMean": _reduce(torch.mean), "ReduceSum": _reduce(torch.sum), "ReduceMax": _reduce(torch.amax),
    "Range": lambda a, start, stop, step: torch.arange(start.item(), stop.item(), step.item(), dtype=start.dtype),
    "ConstantOfShape": lambda a, shape: torch.full(_ints(shape), np.asarray(a.get("value", 0.0)).reshape(-1)[0].item(),
                                                   dtype=TORCH[np.asarray(a.get("value", np.float32(0))).dtype]),
    "Equal": lambda a, x, y: x == y, "Where": lambda a, c, x, y: torch.where(c, x, y),
}  # fmt: skip
"""What this backend knows. Enough for YOLO detectors and plain CNNs; the rest is told to use another backend."""

ON_HOST = {
    "Reshape": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Resize": (1, 2, 3), "Expand": (1,), "ReduceMean": (1,), "ReduceSum": (1,),
    "ReduceMax": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Clip": (1, 2),
}  # fmt: skip
"""Inputs that are sizes and indices: torch wants them as numbers."""
