"""ONNX files made by hand, without the onnx package: what a protobuf writer of twenty lines can do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


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


@pytest.fixture
def small_classifier(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX: mean grey level times (0, 1/255, 2/255 …) as logits, or as probabilities after a softmax."""

    def write(columns: int = 7, size: int = 40, channels: int = 1, kind: int = 2, softmax: bool = False, **metadata: str) -> Path:
        weights = np.tile(np.arange(columns, dtype=np.float32) / 255 / channels, (channels, 1))
        nodes = [
            node("Cast", ["faces"], ["x"], to=1), node("GlobalAveragePool", ["x"], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"], axis=1), node("MatMul", ["flat", "w"], ["logits"]),
        ]  # fmt: skip
        if softmax:
            nodes.append(node("Softmax", ["logits"], ["probabilities"], axis=1))
        outputs = [value_info("probabilities" if softmax else "logits", 1, (None, columns))]
        path = tmp_path / f"c{columns}_{size}_{channels}_{kind}_{softmax}.onnx"
        path.write_bytes(
            model(nodes, [tensor("w", weights)], [value_info("faces", kind, (None, channels, size, size))], outputs, metadata)
        )
        return path

    return write


@pytest.fixture
def float_detector(tmp_path: Path) -> Path:
    """(1, 3, 64, 64) float 0…1 in, (1, 5, 1) out: a white picture is a face of 16 pixels in the middle, score .9."""
    weights = np.repeat(np.array([32, 32, 16, 16, 0.9], np.float32) / 3, 3).reshape(5, 3, 1, 1)
    nodes = [
        node("GlobalAveragePool", ["images"], ["pooled"]), node("Conv", ["pooled", "w"], ["found"]),
        node("Reshape", ["found", "shape"], ["output0"]),
    ]  # fmt: skip
    constants = [tensor("w", weights), tensor("shape", np.array([1, 5, 1], np.int64))]
    path = tmp_path / "float.onnx"
    path.write_bytes(model(nodes, constants, [value_info("images", 1, (1, 3, 64, 64))], [value_info("output0", 1, (1, 5, 1))]))
    return path


@pytest.fixture
def absurd_onnx(tmp_path: Path) -> Path:
    """200 bytes that ask for an array of 2^60 values."""
    nodes = [node("ConstantOfShape", ["size"], ["y"]), node("Identity", ["images"], ["z"])]
    path = tmp_path / "absurd.onnx"
    inputs, outputs = [value_info("images", 2, (None, 32, 32, 3))], [value_info("y", 1, (None, 5, None))]
    path.write_bytes(model(nodes, [tensor("size", np.array([2**30, 2**30], np.int64))], inputs, outputs))
    return path


@pytest.fixture
def external_onnx(tmp_path: Path) -> Path:
    """Weights that say they lie in another file."""
    outside = message((1, 4), (2, 1), (8, "w"), (13, message((1, "location"), (2, "/etc/hostname"))), (14, 1))
    path = tmp_path / "external.onnx"
    nodes = [node("MatMul", ["faces", "w"], ["y"])]
    path.write_bytes(model(nodes, [outside], [value_info("faces", 1, (None, 1, 40, 40))], [value_info("y", 1, (None, 7))]))
    return path


@pytest.fixture(scope="session")
def detector():
    """The shipped detector, loaded once."""
    from engines import load_detector

    return load_detector()


@pytest.fixture(scope="session")
def classifier():
    """The shipped classifier, loaded once."""
    from engines import load_classifier

    return load_classifier()
