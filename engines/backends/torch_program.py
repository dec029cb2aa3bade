"""Runs an ONNX graph with torch's own operators: the same file as every other backend, no pickle, no second set of weights.

The graph is specialised per input shape. The first run executes every node; what depends on weights and shapes alone (most
of an exported detector's 780 nodes) is computed then, once. What is left is a flat list of torch calls, which later runs
replay.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.errors import EngineError
from engines.onnx_file import DTYPES, Node, OnnxFile

_TORCH = {np.dtype(k): v for k, v in (
    ("float32", torch.float32), ("float16", torch.float16), ("float64", torch.float64), ("uint8", torch.uint8), ("int8", torch.int8),
    ("int16", torch.int16), ("int32", torch.int32), ("int64", torch.int64), ("bool", torch.bool),
)}  # fmt: skip
_KINDS = {number: _TORCH[np.dtype(kind)] for number, kind in DTYPES.items() if np.dtype(kind) in _TORCH}


_MOST_PLANS = 64
"""Most input shapes kept; each is a short list and holds no weights."""


class _Unknown(Exception):
    """A variant of an operator that is not written here."""


def _pads(a: dict[str, Any], x: Tensor, dims: int, kernel: Sequence[int]) -> tuple[list[int], bool]:
    """ONNX (begin…, end…) pads; whether both ends are alike."""
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
        raise _Unknown("AveragePool with uneven padding")
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
            raise _Unknown("Slice with a negative step")
        cut[d] = slice(b, e, s)
    return x[tuple(cut)]


def _split(a: dict[str, Any], x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, parts = a.get("axis", 0), _ints(sizes) or a.get("split")
    if not parts:
        raise _Unknown("Split without sizes")
    return torch.split(x, list(parts), axis)


def _resize(a: dict[str, Any], x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
    target = _ints(sizes)[2:]
    if not target and scales is not None:
        target = [int(side * scale) for side, scale in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
    mode = a.get("mode", b"nearest")
    transform = a.get("coordinate_transformation_mode", b"half_pixel")
    if mode == b"nearest":
        if transform == b"asymmetric" and a.get("nearest_mode", b"round_prefer_floor") != b"floor":
            raise _Unknown("Resize nearest with that rounding")
        if any(t % n for t, n in zip(target, x.shape[2:], strict=True)):
            raise _Unknown("Resize nearest by a factor that is not whole")
        return F.interpolate(x, size=target, mode="nearest")
    if mode == b"linear" and transform in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        return F.interpolate(x, size=target, mode="bilinear", align_corners=transform == b"align_corners")
    raise _Unknown(f"Resize in the mode {mode.decode()} {transform.decode()}")


def _reduce(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(a: dict[str, Any], x: Tensor, axes: Tensor | None = None) -> Tensor:
        dims = _ints(axes) or a.get("axes") or list(range(x.dim()))
        return call(x, dim=list(dims), keepdim=bool(a.get("keepdims", 1)))

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
    "Conv": _conv, "MaxPool": _max_pool, "AveragePool": _average_pool, "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "Gemm": _gemm, "MatMul": lambda a, x, y: x @ y, "BatchNormalization": _batch_norm,
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]), "Split": _split, "Slice": _slice, "Reshape": _reshape, "Flatten": _flatten,
    "Transpose": lambda a, x: x.permute(a.get("perm") or list(reversed(range(x.dim())))), "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Expand": lambda a, x, shape: x.broadcast_to(torch.broadcast_shapes(x.shape, tuple(_ints(shape)))), "Gather": _gather,
    "Resize": _resize, "ReduceMean": _reduce(torch.mean), "ReduceSum": _reduce(torch.sum), "ReduceMax": _reduce(torch.amax),
    "Range": lambda a, start, stop, step: torch.arange(start.item(), stop.item(), step.item(), dtype=start.dtype),
    "ConstantOfShape": lambda a, shape: torch.full(_ints(shape), np.asarray(a.get("value", 0.0)).reshape(-1)[0].item(),
                                                   dtype=_TORCH[np.asarray(a.get("value", np.float32(0))).dtype]),
    "Equal": lambda a, x, y: x == y, "Where": lambda a, c, x, y: torch.where(c, x, y),
}  # fmt: skip
"""What this backend knows. Enough for YOLO detectors and plain CNNs; the rest is told to use another backend."""

_ON_HOST = {
    "Reshape": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Resize": (1, 2, 3), "Expand": (1,), "ReduceMean": (1,), "ReduceSum": (1,),
    "ReduceMax": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Clip": (1, 2),
}  # fmt: skip
"""Inputs that are sizes and indices: torch wants them as numbers."""


@dataclass(frozen=True)
class _Step:
    call: Callable[..., Any]
    attributes: dict[str, Any]
    arguments: tuple[Any, ...]
    """str: a value of this run; anything else: a constant."""
    outputs: tuple[str, ...]
    done_with: tuple[str, ...]
    """Values that nothing needs after this step."""


class OnnxProgram:
    """An ONNX graph on a torch device. Not thread-safe while it meets a new shape: the caller holds a lock for `prepare`."""

    def __init__(self, graph: OnnxFile, device: torch.device) -> None:
        unknown = sorted({node.op for node in graph.nodes if (node.op not in OPS and node.op not in ("Constant", "Shape")) or node.domain})
        if unknown:
            raise EngineError(f"the backend torch does not know the operators {', '.join(unknown)}; use backend openvino or onnxruntime")
        if graph.opset < 13:
            raise EngineError(f"the backend torch reads ONNX opset 13 and later, got {graph.opset}; use backend openvino or onnxruntime")
        self._graph, self._device = graph, device
        self._constants: dict[str, Any] = {"": None}  # "" is an optional input left out
        self._constants.update((name, torch.from_numpy(np.array(value))) for name, value in graph.initializers.items())
        self._moved: dict[str, Tensor] = {}
        self._plans: OrderedDict[tuple[tuple[int, ...], ...], list[_Step]] = OrderedDict()
        self._nodes = [node for node in graph.nodes if not self._fold(node)]

    def prepare(self, shapes: tuple[tuple[int, ...], ...]) -> list[_Step]:
        """The list of calls for these input shapes, made at their first use from a run on zeros."""
        if shapes not in self._plans:
            dtypes = [_TORCH[np.dtype(tensor.dtype)] for tensor in self._graph.inputs]
            values = {
                tensor.name: torch.zeros(shape, dtype=dtype, device=self._device)
                for tensor, shape, dtype in zip(self._graph.inputs, shapes, dtypes, strict=True)
            }
            self._plans[shapes] = self._plan(values)
            if len(self._plans) > _MOST_PLANS:
                self._plans.popitem(last=False)
        return self._plans[shapes]

    def run(self, plan: list[_Step], inputs: Sequence[Tensor]) -> list[Tensor]:
        """One tensor per output of the graph."""
        values: dict[str, Any] = {tensor.name: value for tensor, value in zip(self._graph.inputs, inputs, strict=True)}
        for step in plan:
            answer = step.call(step.attributes, *(values[x] if isinstance(x, str) else x for x in step.arguments))
            if len(step.outputs) == 1:
                values[step.outputs[0]] = answer
            else:
                values.update(zip(step.outputs, answer, strict=True))
            for name in step.done_with:
                del values[name]
        return [values[tensor.name] for tensor in self._graph.outputs]

    def _fold(self, node: Node) -> bool:
        """Computes a node that depends on constants alone; whether it did."""
        if node.op == "Constant":
            self._constants[node.outputs[0]] = torch.from_numpy(np.array(next(iter(node.attributes.values()))))
            return True
        if node.op == "Shape" or not all(name in self._constants for name in node.inputs):
            return False
        with _told_as_engine_error(node):
            self._constants.update(_named(node, OPS[node.op](node.attributes, *(self._constants[name] for name in node.inputs))))
        return True

    def _plan(self, values: dict[str, Any]) -> list[_Step]:
        """`values`: the inputs. Adds every value that depends on them."""
        known: dict[str, Any] = {}  # depends on the shapes alone
        steps: list[_Step] = []
        for node in self._nodes:
            with _told_as_engine_error(node):
                self._visit(node, known, values, steps)
        needed = {tensor.name for tensor in self._graph.outputs}
        missing = needed - set(values)
        if missing:
            raise EngineError(f"the outputs {', '.join(sorted(missing))} do not depend on the input; this is not a model to run")
        return _with_lifetimes(steps, needed)

    def _visit(self, node: Node, known: dict[str, Any], values: dict[str, Any], steps: list[_Step]) -> None:
        def constant(name: str) -> Any:
            return known[name] if name in known else self._constants[name]

        if node.op == "Shape":
            source = node.inputs[0]
            shape = list((values[source] if source in values else constant(source)).shape)
            known[node.outputs[0]] = torch.tensor(shape[node.attributes.get("start", 0) : node.attributes.get("end")], dtype=torch.int64)
            return
        call = OPS[node.op]
        if not any(name in values for name in node.inputs):
            known.update(_named(node, call(node.attributes, *(constant(name) for name in node.inputs))))
            return
        host = _ON_HOST.get(node.op, ())
        arguments: list[Any] = []
        for i, name in enumerate(node.inputs):
            if name not in values:
                arguments.append(constant(name) if i in host else self._on_device(name, constant(name)))
            elif i in host:
                raise _Unknown(f"{node.op} with sizes that depend on the picture")
            else:
                arguments.append(name)
        answers = _named(node, call(node.attributes, *(values[x] if isinstance(x, str) else x for x in arguments)))
        values.update(answers)
        steps.append(_Step(call, node.attributes, tuple(arguments), tuple(answers), ()))

    def _on_device(self, name: str, value: Tensor | None) -> Tensor | None:
        """A constant where the pictures are; weights are moved once, whatever the number of shapes."""
        if value is None or self._device.type == "cpu":
            return value
        if name not in self._constants:
            return value.to(self._device)
        if name not in self._moved:
            self._moved[name] = value.to(self._device)
        return self._moved[name]


def _named(node: Node, answer: Any) -> dict[str, Tensor]:
    """What a node computed, by name."""
    return dict(zip(node.outputs, (answer,) if isinstance(answer, Tensor) else answer, strict=True))


@contextlib.contextmanager
def _told_as_engine_error(node: Node) -> Iterator[None]:
    try:
        yield
    except _Unknown as error:
        raise EngineError(f"the backend torch does not know {error}; use backend openvino or onnxruntime") from error
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise EngineError(f"torch cannot run {node.op} {node.name} ({reason}); use backend openvino or onnxruntime") from error


def _with_lifetimes(steps: list[_Step], needed: set[str]) -> list[_Step]:
    last: dict[str, int] = {}
    for i, step in enumerate(steps):
        for name in (*step.outputs, *(x for x in step.arguments if isinstance(x, str))):
            last[name] = i
    return [
        _Step(s.call, s.attributes, s.arguments, s.outputs, tuple(sorted(n for n, at in last.items() if at == i and n not in needed)))
        for i, s in enumerate(steps)
    ]
