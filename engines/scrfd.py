"""SCRFD (Guo et al. 2021, "Sample and Computation Redistribution for Efficient Face Detection") as InsightFace exports it.

Three strides with two anchors a cell; per anchor a score 0…1 and the distances from the cell's corner to the box's four sides, in
strides. Exports name their nine outputs in several ways and order, so they are told apart by their shapes. Landmarks are not used.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from engines import manifest
from engines.contract import DetectorContract
from engines.detector import MAX_FACES, Detector
from engines.errors import ModelError
from engines.onnx_file import OnnxFile
from engines.preprocess import nms

STRIDES = (8, 16, 32)
_ANCHORS = 2
_WANTED = "scores (anchors, 1) and boxes (anchors, 4) of three strides, as SCRFD has"
_CONTRACT = DetectorContract(kind="scrfd", conf=0.5, iou=0.4)


def is_scrfd(model: OnnxFile) -> bool:
    """By its outputs: scores and boxes, perhaps landmarks, of three strides."""
    return {"score_8", "bbox_8"} <= {tensor.name for tensor in model.outputs} or len(model.outputs) in (6, 9)


def scrfd_entry(entry: manifest.Entry) -> manifest.Entry:
    """The entry of a user's file with what such models eat."""
    return dataclasses.replace(entry, contract=_CONTRACT)


class ScrfdDetector(Detector):
    """(N, 3, H, W) float RGB, (x − 127.5) / 128, in."""

    def _layout(self) -> None:
        inputs = self._engine.inputs
        shape = inputs[0].shape if inputs else ()
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3:
            got = "; ".join(f"{spec.name} {spec.shape}" for spec in inputs)
            raise ModelError(f"{self.name} takes {got}; expected one input of images, (N, 3, H, W) float, as SCRFD has")
        outputs = [spec.shape for spec in self._engine.outputs]
        if any(sum(not shape or (len(shape) < 4 and shape[-1] in (width, None)) for shape in outputs) < len(STRIDES) for width in (1, 4)):
            raise ModelError(f"{self.name} answers {'; '.join(map(str, outputs))}; expected {_WANTED}")
        self._channels_first = True
        self._fixed = (shape[3], shape[2]) if shape[2] and shape[3] else None

    def _prepared(self, batch: np.ndarray) -> np.ndarray:
        return (batch.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128

    def _infer(self, batch: np.ndarray, floor: float, *, still: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
        # One by one: these exports lay the anchors of a batch's images out in more than one way.
        return [self._boxes(self._engine.infer([image[None]]), batch.shape[1:3], floor) for image in self._prepared(batch)]

    def _boxes(self, answers: Any, size: tuple[int, ...], floor: float) -> tuple[np.ndarray, np.ndarray]:
        scores, distances = (
            sorted((a.reshape(-1, width) for a in answers if a.shape[-1] == width), key=len, reverse=True) for width in (1, 4)
        )
        if not len(scores) == len(distances) == len(STRIDES):
            raise ModelError(f"{self.name} answers {'; '.join(str(a.shape) for a in answers)}; expected {_WANTED}")
        xyxy, confidence = [], []
        for stride, score, distance in zip(STRIDES, scores, distances, strict=True):
            rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
            corners = np.repeat(np.stack([columns, rows], -1).reshape(-1, 2), _ANCHORS, 0)
            if len(corners) != len(score) or len(score) != len(distance):
                raise ModelError(f"{self.name} answers {len(score)} scores at stride {stride}; expected {len(corners)}, as SCRFD does")
            good = score[:, 0] >= floor
            at, far = corners[good], distance[good]
            xyxy.append(np.concatenate([at - far[:, :2], at + far[:, 2:]], 1) * stride)
            confidence.append(score[good, 0])
        boxes, found = np.concatenate(xyxy).astype(np.float32), np.concatenate(confidence).astype(np.float32)
        kept = nms(boxes, found, self.iou, MAX_FACES)
        return boxes[kept], found[kept]
