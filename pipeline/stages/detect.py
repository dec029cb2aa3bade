"""Finds faces: the detector's input is scaled straight from the decoded YUV, frames of one shape go in one call."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.preprocess import FILL, LetterboxGeometry, unletterbox
from pipeline.flow.batch import Batch
from pipeline.planes import RgbScaler

if TYPE_CHECKING:
    from engines.detector import Detector
    from pipeline.types import Faces, Frame

_SCALERS = 8
"""Most that are kept: each holds up to 15 MB, and a folder of pictures may have as many sizes as files."""
_LATE = 0.35
"""Share of the time between two frames: a live one that has waited longer shows that the machine cannot look at every one."""
_UNSEEN_S = 0.2001
"""Longest time without a look because frames came late; a little more than a fifth of a second of frames adds up to."""


@dataclass
class _Looks:
    """What one (source, epoch) has had: the size of its frames, how many since the last look, when that was (pts_s, captured_at), and
    when the last frame was."""

    size: tuple[int, int]
    passed: int
    look_s: float
    look_at: float
    frame_s: float
    frame_at: float


class Detect:
    """Sets `frame.faces` to everything above `floor` (xyxy in pixels of the full frame, confidence), or leaves None on
    frames that are passed over (`interval`): the tracker fills those. `frame.hidden` gets all from `suspicion` on.
    `keep_up`: live frames that come late are passed over, too, or those behind them would age and be dropped. `stills`: nothing but
    pictures will come."""

    name = "detect"
    lookahead = 0

    def __init__(self, detector: Detector, *, interval: int = 1, floor: float = 0.1, max_faces: int = 1000,
                 suspicion: float | None = None, keep_up: bool = False, wait_s: float = 0.0, stills: bool = False,
                 clock: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
        """`wait_s`: how long frames are held for a batch before they come here. `clock`: seconds, the one of `Frame.captured_at`."""
        self._detector = detector
        self._interval, self._floor, self._max_faces = interval, floor, max_faces
        self._lowest = floor if suspicion is None else min(floor, suspicion)
        self._keep_up, self._wait_s, self._stills, self._clock = keep_up, wait_s, stills, clock
        self._looks: dict[tuple[str, int], _Looks] = {}
        self._scalers: dict[tuple[int, int, str], RgbScaler] = {}  # one per size, the least recently used first

    def open(self) -> None:
        """Compiles the model for wide-screen frames, the likeliest, or for pictures: a camera's first would be dropped meanwhile."""
        geometry = self._detector.geometry(1280, 720)
        self._detector.infer(np.full((1, geometry.input_height, geometry.input_width, 3), FILL, np.uint8), still=self._stills)

    def process(self, batch: Batch) -> Batch:
        groups: dict[tuple[int, int, bool], list[tuple[Frame, LetterboxGeometry]]] = defaultdict(list)
        for frame in batch.frames:
            # Pictures have nothing between them to carry a box from, and no next frame to show what this one does not.
            picture = frame.info.kind == "image"
            if picture or self._is_due(frame):
                geometry = self._detector.geometry(max(1, round(frame.width * frame.pixel_shape)), frame.height)
                groups[geometry.input_height, geometry.input_width, picture].append((frame, geometry))
        for (height, width, still), members in groups.items():
            inputs = np.full((len(members), height, width, 3), FILL, np.uint8)
            for row, (frame, geometry) in zip(inputs, members, strict=True):
                self._scale_into(row, frame, geometry)
            # A still picture's score may be the mean of two looks: half of what is suspect in one is suspect.
            answers = self._detector.infer(inputs, floor=self._lowest / 2 if still else self._lowest, still=still)
            for (frame, geometry), (xyxy, confidence) in zip(members, answers, strict=True):
                found = self._faces(xyxy, confidence, frame, geometry)
                frame.faces, frame.hidden = found[found.confidence >= self._floor][: self._max_faces], found.xyxy
        for ended in batch.ended:
            self._looks.pop((ended.source, ended.epoch), None)
        return batch

    def close(self) -> None:
        self._scalers.clear()

    def _is_due(self, frame: Frame) -> bool:
        """Whether to look at this frame of a video."""
        key, size = (frame.source, frame.epoch), (frame.width, frame.height)
        last = self._looks.get(key)
        if last is not None and last.size == size:  # boxes of another size cannot be carried on
            between_s = max(frame.pts_s - last.frame_s, frame.captured_at - last.frame_at)  # by both clocks, since a camera's own may stand
            last.frame_s, last.frame_at = frame.pts_s, frame.captured_at
            last.passed += 1
            if last.passed < self._interval or (self._keep_up and frame.info.live and self._is_late(frame, between_s, last)):
                return False
        self._looks[key] = _Looks(size, 0, frame.pts_s, frame.captured_at, frame.pts_s, frame.captured_at)
        return True

    def _is_late(self, frame: Frame, between_s: float, last: _Looks) -> bool:
        waited_s = self._clock() - frame.captured_at - self._wait_s
        # By both clocks, since a camera's own may stand; and what is not looked at now has to last until the next frame.
        unseen_s = max(frame.pts_s - last.look_s, frame.captured_at - last.look_at) + between_s
        return waited_s > _LATE * between_s and unseen_s <= _UNSEEN_S

    def _scale_into(self, row: np.ndarray, frame: Frame, geometry: LetterboxGeometry) -> None:
        """Scale the decoded picture into its place in the letterbox, (H, W, 3) uint8 RGB."""
        image = frame.image
        key = (image.width, image.height, image.format.name)
        scaler = self._scalers[key] = self._scalers.pop(key, None) or RgbScaler()
        if len(self._scalers) > _SCALERS:
            del self._scalers[next(iter(self._scalers))]
        w, h = geometry.resized_width, geometry.resized_height
        row[geometry.top : geometry.top + h, geometry.left : geometry.left + w] = scaler(image, w, h)

    def _faces(self, xyxy: np.ndarray, confidence: np.ndarray, frame: Frame, geometry: LetterboxGeometry) -> Faces:
        import supervision as sv  # not above: Track.open() loads it while the model is compiled

        best = np.argsort(-confidence, kind="stable")
        boxes = unletterbox(xyxy[best], geometry, frame.width, frame.height)
        solid = (boxes[:, 2] - boxes[:, 0] >= 1) & (boxes[:, 3] - boxes[:, 1] >= 1)
        return sv.Detections(xyxy=boxes[solid].astype(np.float32), confidence=confidence[best][solid].astype(np.float32))
