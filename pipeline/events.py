"""Schema v1 of the event rows: what a run says, one dict per row, the same for every format and every listener.

Rows are made here and nowhere else, so that JSON lines, CSV, a database and a live page cannot drift apart. Whatever
depends on earlier frames (a track's first sight, an epoch's first frame) is kept by `EventRows`; the rest is pure.
Numbers are rounded here, once, so that two runs differ in no digit: pixels to 2 places, scores and probabilities to 6,
seconds to 6 (a 1/90000 clock needs 5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.contract import LABELS, UNCERTAIN

if TYPE_CHECKING:
    from pipeline.flow.batch import Batch, Ended
    from pipeline.types import Frame, TrackEnd

__all__ = ["COLUMNS", "KINDS", "SCHEMA_VERSION", "EventRows", "info_text", "rows_from_ended", "rows_from_frame", "run_row"]

SCHEMA_VERSION = 1

KINDS = ("face", "frame", "track_started", "track_ended", "source_state", "run")

COLUMNS: tuple[str, ...] = (
    "source", "epoch", "frame", "pts_s", "time_utc", "kind", "tracker_id",
    "x1", "y1", "x2", "y2", "detection_confidence", "observed", "quality", "emotion", "confidence",
    *(f"p_{label}" for label in LABELS),
    *(f"raw_{label}" for label in LABELS),
    "info",
)  # fmt: skip
"""Every row has every column in this order, None where it does not apply."""

_EMPTY: dict[str, Any] = dict.fromkeys(COLUMNS)
_P = [f"p_{label}" for label in LABELS]
_RAW = [f"raw_{label}" for label in LABELS]


class EventRows:
    """Rows of a run, in order. Remembers which epochs and which tracks it has spoken of; one per listener."""

    def __init__(self) -> None:
        self._epochs: dict[str, int] = {}
        self._ids: dict[str, set[int]] = {}

    def rows(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """Per frame: source_state (an epoch's first frame), track_ended, track_started, then its face or frame rows.

        The ends of a batch follow its frames. Pictures are not tracked: their ids begin anew in each, and start nothing.
        """
        for frame in batch.frames:
            yield from self.rows_from_frame(frame)
        for ended in batch.ended:
            yield from self.rows_from_ended(ended)

    def rows_from_frame(self, frame: Frame) -> Iterator[dict[str, Any]]:
        if self._epochs.get(frame.source) != frame.epoch:
            self._epochs[frame.source] = frame.epoch
            yield _row("source_state", source=frame.source, info=info_text({"state": "RUNNING"}), **_at(frame))
        faces = rows_from_frame(frame)
        if frame.info.kind != "image":
            ids = self._ids.setdefault(frame.source, set())
            for end in frame.ended_tracks:
                ids.discard(end.tracker_id)
                yield _track_ended(end, source=frame.origin or frame.source, **_at(frame))
            for row in faces:
                tracker_id = row["tracker_id"]
                if tracker_id is not None and tracker_id not in ids:
                    ids.add(tracker_id)
                    yield _row("track_started", source=row["source"], tracker_id=tracker_id, **_at(frame))
        yield from faces

    def rows_from_ended(self, ended: Ended) -> Iterator[dict[str, Any]]:
        ids = self._ids.get(ended.source)
        if ids is not None:
            ids.clear()
        yield from rows_from_ended(ended)


def rows_from_frame(frame: Frame) -> list[dict[str, Any]]:
    """One "face" row per face, in the order of `frame.faces`; one "frame" row, without an id, where there is none."""
    source, at, faces = frame.origin or frame.source, _at(frame), frame.faces
    count = 0 if faces is None else len(faces)
    if count == 0:
        return [_row("frame", source=source, **at)]
    data = faces.data
    smoothed = _matrix(data.get("smoothed"), count)
    boxes, shown, raw = _numbers(faces.xyxy, 2), _numbers(smoothed, 6), _numbers(_matrix(data.get("probs"), count), 6)
    emotions = data.get("emotion")
    rows = []
    for i in range(count):
        tracker_id = -1 if faces.tracker_id is None else int(faces.tracker_id[i])
        emotion = UNCERTAIN if emotions is None else str(emotions[i])
        row = _row("face", source=source, **at)
        row["tracker_id"] = None if tracker_id < 0 else tracker_id
        row["x1"], row["y1"], row["x2"], row["y2"] = boxes[i]
        row["detection_confidence"] = None if faces.confidence is None else _number(faces.confidence[i], 6)
        row["observed"] = bool(data["observed"][i]) if "observed" in data else True
        row["quality"] = _number(data["quality"][i], 6) if "quality" in data else None
        row["emotion"] = emotion
        row["confidence"] = _number(confidence_of(emotion, smoothed[i]), 6)
        row.update(zip(_P, shown[i], strict=True))
        row.update(zip(_RAW, raw[i], strict=True))
        if "extra" in data and data["extra"][i]:
            row["info"] = info_text({"extra": data["extra"][i]})
        rows.append(row)
    return rows


def rows_from_ended(ended: Ended) -> list[dict[str, Any]]:
    """The tracks that ended with the source, then its state: LOST (a reconnect follows), FAILED or ENDED, and why.

    These rows belong to no frame: `frame` and `pts_s` are None, a track's last sight is `last_pts_s` in its `info`.
    """
    state = "LOST" if not ended.final else "FAILED" if ended.failed else "ENDED"
    at = {"source": ended.source, "epoch": ended.epoch}
    rows = [_track_ended(end, **at) for end in ended.added if hasattr(end, "tracker_id")]
    return [*rows, _row("source_state", info=info_text({"state": state, "reason": ended.reason}), **at)]


def run_row(info: dict[str, Any]) -> dict[str, Any]:
    """A row about the run itself: the first (run id, purpose, models, settings) and the last (the ledger)."""
    return _row("run", info=info_text({"schema_version": SCHEMA_VERSION, **info}))


def confidence_of(emotion: str, probabilities: np.ndarray) -> float:
    """Smoothed probability of the label said; of the likeliest class where the label is "uncertain"; NaN before any.

    `probabilities` (7,) in the order of LABELS; NaN where a model lacks a class.
    """
    if emotion in LABELS:
        return float(probabilities[LABELS.index(emotion)])
    known = probabilities[~np.isnan(probabilities)]
    return float(known.max()) if known.size else math.nan


def info_text(info: dict[str, Any]) -> str:
    """JSON on one line, strict (NaN and infinities become null), keys in the order given."""
    return json.dumps(_clean(info), ensure_ascii=False, allow_nan=False)


def _row(kind: str, **values: Any) -> dict[str, Any]:
    row = dict(_EMPTY)
    row["kind"] = kind
    row.update(values)
    return row


def _at(frame: Frame) -> dict[str, Any]:
    return {"epoch": frame.epoch, "frame": frame.index, "pts_s": _number(frame.pts_s, 6), "time_utc": _utc(frame.time_utc)}


def _track_ended(end: TrackEnd, **values: Any) -> dict[str, Any]:
    info = {"reason": end.reason, "last_pts_s": _number(end.last_pts_s, 6)}
    return _row("track_ended", tracker_id=end.tracker_id, info=info_text(info), **values)


def _utc(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _matrix(values: Any, count: int) -> np.ndarray:
    return np.full((count, len(LABELS)), np.nan) if values is None else np.asarray(values, np.float64)


def _number(value: Any, digits: int) -> float | None:
    value = float(value)
    return round(value, digits) + 0.0 if math.isfinite(value) else None  # + 0.0: no "-0.0"


def _numbers(rows: Any, digits: int) -> list[list[float | None]]:
    """_number() of all of an (N, M) array at once, which is what makes a crowd's rows cheap."""
    rounded = np.round(np.asarray(rows, np.float64), digits) + 0.0
    return np.where(np.isfinite(rounded), rounded.astype(object), None).tolist()


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, np.ndarray):
        return _clean(value.tolist())
    if isinstance(value, Iterable):
        return [_clean(inner) for inner in value]
    return str(value)
