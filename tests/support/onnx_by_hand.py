"""ONNX files made by hand, without the onnx package: what a protobuf writer of twenty lines can do."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from engines.protobuf import Budget, fields


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def message(*fields: tuple[int, Any]) -> bytes:
    """Protobuf of (number, int | str | bytes | float)."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


KINDS = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int64): 7, np.dtype(np.float16): 10}


def tensor(name: str, array: np.ndarray) -> bytes:
    return message(*((1, size) for size in array.shape), (2, KINDS[array.dtype]), (8, name), (9, array.tobytes()))


def node(op: str, inputs: list[str], outputs: list[str], **attributes: int) -> bytes:
    settings = [(5, message((1, key), (3, value), (20, 2))) for key, value in attributes.items()]
    return message(*((1, name) for name in inputs), *((2, name) for name in outputs), (3, outputs[0]), (4, op), *settings)


def value_info(name: str, kind: int, shape: tuple[int | None, ...]) -> bytes:
    dims = [(1, message((1, size)) if size else message((2, "n"))) for size in shape]
    return message((1, name), (2, message((1, message((1, kind), (2, message(*dims)))))))


def model(
    nodes: list[bytes], weights: list[bytes], inputs: list[bytes], outputs: list[bytes], metadata: dict[str, str] | None = None
) -> bytes:
    graph = message(
        *((1, n) for n in nodes), (2, "g"), *((5, w) for w in weights), *((11, i) for i in inputs), *((12, o) for o in outputs)
    )
    props = [(14, message((1, key), (2, value))) for key, value in (metadata or {}).items()]
    return message((1, 8), (7, graph), (8, message((1, ""), (2, 17))), *props)


def classifier(path: Path, columns: int, size: int = 40, channels: int = 1, kind: int = 2, softmax: bool = False, tail: str = "",
               **metadata: str) -> Path:  # fmt: skip
    """Mean grey level times (0, 1/255, 2/255 …) as logits, or as probabilities after a softmax; `tail`: an operator behind them."""
    weights = np.tile(np.arange(columns, dtype=np.float32) / 255 / channels, (channels, 1))
    nodes = [
        node("Cast", ["faces"], ["x"], to=1), node("GlobalAveragePool", ["x"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"], axis=1), node("MatMul", ["flat", "w"], ["logits"]),
    ]  # fmt: skip
    if softmax:
        nodes.append(node("Softmax", ["logits"], ["probabilities"], axis=1))
    last = "probabilities" if softmax else "logits"
    if tail:
        nodes.append(node(tail, [last], ["answer"], **{"Cast": {"to": 1}, "Flatten": {"axis": 1}}.get(tail, {})))
    outputs = [value_info("answer" if tail else last, 1, (None, columns))]
    faces = value_info("faces", kind, (None, channels, size, size))
    path.write_bytes(model(nodes, [tensor("w", weights)], [faces], outputs, metadata))
    return path


def as_ultralytics_exports(shipped: Path, path: Path, size: tuple[int, int] | None = None) -> Path:
    """Our detector without its first steps: (1, 3, H, W) float 0…1 in, as `yolo export format=onnx` makes it.

    `size`: (width, height) that are fixed in the file; None: free ("dynamic=True").
    """
    budget = Budget()
    top = list(fields(memoryview(shipped.read_bytes()), budget))
    graph = [(number, bytes(value)) for number, value in fields(dict(top)[7], budget)]

    def names(node_bytes: bytes, which: int) -> list[str]:
        return [bytes(value).decode() for number, value in fields(memoryview(node_bytes), Budget()) if number == which]

    here, gone = "images", []
    while True:
        step = next(value for number, value in graph if number == 1 and here in names(value, 1))
        if names(step, 4) == ["Conv"]:
            break
        gone.append(step)
        (here,) = names(step, 2)
    width, height = size or (None, None)
    head = (11, value_info(here, 1, (1 if size else None, 3, height, width)))
    kept = [head if number == 11 else (number, value) for number, value in graph if value not in gone]
    path.write_bytes(message(*((number, message(*kept) if number == 7 else value) for number, value in top if number != 14)))
    return path
