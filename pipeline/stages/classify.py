"""Reads expressions: crops from the luma plane, a quality gate, and a budget for crowds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from engines.contract import LABELS
from engines.errors import UsageError
from engines.preprocess import crop_square, square_boxes, square_pixels
from pipeline.flow.batch import Batch
from pipeline.stages.epochs import forget

if TYPE_CHECKING:
    import av

    from engines.classifier import Classifier
    from pipeline.types import Frame

# Pixel formats whose first plane is 8-bit luma.
_LUMA = {"yuv420p", "yuvj420p", "nv12", "nv21", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv411p", "yuv410p", "gray"}
_FULL_RANGE = {"yuvj420p", "yuvj422p", "yuvj444p", "gray"}
_JPEG_RANGE = 2  # AVCOL_RANGE_JPEG
_EXPAND = np.clip((np.arange(256) - 16) * 255.0 / 219.0 + 0.5, 0, 255).astype(np.uint8)  # BT.601/709 limited -> full range

_ALIASES = {
    "anger": "angry", "disgusted": "disgust", "fearful": "fear", "happiness": "happy", "joy": "happy", "sadness": "sad",
    "surprised": "surprise", "neutrality": "neutral",
} | {label: label for label in LABELS}  # fmt: skip
"""What others call our labels, lower case."""
BOX_TAU_S = 0.06
"""Time constant of the filter that steadies the crop: a box that jitters by a few pixels moves probabilities."""
GROWN = 1.2
"""A face grown by more than this since it was last chosen is read again before merely stale ones."""

_BATCHES = (1, 2, 4, 8)

_TrackKey: TypeAlias = tuple[str, int, int]


@dataclass
class _Reading:
    """What is remembered of a track."""

    pts_s: float
    centre_side: np.ndarray  # (3,) float64: filtered centre x, centre y, side
    read_s: float = -math.inf  # when it was last classified
    tried_s: float = -math.inf  # when it was last chosen, and its side then: of what cannot be read the others need not wait
    tried_side: float = 0.0
    certainty: float = 0.0


@dataclass
class _Candidate:
    """One face that may be read in this frame."""

    row: int
    key: _TrackKey | None  # None: no track (pictures, faces without an id)
    box: np.ndarray  # xyxy and centre_side in square pixels
    centre_side: np.ndarray
    confidence: float
    rank: tuple[float, ...]


class Classify:
    """Adds `quality` (N,) and `probs` (N, 7; NaN rows where a face is not read in this frame) to `frame.faces`.

    Of each frame of a video at most `max_faces` crops are chosen, in this order: new tracks, grown by a fifth since last chosen, longest
    since last chosen, least certain. The rest keep what they had, and so do those that were read less than `max_age_s` ago.
    """

    name = "classify"
    lookahead = 0

    def __init__(self, classifier: Classifier, *, max_faces: int = 8, max_age_s: float = 0.0, min_quality: float = 0.15) -> None:
        self._classifier = classifier
        said = [_ALIASES.get(label.casefold().strip(), label) for label in classifier.labels]
        self._labels = [said.index(label) if label in said else -1 for label in LABELS]
        self._extra = [(i, label) for i, label in enumerate(said) if label not in LABELS]
        if len(self._extra) == len(said):
            raise UsageError(f"the classifier {classifier.name} says {', '.join(said)}; expected some of {', '.join(LABELS)}")
        self._margin = classifier.contract.crop_margin
        self._max_faces, self._max_age_s, self._min_quality = max_faces, max_age_s, min_quality
        self._tracks: dict[_TrackKey, _Reading] = {}
        self._to_grey = VideoReformatter()
        self._pending: list[tuple[Frame, _Candidate, np.ndarray]] = []

    def open(self) -> None:
        """Compiles the model for the batches that come: each takes a tenth of a second, too long between two frames."""
        for count in _BATCHES:
            self._classifier.classify([np.zeros((64, 64), np.uint8)] * count)

    def process(self, batch: Batch) -> Batch:
        for frame in batch.frames:
            self._select(frame)
        self._read()
        for ended in batch.ended:
            forget(self._tracks, ended)
        return batch

    def close(self) -> None:
        self._tracks.clear()

    def _select(self, frame: Frame) -> None:
        """Choose the faces of one frame and cut their crops; they are read together with those of the batch's others."""
        faces = frame.faces
        n = len(faces)
        faces.data["quality"] = np.full(n, np.nan, np.float32)
        faces.data["probs"] = np.full((n, len(LABELS)), np.nan, np.float32)
        if self._extra:
            faces.data["extra"] = np.full(n, None, object)
        crowd = frame.info.kind != "image" and n > self._max_faces
        if crowd:
            # The order asks how certain each track is: what is known must not depend on how batches fell (S4).
            self._read()
        candidates = [c for c in (self._candidate(frame, row) for row in range(n)) if c]
        for ended in frame.ended_tracks:
            self._tracks.pop((frame.source, frame.epoch, ended.tracker_id), None)
        if crowd:
            candidates = sorted(candidates, key=lambda c: c.rank)[: self._max_faces]
        if not candidates:
            return
        picture = square_pixels(self._picture(frame), frame.pixel_shape)
        for c in candidates:
            face = self._classifier.inputs([crop_square(picture, _square(c.centre_side), self._margin)])[0]
            if picture.ndim == 2 and _limited(frame.image):
                face = cv2.LUT(face, _EXPAND).reshape(face.shape)
            quality = quality_of(face, c.box, c.confidence, picture.shape[1], picture.shape[0])
            faces.data["quality"][c.row] = quality
            good = quality >= self._min_quality
            if good:
                self._pending.append((frame, c, face))
            if c.key:
                track = self._tracks[c.key]
                track.tried_s, track.tried_side = frame.pts_s, c.centre_side[2]
                track.read_s = frame.pts_s if good else track.read_s

    def _candidate(self, frame: Frame, row: int) -> _Candidate | None:
        """None: the detector looked and did not see it (something may be before the face), or the track was read a moment ago."""
        faces = frame.faces
        if not faces.data["observed"][row] and frame.hidden is not None:
            return None
        box, track = square_boxes(faces.xyxy[row], frame.pixel_shape), int(faces.tracker_id[row])
        centre_side = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(box[2] - box[0], box[3] - box[1])], float)
        confidence = float(faces.confidence[row])
        if frame.info.kind == "image" or track < 0:
            return _Candidate(row, None, box, centre_side, confidence, (0.0,))
        key = (frame.source, frame.epoch, track)
        known = self._tracks.get(key)
        if known is None:
            self._tracks[key] = _Reading(frame.pts_s, centre_side)
            return _Candidate(row, key, box, centre_side, confidence, (0.0,))
        weight = 1 - math.exp(-max(frame.pts_s - known.pts_s, 0.0) / BOX_TAU_S)
        known.centre_side = known.centre_side + weight * (centre_side - known.centre_side)
        known.pts_s = frame.pts_s
        if self._max_age_s and round(frame.pts_s - known.read_s, 6) < self._max_age_s:
            return None
        if math.isinf(known.tried_s):
            rank: tuple[float, ...] = (0.0,)
        elif known.centre_side[2] > GROWN * known.tried_side:
            rank = (1.0,)
        else:
            rank = (2.0, known.tried_s, known.certainty)
        return _Candidate(row, key, box, known.centre_side, confidence, rank)

    def _read(self) -> None:
        """Run the model over all crops at hand."""
        if not self._pending:
            return
        answers = self._classifier.infer(np.stack([face for _, _, face in self._pending]))
        for (frame, c, _), answer in zip(self._pending, answers, strict=True):
            probs = np.array([answer[i] if i >= 0 else np.nan for i in self._labels], np.float32)
            frame.faces.data["probs"][c.row] = probs
            if self._extra:
                frame.faces.data["extra"][c.row] = {label: round(float(answer[i]), 6) for i, label in self._extra}
            if c.key in self._tracks:
                self._tracks[c.key].certainty = float(answer.max())
        self._pending.clear()

    def _picture(self, frame: Frame) -> np.ndarray:
        """(H, W) luma as decoded where the model wants grey, else (H, W, 3) BGR: full-size colour is made only when needed."""
        if self._classifier.contract.colour != "grey":
            return frame.bgr
        image = frame.image
        if image.format.name not in _LUMA:
            image = self._to_grey.reformat(image, format="gray")
        plane = image.planes[0]
        return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: image.height, : image.width]


def quality_of(face: np.ndarray, box: np.ndarray, confidence: float, width: int, height: int) -> float:
    """How much a crop can say, 0…1: the product of four ramps.

    face (C, S, S) uint8: the crop at the model's size; box xyxy in pixels of a width × height frame.
    Size: 0 at 10 px of the longer side, 1 at 36. Sharpness: variance of the Laplacian over the variance of the grey levels,
    logarithmic from .005 to .05 (FER2013 faces: median .91; brought down to 14 px and up again .05, to 7 px .014).
    Border: a box that ends at the frame's edge is cut, and the flatter or narrower the less a face. Detection: 1 from .5.
    """
    w, h = float(box[2] - box[0]), float(box[3] - box[1])
    size = np.clip((max(w, h) - 10) / 26, 0, 1)
    grey = face[0] if face.shape[0] == 1 else face.mean(0).astype(np.uint8)
    edges, levels = (cv2.meanStdDev(picture)[1][0, 0] ** 2 for picture in (cv2.Laplacian(grey, cv2.CV_16S), grey))
    sharp = edges / (levels + 64)
    sharpness = np.clip(math.log(max(sharp, 1e-6) / 0.005) / math.log(10), 0, 1)
    touches = box[0] <= 1 or box[1] <= 1 or box[2] >= width - 1 or box[3] >= height - 1
    border = np.clip((min(w / h, h / w) - 0.35) / 0.35, 0, 1) if touches and w > 0 and h > 0 else 1.0
    return float(size * sharpness * border * min(confidence / 0.5, 1.0))


def _square(centre_side: np.ndarray) -> np.ndarray:
    x, y, side = centre_side
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def _limited(image: av.VideoFrame) -> bool:
    """The luma as decoded runs from 16 to 235 (video's usual range), not from 0 to 255; what swscale makes grey does not."""
    return image.format.name in _LUMA - _FULL_RANGE and image.color_range != _JPEG_RANGE
