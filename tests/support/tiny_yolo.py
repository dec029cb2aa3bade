"""Networks of Ultralytics for tests: one that trains and runs in no time, and a YOLOv8n that sees something everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TINY = """
nc: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, [nc]]
"""
"""Its yaml: a YOLO11 head on five convolutions. The file's name must begin with yolo11."""


def ultralytics_here() -> Any:
    """The package, told to fetch and install nothing; skips where it is not installed."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "False")
    os.environ.setdefault("YOLO_OFFLINE", "True")
    return pytest.importorskip("ultralytics", reason="needs ultralytics: pip install 'fer-stream[torch]'")


def random_yolov8n(folder: Path, picture: np.ndarray) -> Path:
    """A checkpoint of one class whose weights are random; in `picture`, (H, W, 3) uint8 BGR, some twenty boxes score above .5.

    As it is made, every anchor scores the same, and which of them pass is chance: so batch norm takes over what this picture
    gives, and the last weights are enlarged.
    """
    ultralytics = ultralytics_here()
    import torch

    text = (Path(ultralytics.__file__).parent / "cfg" / "models" / "v8" / "yolov8.yaml").read_text()
    (folder / "yolov8n.yaml").write_text(text.replace("nc: 80", "nc: 1"))
    torch.manual_seed(0)
    yolo = ultralytics.YOLO(str(folder / "yolov8n.yaml"), task="detect")
    network, head, scores = yolo.model, yolo.model.model[-1], []
    images = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
        for boxes, classes in zip(head.cv2, head.cv3, strict=True):
            boxes[-1].weight *= 4
            classes[-1].weight *= 3
        hooks = [classes[-1].register_forward_hook(lambda *call: scores.append(call[-1])) for classes in head.cv3]
        network.eval()(images)
        for classes, hook, found in zip(head.cv3, hooks, scores, strict=True):
            hook.remove()
            classes[-1].bias -= found.flatten().topk(10).values[-1]
    yolo.save(str(folder / "yolov8n.pt"))
    return folder / "yolov8n.pt"
