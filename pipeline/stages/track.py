"""Follows faces: ByteTrack per (source, epoch) on the container's clock, with what a file's look-ahead allows.

Files are held back for up to `lookahead` frames. That gives a face its id from its first frame on (ByteTrack names a
track only on its second detection), and fills the frames in which a face was missed, or not looked for, between two in
which it was found. Live frames are never held: boxes between detections come from the tracker's motion model, and a
face without an id goes out with −1.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from engines.preprocess import iou_with
from pipeline.flow.batch import Batch
from pipeline.stages.epochs import forget
from pipeline.types import TrackEnd

if TYPE_CHECKING:
    from pipeline.types import Faces, Frame


@dataclass
class _Face:
    """One face in one frame, before it is written into `frame.faces`."""

    box: np.ndarray
    confidence: float
    track: int  # −1: none yet
    observed: bool = True


@dataclass
class _Held:
    """A frame that waits for what later frames may say about it."""

    frame: Frame
    detected: bool
    at: int  # position within the epoch
    faces: list[_Face] = field(default_factory=list)
    ended: list[TrackEnd] = field(default_factory=list)


@dataclass
class _Seen:
    """Where a track was last found by the detector."""

    at: int
    pts_s: float
    face: _Face
    sure_s: float
    """When it was last found with a score that could start a track."""


class Track:
    """Turns detections into faces with ids, unique per source over the whole run."""

    name = "track"

    def __init__(self, *, conf: float, lost_s: float = 1.0, mature: int = 2, iou: float = 0.1, lookahead: int = 12, faint_s: float = 0.5,
                 min_size: float = 12) -> None:  # fmt: skip
        self.lookahead = lookahead
        self._conf, self._lost_s, self._mature, self._iou, self._faint_s, self._min_size = conf, lost_s, mature, iou, faint_s, min_size
        self._epochs: dict[tuple[str, int], _Epoch] = {}
        self._given: dict[str, int] = {}  # ids handed out, per source: epochs go on counting

    def open(self) -> None:
        """Loads the tracker here, beside the compiling of the detector on another thread: both take half a second and more."""
        import trackers  # noqa: F401

    def process(self, batch: Batch) -> Batch:
        out = Batch(ended=batch.ended)
        for frame in batch.frames:
            if frame.info.kind == "image":
                out.frames.append(self._number(frame))
                continue
            key = (frame.source, frame.epoch)
            if key not in self._epochs:
                self._epochs[key] = _Epoch(self, frame)
            out.frames += self._epochs[key].add(frame)
        for ended in batch.ended:
            for epoch in forget(self._epochs, ended):
                frames, ends = epoch.finish()
                out.frames += frames
                ended.added += ends
        return out

    def close(self) -> None:
        self._epochs.clear()

    def next_id(self, source: str) -> int:
        self._given[source] = self._given.get(source, 0) + 1
        return self._given[source]

    def _number(self, frame: Frame) -> Frame:
        """Pictures are not tracked: ids 1…n, the surest first."""
        found = frame.faces if frame.faces is not None else _columns([])
        found = found[self.starts(found)]
        faces = [_Face(box, float(c), i + 1) for i, (box, c) in enumerate(zip(found.xyxy, _confidence(found), strict=True))]
        frame.faces = _columns(faces)
        return frame

    def starts(self, found: Faces) -> np.ndarray:
        """(N,) bool: sure and large enough to be a face of its own; the others may only continue a track."""
        sides = np.maximum(found.xyxy[:, 2] - found.xyxy[:, 0], found.xyxy[:, 3] - found.xyxy[:, 1])
        return (_confidence(found) >= self._conf) & (sides >= self._min_size)


class _Epoch:
    """The state of one (source, epoch)."""

    def __init__(self, stage: Track, first: Frame) -> None:
        from trackers import ByteTrackTracker

        self._stage, self._source = stage, first.source
        self._lookahead = 0 if first.info.live else stage.lookahead
        self._tracker = ByteTrackTracker(
            lost_track_buffer=max(1, round(30 * stage._lost_s)),
            frame_rate=30.0,
            track_activation_threshold=stage._conf,
            minimum_consecutive_frames=stage._mature,
            minimum_iou_threshold=stage._iou,
            high_conf_det_threshold=stage._conf,
        )
        self._ids: dict[int, int] = {}  # ByteTrack's id -> ours
        self._seen: dict[int, _Seen] = {}  # open tracks
        self._held: deque[_Held] = deque()
        self._at = -1
        self._looked_s: float | None = None
        self._new: list[_Face] = []  # those of the last look that have no id yet

    def add(self, frame: Frame) -> list[Frame]:
        self._at += 1
        held = _Held(frame, frame.faces is not None, self._at)
        self._held.append(held)
        if held.detected:
            self._update(held)
        elif not self._lookahead:
            self._carry(held)
        return self._release()

    def finish(self) -> tuple[list[Frame], list[TrackEnd]]:
        """What is held, with ids for the faces that never got a second look, and the ends of all open tracks."""
        looked = [held for held in self._held if held.detected]
        for face in self._new if looked else []:
            self._name(face, looked[-1])
            self._see(face, looked[-1])
        for held in self._held:
            if not held.detected and (not looked or held.at > looked[-1].at):
                self._carry(held)  # no detection follows to interpolate to
        frames = [_finished(held) for held in self._held]
        self._held.clear()
        return frames, [TrackEnd(i, seen.pts_s, "source ended") for i, seen in sorted(self._seen.items())]

    def _update(self, held: _Held) -> None:
        """One step of ByteTrack: only frames in which the detector ran count, or tracks would never mature."""
        import supervision as sv

        found, now = held.frame.faces, held.frame.pts_s
        if self._looked_s is not None:  # what every look sees was not lost, however rare looks are
            self._tracker.maximum_time_without_update = max(self._stage._lost_s, 1.5 * (now - self._looked_s))
        self._looked_s = now
        starts = self._stage.starts(found)
        # A face too small to start a track keeps a score that may continue one.
        score = np.where(starts, _confidence(found), np.minimum(_confidence(found), self._stage._conf - 1e-3)).astype(np.float32)
        asked = sv.Detections(xyxy=found.xyxy, confidence=score, data={"row": np.arange(len(found))})
        tracked = self._tracker.update(asked, timestamp=now)
        rows = tracked.data["row"] if len(tracked) else []
        for row, raw in sorted(zip(rows, tracked.tracker_id if len(tracked) else [], strict=True)):  # its order is its own
            face = _Face(found.xyxy[row], float(found.confidence[row]), -1)
            if raw >= 0:
                if int(raw) in self._ids:
                    face.track = self._ids[int(raw)]
                else:
                    self._name(face, held)
                    self._ids[int(raw)] = face.track
                if self._too_faint(face, held):
                    continue
                self._see(face, held)
            elif not starts[row]:
                continue
            held.faces.append(face)
        self._new = [face for face in held.faces if face.track < 0]
        alive = {self._ids.get(t.tracker_id) for t in self._tracker.tracks}
        for track in sorted(set(self._seen) - alive):
            held.ended.append(TrackEnd(track, self._seen.pop(track).pts_s, "lost"))
        self._ids = {raw: ours for raw, ours in self._ids.items() if ours in alive}

    def _name(self, face: _Face, held: _Held) -> None:
        """A new id, for the detections by which the track matured too: those without an id that overlap, frame by frame."""
        face.track = self._stage.next_id(self._source)
        chain: list[tuple[_Held, _Face]] = []
        box = face.box
        before = [h for h in self._held if h.detected and h.at < held.at]
        for earlier in before[: -self._stage._mature : -1]:
            nameless = [f for f in earlier.faces if f.track < 0]
            overlaps = iou_with(box, np.array([f.box for f in nameless]).reshape(-1, 4))
            if not nameless or overlaps.max() < self._stage._iou:
                break
            match = nameless[int(overlaps.argmax())]
            match.track, box = face.track, match.box
            chain.append((earlier, match))
        for earlier, match in reversed(chain):
            self._see(match, earlier)

    def _too_faint(self, face: _Face, held: _Held) -> bool:
        """Faint scores carry a face through a hand or a turn of the head, but not for ever: a pattern on a wall goes on and on."""
        last = self._seen.get(face.track)
        return last is not None and face.confidence < self._stage._conf and held.frame.pts_s - last.sure_s > self._stage._faint_s

    def _see(self, face: _Face, held: _Held) -> None:
        """Note where a track was found; held frames since its last sight get boxes in between, linear in time.

        None of them where the first ones have gone out without: a face does not vanish and come back before it is found.
        """
        last = self._seen.get(face.track)
        sure_s = held.frame.pts_s if last is None or face.confidence >= self._stage._conf else last.sure_s
        self._seen[face.track] = _Seen(held.at, held.frame.pts_s, face, sure_s)
        if last is None or held.frame.pts_s <= last.pts_s or held.at - last.at > self._lookahead:
            return
        for between in self._held:
            if last.at < between.at < held.at:
                share = (between.frame.pts_s - last.pts_s) / (held.frame.pts_s - last.pts_s)
                box = (last.face.box + (face.box - last.face.box) * share).astype(np.float32)
                between.faces.append(_Face(box, min(last.face.confidence, face.confidence), face.track, observed=False))

    def _carry(self, held: _Held) -> None:
        """Without a detection to come: the motion model's boxes of the tracks that the last one saw, and its new faces where they were."""
        last = max((seen.at for seen in self._seen.values()), default=-1)
        pts = held.frame.pts_s
        for tracklet in self._tracker.tracks:
            track = self._ids.get(tracklet.tracker_id)
            if track is None or self._seen[track].at != last or tracklet.time_since_update:
                continue
            seen = self._seen[track]
            velocity = self._velocity(tracklet)
            box = np.asarray(tracklet.get_state_bbox(), np.float32) + velocity * np.float32((pts - seen.pts_s) * 30.0)
            box = np.clip(box, 0, [held.frame.width, held.frame.height] * 2).astype(np.float32)
            if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
                held.faces.append(_Face(box, seen.face.confidence, track, observed=False))
        held.faces += [replace(face, observed=False) for face in self._new]

    @staticmethod
    def _velocity(tracklet: object) -> np.ndarray:
        """(4,) pixels per 1/30 s of x1, y1, x2, y2: the second half of the Kalman state."""
        return np.asarray(tracklet.state_estimator.kf.state, np.float32).reshape(-1)[4:8]  # type: ignore[attr-defined]

    def _release(self) -> list[Frame]:
        """Frames about which nothing can be learned any more, in order."""
        out = []
        while self._held and (self._at - self._held[0].at >= self._lookahead or not self._waits(self._held[0])):
            out.append(_finished(self._held.popleft()))
        return out

    def _waits(self, held: _Held) -> bool:
        if not held.detected:
            return True  # boxes come with the next detection
        present = {face.track for face in held.faces}
        if -1 in present and not self._looked_again(held):
            return True
        return any(i not in present and seen.at < held.at and self._at - seen.at < self._lookahead for i, seen in self._seen.items())

    def _looked_again(self, held: _Held) -> bool:
        """The detector ran often enough after this frame that its nameless faces cannot mature any more."""
        later = sum(h.detected and h.at > held.at for h in self._held)
        return later >= self._stage._mature - 1


def _finished(held: _Held) -> Frame:
    held.frame.faces = _columns(sorted(held.faces, key=lambda f: (f.track < 0, f.track)))
    held.frame.ended_tracks += held.ended
    return held.frame


def _columns(faces: list[_Face]) -> Faces:
    import supervision as sv

    n = len(faces)
    return sv.Detections(
        xyxy=np.array([f.box for f in faces], np.float32).reshape(n, 4),
        confidence=np.array([f.confidence for f in faces], np.float32),
        tracker_id=np.array([f.track for f in faces], int),
        data={"observed": np.array([f.observed for f in faces], bool)},
    )


def _confidence(found: Faces) -> np.ndarray:
    return found.confidence if found.confidence is not None else np.ones(len(found), np.float32)
