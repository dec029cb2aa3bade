"""Collects what a report shows, and writes it when the run is over: one HTML file, whole or not at all.

Memory does not grow with the length of a video. Time is kept in bins that get wider when there are too many: a timeline
has at most 1,200 steps, the tables at most 20,000 rows together; 500 people of a source are told apart, the rest is counted.
As in the summary a face counts for the time until its source's next frame (at most a second), pictures count once each.
"""

from __future__ import annotations

import base64
import math
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from engines.contract import LABELS, UNCERTAIN
from engines.preprocess import crop_square, square_boxes, square_pixels
from pipeline.errors import SinkError, UsageError
from pipeline.sinks.images import write_whole
from pipeline.sinks.outputs import is_stream
from pipeline.sinks.planes import bgr_of

if TYPE_CHECKING:
    from pipeline.flow.batch import Batch
    from pipeline.types import Frame

SHOWN = (*LABELS, UNCERTAIN)
MOST_PEOPLE = 500
_MOST_STEPS = 1200
_MOST_ROWS = 20_000
_WIDER = (5, 2, 3, 2, 5, 2, 3, 2)
"""Tables: 1 s → 5 s → 10 s → 30 s → 1 min → 5 min → 10 min → 30 min → 1 h."""
_LONGEST_STEP_S = 1.0
_THUMBNAIL = 112
"""Pixels of a side: two for one of the page, for sharp screens."""
_BETTER = 1.15
"""A crop must be better by this factor to be taken, so that a face that slowly comes nearer is not encoded in every frame."""


@dataclass
class Cell:
    """What one person showed in one bin of time; also used for totals."""

    seconds: np.ndarray = field(default_factory=lambda: np.zeros(len(SHOWN)))
    """(8,) per label said, "uncertain" last."""
    weighted: np.ndarray = field(default_factory=lambda: np.zeros(len(LABELS)))
    """(7,) smoothed probabilities × seconds; NaN for what the classifier cannot say."""
    known: float = 0.0
    """Seconds in which there were probabilities."""

    def add(self, other: Cell) -> None:
        self.seconds += other.seconds
        self.weighted += other.weighted
        self.known += other.known

    @property
    def label(self) -> str:
        """What was said for longest."""
        return SHOWN[int(self.seconds.argmax())]

    @property
    def probabilities(self) -> np.ndarray:
        """(7,) mean over time; NaN where nothing is known, or the classifier lacks the class."""
        return self.weighted / self.known if self.known > 0 else np.full(len(LABELS), np.nan)

    @property
    def can_be_said(self) -> np.ndarray:
        """(8,) bool, as `seconds`: a share of 0 % and none at all are two things."""
        return ~np.isnan([*self.weighted, 0])


@dataclass
class Person:
    """A track, or a face of a picture."""

    name: str
    first_s: float
    last_s: float
    total: Cell = field(default_factory=Cell)
    thumbnail: str | None = None
    """JPEG in base64."""
    best: float = 0.0


class Bins:
    """(person's id, number of the bin) -> Cell. `width_s` grows when there are more than allowed."""

    def __init__(self, width_s: float, *, most_steps: int | None = None, most_cells: int | None = None) -> None:
        self.width_s = width_s
        self.cells: dict[tuple[int, int], Cell] = {}
        self._most_steps, self._most_cells = most_steps, most_cells
        self._widened = 0
        self._low: int | None = None
        self._high = 0

    def add(self, person: int, start_s: float, seconds: float, label: int, probabilities: np.ndarray) -> None:
        """Spread `seconds` from `start_s` on over the bins that they touch."""
        end_s, known = start_s + seconds, not np.isnan(probabilities).all()
        for step in range(math.floor(start_s / self.width_s), math.ceil(end_s / self.width_s)):
            share = min(end_s, (step + 1) * self.width_s) - max(start_s, step * self.width_s)
            if share <= 1e-9:  # the edge itself
                continue
            cell = self._cell(person, step)
            cell.seconds[label] += share
            if known:
                cell.weighted += probabilities * share
                cell.known += share
        while self._too_many():
            self._widen()

    def _cell(self, person: int, step: int) -> Cell:
        self._low = step if self._low is None else min(self._low, step)
        self._high = max(self._high, step) if self.cells else step
        return self.cells.setdefault((person, step), Cell())

    def _too_many(self) -> bool:
        if self._most_steps is not None:
            return self._high - (self._low or 0) >= self._most_steps
        return self._most_cells is not None and len(self.cells) > self._most_cells

    def _widen(self) -> None:
        factor = 2 if self._most_steps is not None else _WIDER[min(self._widened, len(_WIDER) - 1)]
        before, self.cells = self.cells, {}
        self.width_s, self._widened = self.width_s * factor, self._widened + 1
        self._low, self._high = None, 0
        for (person, step), cell in before.items():
            self._cell(person, step // factor).add(cell)


@dataclass
class Watched:
    """One source."""

    kind: str
    size: tuple[int, int]
    frames: int = 0
    faces: int = 0
    first_s: float | None = None
    last_s: float = 0.0
    people: dict[int, Person] = field(default_factory=dict)
    more_people: int = 0
    total: Cell = field(default_factory=Cell)
    timeline: Bins = field(default_factory=lambda: Bins(0.1, most_steps=_MOST_STEPS))
    table: Bins = field(default_factory=lambda: Bins(1.0, most_cells=_MOST_ROWS))
    ended: str = ""
    pts_s: float | None = None
    step_s: float = 0.0
    said: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    """Person, label and probabilities of each face of the frame before."""
    highest: int = -1


class ReportSink:
    """One page about all sources. `path`: .html (UsageError otherwise), written by `finish`; nothing where no frame came.

    `info`: facts of the run, as in the first row of the events. Thumbnails show what the frames show: mosaics, with privacy.
    SinkError when it cannot be written, or is there already (without `overwrite`).
    """

    name = "report"
    best_effort = False

    def __init__(self, path: str | os.PathLike[str], *, info: dict[str, Any] | None = None, overwrite: bool = False) -> None:
        self.path = os.fspath(path)
        check_report(self.path)
        self._info, self._overwrite = info or {}, overwrite
        self._sources: dict[str, Watched] = {}
        self._reformatter = VideoReformatter()
        self._begun = datetime.now(UTC)
        self._finished = False

    def write(self, batch: Batch) -> None:
        for frame in batch.frames:
            if frame.source not in self._sources:
                self._sources[frame.source] = Watched(frame.info.kind, (frame.width, frame.height))
            self._add(self._sources[frame.source], frame)
        for ended in batch.ended:
            source = self._sources.get(ended.source)
            if source is not None:
                self._pass(source, source.step_s)
                source.pts_s, source.said, source.ended = None, [], ended.reason

    def close(self) -> None:
        """The ledger is not known yet."""

    def finish(self, info: dict[str, Any] | None = None) -> None:
        """Write it. `info`: the ledger ({"ledger": {source: {decoded, shown, dropped}}}) and the run's seconds. Idempotent."""
        if self._finished or not self._sources:
            return
        self._finished = True
        from pipeline.sinks.report_page import page

        if not self._overwrite and not is_stream(self.path) and Path(self.path).exists():
            raise SinkError(f"{self.path} exists; --overwrite replaces it")
        for source in self._sources.values():
            self._pass(source, source.step_s)
            source.said = []
        text = page(self._sources, self._info, info or {}, self._begun)
        try:
            write_whole(Path(self.path), text.encode(errors="backslashreplace"))
        except OSError as error:
            raise SinkError(f"cannot write the report {self.path}: {error.strerror or error}") from error

    def _add(self, source: Watched, frame: Frame) -> None:
        now, image = frame.pts_s, source.kind == "image"
        if image:
            source.step_s = 1.0
        elif source.pts_s is not None:
            source.step_s = min(max(now - source.pts_s, 0.0), _LONGEST_STEP_S)
        if source.pts_s is not None:
            self._pass(source, source.step_s)
        source.pts_s, source.said = now, []
        source.first_s = now if source.first_s is None else source.first_s
        source.last_s = now
        source.frames += 1
        faces = frame.faces
        if faces is None or len(faces) == 0:
            return
        source.faces += len(faces)
        smoothed = faces.data.get("smoothed", np.full((len(faces), len(LABELS)), np.nan))
        emotions = faces.data.get("emotion", [UNCERTAIN] * len(faces))
        for i in range(len(faces)):
            track = source.faces - len(faces) + i if image else -1 if faces.tracker_id is None else int(faces.tracker_id[i])
            if self._person(source, track, frame, i, now):
                source.said.append((track, SHOWN.index(str(emotions[i])), np.asarray(smoothed[i], np.float64)))

    def _person(self, source: Watched, track: int, frame: Frame, i: int, now: float) -> bool:
        """Is face `i` of this frame one that is told apart? Notes it and looks at its crop."""
        if track < 0:
            return False
        person = source.people.get(track)
        if person is None:
            if len(source.people) >= MOST_PEOPLE:  # ids grow, so a higher one is new
                source.more_people += track > source.highest
                source.highest = max(source.highest, track)
                return False
            source.highest = max(source.highest, track)
            name = f"#{track}" if source.kind != "image" else Path(frame.origin or frame.source).name
            person = source.people[track] = Person(name, now, now)
        person.last_s = now
        data, box = frame.faces.data, frame.faces.xyxy[i]
        if "observed" not in data or data["observed"][i]:
            quality = float(np.nan_to_num(data["quality"][i])) if "quality" in data else 0.5
            worth = (quality + 0.05) * min(float(max(box[2] - box[0], box[3] - box[1])), 2 * _THUMBNAIL)
            if worth > person.best * _BETTER:
                person.best, person.thumbnail = worth, self._thumbnail(frame, box)
        return True

    def _thumbnail(self, frame: Frame, box: np.ndarray) -> str | None:
        shape = frame.pixel_shape
        crop = crop_square(square_pixels(bgr_of(frame, self._reformatter), shape), square_boxes(box, shape), 1.5)
        way = cv2.INTER_AREA if len(crop) > _THUMBNAIL else cv2.INTER_CUBIC
        crop = cv2.resize(crop, (_THUMBNAIL, _THUMBNAIL), interpolation=way)
        done, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 82])
        return base64.b64encode(data).decode() if done else None

    def _pass(self, source: Watched, seconds: float) -> None:
        """The faces of the frame before were there for `seconds`."""
        for track, label, probabilities in source.said:
            if seconds > 0 and source.pts_s is not None:
                if source.kind != "image":
                    source.timeline.add(track, source.pts_s, seconds, label, probabilities)
                    source.table.add(track, source.pts_s, seconds, label, probabilities)
                one = Cell()
                one.seconds[label] = seconds
                if not np.isnan(probabilities).all():
                    one.weighted, one.known = probabilities * seconds, seconds
                source.people[track].total.add(one)
                source.total.add(one)


def check_report(path: str) -> None:
    """UsageError unless it is named as a page is."""
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path}: a report's suffix must be .html, got {Path(path).suffix or 'none'}")
