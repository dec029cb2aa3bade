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
from torch import Tensor

from engines.backends.torch_ops import ON_HOST, OPS, TORCH, Unknown
from engines.errors import EngineError
from engines.onnx_file import Node, OnnxFile

_MOST_PLANS = 64
"""Most input shapes kept; each is a short list and holds no weights."""


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

    def __init__(self, graph: OnnxFile, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """`dtype`: what convolutions and matrix products compute in, where the caller has autocast on for it; None = the graph's."""
        unknown = sorted({node.op for node in graph.nodes if (node.op not in OPS and node.op not in ("Constant", "Shape")) or node.domain})
        if unknown:
            raise EngineError(f"the backend torch does not know the operators {', '.join(unknown)}; use backend openvino or onnxruntime")
        if graph.opset < 13:
            raise EngineError(f"the backend torch reads ONNX opset 13 and later, got {graph.opset}; use backend openvino or onnxruntime")
        self._graph, self._device, self._dtype = graph, device, dtype
        self._constants: dict[str, Any] = {"": None}  # "" is an optional input left out
        self._constants.update((name, torch.from_numpy(np.array(value))) for name, value in graph.initializers.items())
        self._moved: dict[str, Tensor] = {}
        self._plans: OrderedDict[tuple[tuple[int, ...], ...], list[_Step]] = OrderedDict()
        self._nodes = [node for node in graph.nodes if not self._fold(node)]

    def prepare(self, shapes: tuple[tuple[int, ...], ...]) -> list[_Step]:
        """The list of calls for these input shapes, made at their first use from a run on zeros."""
        if shapes not in self._plans:
            self._plans[shapes] = self._plan({i.name: zeros for i, zeros in zip(self._graph.inputs, self.zeros(shapes), strict=True)})
            if len(self._plans) > _MOST_PLANS:
                self._plans.popitem(last=False)
        return self._plans[shapes]

    def zeros(self, shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
        """Inputs of these shapes, on the device."""
        dtypes = [TORCH[np.dtype(tensor.dtype)] for tensor in self._graph.inputs]
        return [torch.zeros(shape, dtype=dtype, device=self._device) for shape, dtype in zip(shapes, dtypes, strict=True)]

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
        if node.op == "Shape" or not all(name in self._constants for name in node.inputs):
            return False
        with _told_as_engine_error(node):
            if node.op == "Constant":
                (value,) = node.attributes.values()
                answer = torch.from_numpy(np.array(value))
            else:
                answer = OPS[node.op](node.attributes, *(self._constants[name] for name in node.inputs))
            self._constants.update(_named(node, answer))
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
        host = ON_HOST.get(node.op, ())
        arguments: list[Any] = []
        for i, name in enumerate(node.inputs):
            if name not in values:
                arguments.append(constant(name) if i in host else self._on_device(name, constant(name), node.op, i))
            elif i in host:
                raise Unknown(f"{node.op} with sizes that depend on the picture")
            else:
                arguments.append(name)
        answers = _named(node, call(node.attributes, *(values[x] if isinstance(x, str) else x for x in arguments)))
        values.update(answers)
        steps.append(_Step(call, node.attributes, tuple(arguments), tuple(answers), ()))

    def _on_device(self, name: str, value: Tensor | None, op: str, index: int) -> Tensor | None:
        """A constant where the pictures are; weights are moved once, whatever the number of shapes.

        Weights of convolutions are laid out channels-last: what tensor cores and oneDNN compute in, and what a picture (N, H, W, 3)
        is already. Those of a lower precision are rounded here, as autocast would do it anew in every run.
        """
        if value is None:
            return None
        key = f"{name} {op}" if index == 1 else name
        if key in self._moved:
            return self._moved[key]
        kernel = index == 1 and op == "Conv" and value.dim() == 4
        rounded = self._dtype if index == 1 and op in ("Conv", "Gemm", "MatMul") and value.is_floating_point() else None
        moved = value.to(self._device, rounded, memory_format=torch.channels_last if kernel else torch.preserve_format)
        if name in self._constants:
            self._moved[key] = moved
        return moved


def _named(node: Node, answer: Any) -> dict[str, Tensor]:
    """What a node computed, by name."""
    return dict(zip(node.outputs, (answer,) if isinstance(answer, Tensor) else answer, strict=True))


@contextlib.contextmanager
def _told_as_engine_error(node: Node) -> Iterator[None]:
    try:
        yield
    except Unknown as error:
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
