"""Reads an ONNX file's structure without the onnx package, and refuses what should never reach native code.

An ONNX file is one protobuf message; the few fields that matter here are read straight from the wire format
(see protobuf.py; field numbers from onnx.proto3). Weights are views into the mapped
file, so a file is inspected in milliseconds whatever its size. It serves three purposes: a clear sentence for a corrupt or
hostile file, the metadata and tensor names of a user's model, and the graph for the torch backend.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engines import protobuf
from engines.errors import ModelError

DTYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64, 12: np.uint32, 13: np.uint64,
}
"""TensorProto.DataType -> numpy."""

_MOST_BYTES = 2**31
"""protobuf's own limit."""
_MOST_ELEMENTS = 2**28
"""A constant that a node makes may not be larger: a file of 200 bytes can ask for a terabyte."""


@dataclass(frozen=True)
class Tensor:
    """A graph input or output."""

    name: str
    dtype: Any
    """numpy dtype, None where the file has another kind."""
    shape: tuple[int | None, ...]
    """None: free."""


@dataclass(frozen=True)
class Node:
    """One operator call."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    domain: str = ""


@dataclass(frozen=True)
class OnnxFile:
    """The structure of one file."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    initializers: dict[str, np.ndarray]
    opset: int
    metadata: dict[str, str] = field(default_factory=dict)

    def producer(self, output: str) -> Node | None:
        """The node that writes `output`."""
        return next((node for node in self.nodes if output in node.outputs), None)


def read_onnx(path: Path) -> OnnxFile:
    """Reads and checks `path`. Raises ModelError with one sentence where it is not a plain ONNX network."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size == 0:
            raise ModelError(f"{path} is empty; expected an ONNX model, perhaps a download broke off")
        if size >= _MOST_BYTES:
            raise ModelError(f"{path} has {size / 1e9:.1f} GB; an ONNX file ends at 2 GB, so this is none")
        with path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the model {path}: {getattr(error, 'strerror', None) or error}") from error
    if bytes(view[:64]).startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a Git LFS pointer, not the model; run: git lfs pull")
    try:
        return _model(view, protobuf.Budget())
    except ModelError as error:
        raise ModelError(f"{path} {error}") from error
    except (ValueError, IndexError, KeyError, struct.error, OverflowError, TypeError, MemoryError) as error:
        raise ModelError(f"{path} is not an ONNX model (unreadable as protobuf); give an .onnx file, or fetch it again") from error


def _model(view: memoryview, budget: protobuf.Budget) -> OnnxFile:
    graph, opset, metadata = None, 0, {}
    for number, value in protobuf.fields(view, budget):
        if number == 7:
            graph = value
        elif number == 8:
            parts = dict(protobuf.fields(value, budget))
            if not protobuf.text(parts.get(1, b"")):
                opset = int(parts.get(2, 0))
        elif number == 14:
            parts = dict(protobuf.fields(value, budget))
            metadata[protobuf.text(parts.get(1, b""))] = protobuf.text(parts.get(2, b""))
    if graph is None or not opset:
        raise ValueError("no graph")
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    nodes: list[Node] = []
    initializers: dict[str, np.ndarray] = {}
    for number, value in protobuf.fields(graph, budget):
        if number == 1:
            nodes.append(_node(value, budget))
        elif number == 5:
            name, array = _tensor(value, budget)
            initializers[name] = array
        elif number == 11:
            inputs.append(_value_info(value, budget))
        elif number == 12:
            outputs.append(_value_info(value, budget))
    inputs = [tensor for tensor in inputs if tensor.name not in initializers]  # old files list weights as inputs too
    if not nodes or not inputs or not outputs:
        raise ModelError("has no network in it (no nodes, inputs or outputs); it is not a model to run")
    _refuse_absurd_sizes(nodes, initializers)
    return OnnxFile(tuple(inputs), tuple(outputs), tuple(nodes), initializers, opset, metadata)


def _refuse_absurd_sizes(nodes: list[Node], initializers: dict[str, np.ndarray]) -> None:
    constants = dict(initializers)
    for node in nodes:
        if node.op == "Constant" and node.outputs and node.attributes:
            constants[node.outputs[0]] = np.asarray(next(iter(node.attributes.values())))
    for node in nodes:
        if node.op in ("ConstantOfShape", "Expand", "Tile", "Resize", "Upsample", "Pad"):
            sizes = [constants[name] for name in node.inputs if name in constants and constants[name].dtype.kind == "i"]
            if any(abs(float(np.prod(size.astype(np.float64)))) > _MOST_ELEMENTS for size in sizes):
                raise ModelError(f"asks for an array of absurd size ({node.op} {node.name}); it is not a model to load")


def _node(view: memoryview, budget: protobuf.Budget) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: dict[str, Any] = {}
    op = name = domain = ""
    for number, value in protobuf.fields(view, budget):
        if number == 1:
            inputs.append(protobuf.text(value))
        elif number == 2:
            outputs.append(protobuf.text(value))
        elif number == 3:
            name = protobuf.text(value)
        elif number == 4:
            op = protobuf.text(value)
        elif number == 5:
            key, setting = _attribute(value, budget)
            attributes[key] = setting
        elif number == 7:
            domain = protobuf.text(value)
    return Node(op, name, tuple(inputs), tuple(outputs), attributes, domain)


def _attribute(view: memoryview, budget: protobuf.Budget) -> tuple[str, Any]:
    name, kind, single, ints, floats = "", 0, None, [], []
    for number, value in protobuf.fields(view, budget):
        if number == 1:
            name = protobuf.text(value)
        elif number == 20:
            kind = value
        elif number == 2:
            single = struct.unpack("<f", value)[0]
        elif number == 3:
            single = protobuf.signed(value)
        elif number == 4:
            single = bytes(memoryview(value))
        elif number == 5:
            single = _tensor(value, budget)[1]
        elif number == 7:
            floats += list(np.frombuffer(value, "<f4"))
        elif number == 8:
            ints += protobuf.ints(value)
    return name, {6: floats, 7: ints}.get(kind, single)


def _tensor(view: memoryview, budget: protobuf.Budget) -> tuple[str, np.ndarray]:
    dims: list[int] = []
    name, kind, raw = "", 0, None
    typed: list[Any] = []
    for number, value in protobuf.fields(view, budget):
        if number == 1:
            dims += protobuf.ints(value)
        elif number == 2:
            kind = value
        elif number == 8:
            name = protobuf.text(value)
        elif number == 9:
            raw = value
        elif number == 13 or (number == 14 and value == 1):
            raise ModelError("keeps its weights in another file, which is not followed; save it as one file")
        elif number == 4:
            typed += list(np.frombuffer(value, "<f4"))
        elif number in (5, 7, 11):
            typed += protobuf.ints(value)
        elif number == 10:
            typed += list(np.frombuffer(value, "<f8"))
    if kind not in DTYPES:
        return name, np.zeros(0, np.float32)  # strings, 4-bit numbers: no operator here reads them
    dtype = np.dtype(DTYPES[kind])
    count = 1
    for size in dims:
        if size < 0:
            raise ValueError("negative size")
        count *= size
    if raw is not None:
        if len(raw) != count * dtype.itemsize:
            raise ValueError("weights of another size than announced")
        return name, np.frombuffer(raw, dtype).reshape(dims)
    if len(typed) != count:
        raise ValueError("weights of another size than announced")
    if dtype == np.float16:  # stored as the 16 bits of each number
        return name, np.array(typed, np.uint16).view(np.float16).reshape(dims)
    return name, np.array(typed).astype(dtype).reshape(dims)


def _value_info(view: memoryview, budget: protobuf.Budget) -> Tensor:
    name, dtype, shape = "", None, []
    for number, value in protobuf.fields(view, budget):
        if number == 1:
            name = protobuf.text(value)
        elif number == 2:
            for kind, tensor_type in protobuf.fields(value, budget):
                if kind != 1:
                    continue
                for part, inner in protobuf.fields(tensor_type, budget):
                    if part == 1:
                        dtype = DTYPES.get(inner)
                    elif part == 2:
                        for _, dim in protobuf.fields(inner, budget):
                            parts = dict(protobuf.fields(dim, budget))
                            size = protobuf.signed(parts[1]) if 1 in parts else None
                            shape.append(size if size and size > 0 else None)
    return Tensor(name, dtype, tuple(shape))


def ends_in_softmax(parsed: OnnxFile, output: int) -> bool:
    """Whether that output is probabilities already; behind the softmax may stand what changes no values."""
    node = parsed.producer(parsed.outputs[output].name)
    while node is not None and node.op in ("Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze"):
        node = parsed.producer(node.inputs[0])
    return node is not None and node.op == "Softmax"


def labels_in(metadata: dict[str, str]) -> tuple[str, ...] | None:
    """Class names from a file's metadata: `labels` or Ultralytics' `names`, as a JSON list, a mapping by index or to it, or comma-separated
    text; None where there are none, or none that can be read."""
    import ast

    text = metadata.get("labels") or metadata.get("names")
    if not text or len(text) > 100_000:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            value = _in_order(value)
        if isinstance(value, list | tuple) and all(isinstance(label, str) for label in value):
            return tuple(value)
    return tuple(part.strip() for part in text.split(",")) if "," in text and text.strip()[:1] not in ("[", "{", "(") else None


def _in_order(names: dict[Any, Any]) -> list[Any] | None:
    """The names of a mapping by index 0, 1 … or to it; None where it is neither."""
    for pairs in (names.items(), ((index, name) for name, index in names.items())):
        with contextlib.suppress(TypeError, ValueError, OverflowError, KeyError):
            places = {int(index): name for index, name in pairs}
            return [places[index] for index in range(len(names))]
    return None
