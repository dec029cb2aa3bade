"""Models for tests: made by hand (support/onnx_by_hand.py), broken on purpose, or ours, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_by_hand
import pytest
from onnx_by_hand import message, model, node, tensor, value_info


@pytest.fixture
def small_classifier(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX: mean grey level times (0, 1/255, 2/255 …) as logits, or as probabilities after a softmax."""

    def write(columns: int = 7, size: int = 40, channels: int = 1, kind: int = 2, softmax: bool = False, **metadata: str) -> Path:
        path = tmp_path / f"c{columns}_{size}_{channels}_{kind}_{softmax}.onnx"
        return onnx_by_hand.classifier(path, columns, size, channels, kind, softmax, **metadata)

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
def small_scrfd(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX: (1, 3, 64, 64) float in, scores (anchors, 1) and boxes (anchors, 4) out, as InsightFace exports them, without an
    axis of the batch: a white picture is a face of 32 pixels in the middle, score .9. `widths`: others make it no SCRFD, `stated` or not.
    """

    def write(widths: tuple[int, int] = (1, 4), stated: bool = True) -> Path:
        nodes, constants, outputs = [node("GlobalAveragePool", ["images"], ["m"]), node("Flatten", ["m"], ["flat"], axis=1)], [], []
        for stride in (8, 16, 32):
            for width in widths:
                anchors, name = 2 * (64 // stride) ** 2, f"{stride}_{width}"
                weights = np.zeros((3, anchors, width), np.float32)
                if stride == 32:
                    weights[:, 6] = {1: 0.3, 4: 0.5 / 3}.get(width, 0)
                shape = np.array([anchors, width], np.int64)
                constants += [tensor(f"w{name}", weights.reshape(3, -1)), tensor(f"s{name}", shape)]
                nodes += [node("MatMul", ["flat", f"w{name}"], [f"x{name}"]), node("Reshape", [f"x{name}", f"s{name}"], [name])]
                outputs.append(value_info(name, 1, (anchors, width) if stated else (None, None)))
        path = tmp_path / f"scrfd_{widths}_{stated}.onnx"
        path.write_bytes(model(nodes, constants, [value_info("images", 1, (1, 3, 64, 64))], outputs))
        return path

    return write


@pytest.fixture
def white_pictures(tmp_path: Path) -> Path:
    """A folder to calibrate with."""
    import cv2

    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "white.png"), np.full((128, 128, 3), 255, np.uint8))
    return folder


@pytest.fixture
def sensitive_classifier(tmp_path: Path) -> Path:
    """Its labels hang on weights that differ by less than fp16's steps: 1, 1.0001, …"""
    weights = np.tile(1 + np.arange(7, dtype=np.float32) * np.float32(1e-4), (1600, 1))
    nodes = [node("Cast", ["faces"], ["x"], to=1), node("Flatten", ["x"], ["flat"], axis=1), node("MatMul", ["flat", "w"], ["logits"])]
    path = tmp_path / "sensitive.onnx"
    outputs = [value_info("logits", 1, (None, 7))]
    path.write_bytes(model(nodes, [tensor("w", weights)], [value_info("faces", 2, (None, 1, 40, 40))], outputs))
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


@pytest.fixture(scope="session", params=["yolo11n_face", "yolo11n_face_int8"])
def detector(request):
    """The shipped detectors, loaded once."""
    from engines import load_detector

    return load_detector(request.param)


@pytest.fixture(scope="session")
def classifier():
    """The shipped classifier, loaded once."""
    from engines import load_classifier

    return load_classifier()
