"""What a run saw, in numbers: frames, tracks, and how long each label was shown.

Shares are shares of time, not of frames: a face counts for the time until its source's next frame, so that a variable
rate or dropped frames do not weigh some moments more than others. Speed is frames finished per second from the first
frame decoded to the moment when every sink has closed.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engines.contract import LABELS, UNCERTAIN
from pipeline.events import confidence_of
from pipeline.flow.batch import Batch

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.flow.ledger import LedgerSnapshot
    from pipeline.types import Frame

_ALL = (*LABELS, UNCERTAIN)
_MOST_TRACKS = 10_000
"""Tracks described one by one; a camera that runs for months sees more, which are only counted."""
_LONGEST_STEP_S = 1.0
"""A frame counts for no longer than this, however late the next one is."""


@dataclass
class _Track:
    first_s: float
    last_s: float
    frames: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    confidence: float = 0.0
    confident: int = 0


@dataclass
class _Source:
    image: bool
    frames: int = 0
    carried: int = 0
    """Of those, frames that the detector did not look at."""
    faces: int = 0
    tracks: dict[int, _Track] = field(default_factory=dict)
    highest_id: int = -1
    more_tracks: int = 0
    pts_s: float | None = None
    step_s: float = 1.0
    """What its last frame counts for: a picture, and a film of one frame, have no next one and count once."""
    said: list[tuple[int, str]] = field(default_factory=list)
    """Tracker id and label of each face of the frame before."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class SummarySink:
    """Collects; `result` and `print` after the run. `clock`: monotonic seconds, the one of Frame.captured_at."""

    name = "summary"
    best_effort = False

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._last: dict[str, Any] | None = None
        self._seconds: float | None = None
        self.first_decoded_at: float | None = None
        """Monotonic seconds, None before any frame."""

    def write(self, batch: Batch) -> None:
        for frame in batch.frames:
            if self.first_decoded_at is None or frame.captured_at < self.first_decoded_at:
                self.first_decoded_at = frame.captured_at
            source = self._sources.setdefault(frame.source, _Source(image=frame.info.kind == "image"))
            self._add(source, frame)
        for ended in batch.ended:
            source = self._sources.get(ended.source)
            if source is not None:  # the last frame counts as long as the one before
                self._pass(source, source.step_s)
                source.pts_s, source.said = None, []

    def close(self) -> None:
        """The clock runs until `result`: other sinks may still be finishing their files."""

    def result(self, ledger: LedgerSnapshot | None = None, seconds: float | None = None) -> dict[str, Any]:
        """Plain values for JSON, no NaN. `seconds`: what frames per second are worked out with (default: first frame → now).

        Keys: fps, seconds, frames, faces, tracks, sources {name: {decoded, shown, dropped {cause: n}, carried}}, labels {label: share},
        tracks_detail [{source, tracker_id, first_pts_s, last_pts_s, frames, shares {label: share}, confidence}].
        """
        if seconds is None:
            if self._seconds is None and self.first_decoded_at is not None:
                self._seconds = self._clock() - self.first_decoded_at
            seconds = self._seconds
        sources = self._sources
        frames = sum(source.frames for source in sources.values())
        total: dict[str, float] = defaultdict(float)
        for source in sources.values():
            for label, spent in source.seconds.items():
                total[label] += spent
        self._last = {
            "fps": round(frames / seconds, 3) if seconds and seconds > 0 else None,
            "seconds": None if seconds is None else round(seconds, 3),
            "frames": frames,
            "faces": sum(source.faces for source in sources.values()),
            "tracks": sum(len(source.tracks) + source.more_tracks for source in sources.values()),
            "sources": self._accounts(ledger),
            "labels": _shares(total),
            "tracks_detail": [
                _described(name, tracker_id, track)
                for name, source in sources.items()
                for tracker_id, track in sorted(source.tracks.items())
            ],
        }
        return self._last

    def print(self, console: Console, most: int = 20) -> None:
        """The last result as tables, with the `most` longest tracks."""
        from rich.markup import escape
        from rich.table import Table

        result = self._last or self.result()
        speed = "" if result["fps"] is None else f" in {result['seconds']:.1f} s, {result['fps']:.1f} fps"
        head = f"[bold]{result['frames']} frames[/bold]{speed} · faces in them: {result['faces']} · tracks: {result['tracks']}"
        console.print(head, highlight=False, soft_wrap=True)
        for name, account in result["sources"].items():
            dropped = ", ".join(f"{count} {cause}" for cause, count in account["dropped"].items()) or "none"
            carried = f" ({account['carried']} without a look of the detector)" if account["carried"] else ""
            line = f"{name}: {account['decoded']} decoded, {account['shown']} shown{carried}, dropped: {dropped}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        tracks = sorted(result["tracks_detail"], key=lambda track: track["first_pts_s"] - track["last_pts_s"])[:most]
        if tracks:
            several = len(result["sources"]) > 1
            table = Table(box=None, pad_edge=False, header_style="bold")
            for title in (["source"] if several else []) + ["id", "seen (s)", "frames"]:
                table.add_column(title, justify="left" if title == "source" else "right", no_wrap=title != "source")
            table.add_column("labels (share of time)")
            table.add_column("confidence", justify="right")
            for track in sorted(tracks, key=lambda track: (track["source"], track["tracker_id"])):
                shares = sorted(track["shares"].items(), key=lambda pair: -pair[1])
                cells = [escape(track["source"])] if several else []
                cells += [str(track["tracker_id"]), f"{track['first_pts_s']:.1f}–{track['last_pts_s']:.1f}", str(track["frames"])]
                cells += [", ".join(f"{label} {share:.0%}" for label, share in shares if share >= 0.005)]
                table.add_row(*cells, "–" if track["confidence"] is None else f"{track['confidence']:.2f}")
            console.print(table)
            if len(result["tracks_detail"]) > len(tracks):
                console.print(f"and {result['tracks'] - len(tracks)} shorter tracks")

    def _add(self, source: _Source, frame: Frame) -> None:
        now, faces = frame.pts_s, frame.faces
        if not source.image and source.pts_s is not None:
            source.step_s = min(max(now - source.pts_s, 0.0), _LONGEST_STEP_S)
        if source.pts_s is not None:
            self._pass(source, source.step_s)
        source.pts_s, source.said = now, []
        source.frames += 1
        source.carried += frame.hidden is None
        if faces is None or len(faces) == 0:
            return
        source.faces += len(faces)
        emotions, smoothed = faces.data.get("emotion"), faces.data.get("smoothed")
        for i in range(len(faces)):
            tracker_id = -1 if faces.tracker_id is None else int(faces.tracker_id[i])
            label = UNCERTAIN if emotions is None else str(emotions[i])
            source.said.append((tracker_id, label))
            if tracker_id < 0 or source.image:
                continue
            track = source.tracks.get(tracker_id)
            if track is None:
                if len(source.tracks) >= _MOST_TRACKS:  # ids grow, so a higher one is new
                    source.more_tracks += tracker_id > source.highest_id
                    source.highest_id = max(source.highest_id, tracker_id)
                    continue
                source.highest_id = max(source.highest_id, tracker_id)
                track = source.tracks[tracker_id] = _Track(now, now)
            track.last_s = now
            track.frames += 1
            confidence = math.nan if smoothed is None else confidence_of(label, smoothed[i])
            if not math.isnan(confidence):
                track.confidence += confidence
                track.confident += 1

    def _pass(self, source: _Source, seconds: float) -> None:
        """The faces of the frame before were there for `seconds`."""
        for tracker_id, label in source.said:
            source.seconds[label] += seconds
            track = source.tracks.get(tracker_id)
            if track is not None:
                track.seconds[label] += seconds

    def _accounts(self, ledger: LedgerSnapshot | None) -> dict[str, dict[str, Any]]:
        if ledger is None:
            accounts = {name: {"decoded": one.frames, "shown": one.frames, "dropped": {}} for name, one in self._sources.items()}
        else:
            books = ledger.sources.items()
            accounts = {name: {"decoded": one.decoded, "shown": one.shown, "dropped": dict(one.dropped)} for name, one in books}
        for name, account in accounts.items():
            account["carried"] = self._sources[name].carried if name in self._sources else 0
        return accounts


def _shares(seconds: dict[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    return {label: round(seconds.get(label, 0.0) / total, 4) if total > 0 else 0.0 for label in _ALL}


def _described(source: str, tracker_id: int, track: _Track) -> dict[str, Any]:
    return {
        "source": source,
        "tracker_id": tracker_id,
        "first_pts_s": round(track.first_s, 6),
        "last_pts_s": round(track.last_s, 6),
        "frames": track.frames,
        "shares": _shares(track.seconds),
        "confidence": round(track.confidence / track.confident, 4) if track.confident else None,
    }
