"""Makes every face unfindable before any sink sees the picture: video, pictures, window, thumbnails, callbacks.

The stage comes last and replaces `frame.image`, so nothing downstream can forget to. It hides more than it must: all that
the detector suspects (from its floor on, what the tracker threw away included), with a margin that takes in the head, and
each of it for a while before and after, because a face is missed exactly where it turns, blurs or is half covered.
A mosaic is written straight on the planes of the decoded picture (0.8 ms for a 720p frame with two faces, 0.2 of
it the copy; the demo then runs at 42 instead of 48 frames per second); formats whose samples are not whole bytes are
converted first. Sound is not changed: a voice is heard.

The numbers below are the first that left nothing to our detector (at .45), and to YuNet (at .6, at full size and at 640
pixels) only a hand and a tree, in all 2,638 frames of thirteen clips and the demo and in seven photos (a dog's face in the
eighth stays; with the detector's later weights, in int8, again none to ours, to YuNet a coat, a hand and a flower pot, in the
2,169 frames of twelve clips); with six cells and a fifth of margin YuNet still found faces in 2 % of the frames.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from engines.preprocess import iou_with
from pipeline.flow.batch import Batch
from pipeline.stages.epochs import forget

if TYPE_CHECKING:
    from pipeline.types import Frame

SUSPICION = 0.02
"""Score from which the detector's boxes are hidden, far below what may be a face in the rows: blurred heads in the back of
a crowd get .03 (in int8 .02), and YuNet finds them at .6 (1 to 5 boxes a frame more on our clips)."""
CELLS = 4
"""Mosaic cells along the longer side of what is hidden."""
SMALLEST = 8
"""Pixels, the least side of a cell: a face of seven pixels in 2-pixel cells is still found by its neck and collar."""
MARGIN = 0.5
"""Of the box's sides, added on each side: a head without a face still looks like one to a detector."""
_SAME = 0.3
"""A box that overlaps one of the frame before by this much (intersection over union) is the same thing."""


@dataclass
class _Moment:
    """What was suspected in one frame; boxes as shares of width and height, because a stream may change its size."""

    frame: Frame | None
    """None once it has left."""
    pts_s: float
    boxes: np.ndarray
    """(N, 4) float64, x1 y1 x2 y2."""
    groups: np.ndarray
    """(N,) int: boxes of one thing, frame after frame, have one number."""
    tracks: dict[int, np.ndarray]


class Privacy:
    """Replaces the picture of every frame in which a face is, was or will soon be by one with mosaics.

    hold_s: how long what the detector suspected stays hidden, before (files, within `lookahead` frames) and after.
    lost_s: how long the last place of a followed face stays hidden when it is not found again.
    Live frames are never held back: there a face is hidden from the first frame on in which it is found.
    """

    name = "privacy"

    def __init__(self, *, hold_s: float = 0.25, lost_s: float = 1.0, lookahead: int = 8) -> None:
        self.lookahead = lookahead
        self._hold_s, self._lost_s = hold_s, lost_s
        self._epochs: dict[tuple[str, int], _Epoch] = {}

    def open(self) -> None:
        pass

    def process(self, batch: Batch) -> Batch:
        out = Batch(ended=batch.ended)
        for frame in batch.frames:
            if frame.info.kind == "image":
                out.frames.append(_hidden(frame, _suspects(frame)))
                continue
            epoch = self._epochs.setdefault((frame.source, frame.epoch), _Epoch(self._hold_s, self._lost_s))
            epoch.add(frame)
            out.frames += epoch.release(0 if frame.info.live else self.lookahead)
        for ended in batch.ended:
            for epoch in forget(self._epochs, ended):
                out.frames += epoch.release(0)
        return out

    def close(self) -> None:
        self._epochs.clear()


class _Epoch:
    """The memory of one (source, epoch): frames that wait, and what was suspected shortly before them."""

    def __init__(self, hold_s: float, lost_s: float) -> None:
        self._hold_s, self._lost_s = hold_s, lost_s
        self._moments: deque[_Moment] = deque()
        self._waiting = 0
        """Place of the first moment whose frame is still here."""
        self._groups = 0
        self._last: dict[int, tuple[float, np.ndarray]] = {}
        """Track -> when and where it was seen last."""

    def add(self, frame: Frame) -> None:
        boxes, scale = _suspects(frame), _scale(frame)
        groups = self._groups + np.arange(len(boxes))
        self._groups += len(boxes)
        if self._moments and len(boxes) and len(self._moments[-1].boxes):
            before = self._moments[-1]
            overlaps = iou_with(boxes, before.boxes)
            groups = np.where(overlaps.max(1) >= _SAME, before.groups[overlaps.argmax(1)], groups)
        ids = [] if frame.faces is None or frame.faces.tracker_id is None else frame.faces.tracker_id
        tracks = {int(track): frame.faces.xyxy[i] / scale for i, track in enumerate(ids) if track >= 0}
        self._moments.append(_Moment(frame, frame.pts_s, boxes, groups, tracks))

    def release(self, lookahead: int) -> list[Frame]:
        """The frames that have seen `lookahead` more, in order; what is too old to matter is forgotten."""
        out = []
        while len(self._moments) - self._waiting > lookahead:
            moment = self._moments[self._waiting]
            frame, moment.frame = moment.frame, None
            assert frame is not None
            out.append(_hidden(frame, np.concatenate([self._near(moment.pts_s), self._lost(moment)])))
            self._waiting += 1
            while self._waiting > 1 and moment.pts_s - self._moments[0].pts_s > self._hold_s:
                self._moments.popleft()
                self._waiting -= 1
        return out

    def _near(self, pts_s: float) -> np.ndarray:
        """(M, 4): what is suspected within `hold_s` and in both neighbours; one rectangle over all places of one thing."""
        near = [m for i, m in enumerate(self._moments) if abs(m.pts_s - pts_s) <= self._hold_s or abs(i - self._waiting) <= 1]
        boxes, groups = np.concatenate([m.boxes for m in near]), np.concatenate([m.groups for m in near])
        if not len(boxes):
            return boxes
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        return np.hstack([np.minimum.reduceat(boxes[order, :2], starts), np.maximum.reduceat(boxes[order, 2:], starts)])

    def _lost(self, moment: _Moment) -> np.ndarray:
        """(M, 4): where followed faces were last that are not found in this frame."""
        self._last.update({track: (moment.pts_s, box) for track, box in moment.tracks.items()})
        self._last = {track: seen for track, seen in self._last.items() if moment.pts_s - seen[0] <= self._lost_s}
        return np.array([box for track, (_, box) in self._last.items() if track not in moment.tracks]).reshape(-1, 4)


def with_mosaics(image: av.VideoFrame, boxes: np.ndarray, *, cells: int = CELLS, margin: float = MARGIN) -> av.VideoFrame:
    """A copy of `image` with a mosaic over each of `boxes` (N, 4), x1 y1 x2 y2 in its pixels, and `margin` around.

    Keeps the pixel format where its samples are whole bytes, else gives yuv422p or, for RGB and palettes, bgr24.
    """
    picture = _copied(image)
    planes, limits = _planes(picture), np.array([image.width, image.height] * 2, np.float64)
    for box in boxes[np.argsort((boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")]:  # small first: large cells win
        sides = box[2:] - box[:2]
        place = np.clip(box + margin * np.concatenate([-sides, sides]), 0, limits)
        columns, rows = (place[2:] - place[:2]) / max(sides.max() / cells, SMALLEST)
        for plane in planes:
            height, width = plane.shape[:2]
            _mosaic(plane, place / limits * [width, height, width, height], columns, rows)
    return picture


def _mosaic(plane: np.ndarray, place: np.ndarray, columns: float, rows: float) -> None:
    """Average `plane` (h, w[, c]) in `rows` × `columns` cells over `place`, x1 y1 x2 y2 in its samples."""
    part = plane[math.floor(place[1]) : math.ceil(place[3]), math.floor(place[0]) : math.ceil(place[2])]
    if part.size:
        size = (max(1, min(part.shape[1], round(columns))), max(1, min(part.shape[0], round(rows))))
        small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        part[:] = cv2.resize(small, part.shape[1::-1], interpolation=cv2.INTER_NEAREST).reshape(part.shape)


def _copied(image: av.VideoFrame) -> av.VideoFrame:
    """A copy of our own (a source may hand out one picture twice), its planes readable as arrays of whole samples."""
    source = image
    if _samples(image) is None:
        rgb = image.format.is_rgb or image.format.has_palette
        source = VideoReformatter().reformat(image, format="bgr24" if rgb else "yuv422p")
    copy = av.VideoFrame(source.width, source.height, source.format.name)
    for into, out in zip(_planes(copy), _planes(source), strict=True):
        into[:] = out
    copy.pts, copy.duration = image.pts, image.duration
    if image.time_base:
        copy.time_base = image.time_base
    for tag in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(copy, tag, getattr(source, tag))
    return copy


def _samples(image: av.VideoFrame) -> list[tuple[int, type]] | None:
    """Per plane: samples per pixel of that plane, and their type; None where that is not how it is stored."""
    layout, components = image.format, image.format.components
    if layout.has_palette or layout.is_bit_stream or any(c.bits not in range(8, 17) for c in components):
        return None
    if layout.is_big_endian and any(c.bits > 8 for c in components):
        return None
    found = []
    for number, plane in enumerate(image.planes):
        mine = [c for c in components if c.plane == number]
        if any((c.width, c.height) != (plane.width, plane.height) for c in mine):
            return None  # 4:2:2 packed into one plane
        found.append((len(mine), np.uint8 if mine[0].bits == 8 else np.uint16))
    return found


def _planes(image: av.VideoFrame) -> list[np.ndarray]:
    """Views (h, w) or (h, w, samples) of the planes."""
    views = []
    for plane, (count, kind) in zip(image.planes, _samples(image) or [], strict=True):
        row = np.frombuffer(plane, np.uint8)[: plane.line_size * plane.height].reshape(plane.height, plane.line_size)
        used = row[:, : plane.width * count * np.dtype(kind).itemsize].view(kind)
        views.append(used if count == 1 else used.reshape(plane.height, plane.width, count))
    return views


def _hidden(frame: Frame, boxes: np.ndarray) -> Frame:
    """`boxes` as shares of the frame's sides."""
    if len(boxes):
        frame.image = with_mosaics(frame.image, boxes * _scale(frame))
        frame._bgr = None
    return frame


def _suspects(frame: Frame) -> np.ndarray:
    """(N, 4): everything that may be a face in this frame, as shares of its sides; each once."""
    found = [] if frame.hidden is None else [frame.hidden]
    if frame.faces is not None:  # those that were seen are among the suspects
        found.append(frame.faces.xyxy if frame.hidden is None else frame.faces.xyxy[~frame.faces.data["observed"]])
    boxes = np.concatenate([np.empty((0, 4)), *found])
    return boxes[np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)] / _scale(frame)


def _scale(frame: Frame) -> np.ndarray:
    return np.array([frame.width, frame.height, frame.width, frame.height], np.float64)
