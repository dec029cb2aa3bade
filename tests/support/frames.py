"""Frames made by hand, for tests of stages and sinks."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import supervision as sv

from pipeline.types import Frame, SourceInfo

VIDEO = SourceInfo("clip", "video", 320, 180)
LIVE = SourceInfo("cam", "live", 320, 180)
PICTURE = SourceInfo("photo", "image", 320, 180)


def frame(index: int, pts_s: float | None = None, info: SourceInfo = VIDEO, epoch: int = 0, picture: np.ndarray | None = None) -> Frame:
    """A grey 320×180 frame at `pts_s` (default: 25 a second)."""
    if picture is None:
        picture = np.full((180, 320, 3), 128, np.uint8)
    image = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
    pts = round((index / 25 if pts_s is None else pts_s) * 90000)
    return Frame(info.name, epoch, index, pts, Fraction(1, 90000), 0.0, image, info)


def detections(*boxes: tuple[float, float, float, float, float]) -> sv.Detections:
    """(x1, y1, x2, y2, confidence) each."""
    array = np.array(boxes, np.float32).reshape(-1, 5)
    return sv.Detections(xyxy=array[:, :4].copy(), confidence=array[:, 4].copy())
