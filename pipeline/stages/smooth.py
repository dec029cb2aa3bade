"""Expressions over time: per track, in seconds, never in frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.contract import LABELS, UNCERTAIN
from pipeline.flow.batch import Batch
from pipeline.stages.epochs import forget

if TYPE_CHECKING:
    from pipeline.types import Faces, Frame

_EPSILON = 1e-6  # a probability of exactly 0 would forbid a label for ever


@dataclass
class TrackState:
    """What is known of one face's expression."""

    log_probs: np.ndarray
    """(C,) normalised log-probabilities over time: the seven, and one for all that a classifier says beyond them."""
    good_s: float
    """When it was last read."""
    known: np.ndarray
    """(C,) bool: the labels that the model can say; the others stay NaN."""
    label: int
    """The label that is said, an index; it changes only after a challenger led for long enough."""
    challenger: int = -1
    since_s: float = 0.0
    in_vain: bool = False
    """Since it was last read it was looked at and could not be read; until then it only waits for its turn."""


class Smooth:
    """Adds `smoothed` (N, 7) and `emotion` (N,) to `frame.faces`.

    s(t) ∝ exp((1 − w) · log s(t − Δt) + w · log p(t)) with w = (1 − exp(−Δt / τ)) · quality: an exponential kernel on
    log-probabilities, so that one sure answer outweighs several faint ones. A new label must lead the old one by `margin`
    for `dwell_s`; below `min_confidence`, or where no crop could be read for `hold_s`, the answer is "uncertain". A face that only waits
    for its turn (the classifier's budget, `max_age_s`) keeps what was said of it, however rare frames are.

    What a classifier says beyond the seven (`extra`) keeps its share: `smoothed` then adds up to less than 1, and where that
    share leads, none of the seven is said: "uncertain".
    """

    name = "smooth"
    lookahead = 0

    def __init__(
        self, *, tau_s: float = 0.2, margin: float = 0.05, dwell_s: float = 0.1, min_confidence: float = 0.4, hold_s: float = 1.0
    ) -> None:
        self._tau_s, self._margin, self._dwell_s = tau_s, margin, dwell_s
        self._min_confidence, self._hold_s = min_confidence, hold_s
        self._tracks: dict[tuple[str, int, int], TrackState] = {}

    def open(self) -> None:
        pass

    def process(self, batch: Batch) -> Batch:
        for frame in batch.frames:
            self._frame(frame)
        for ended in batch.ended:
            forget(self._tracks, ended)
        return batch

    def close(self) -> None:
        self._tracks.clear()

    def _frame(self, frame: Frame) -> None:
        faces, now, read = frame.faces, frame.pts_s, _all_classes(frame.faces)
        n = len(faces)
        smoothed = np.full((n, len(LABELS)), np.nan, np.float32)
        emotion = np.full(n, UNCERTAIN, object)
        for row in range(n):
            probs, quality, track = read[row], faces.data["quality"][row], int(faces.tracker_id[row])
            if frame.info.kind == "image" or track < 0:  # nothing before it to lean on
                if not np.isnan(probs).all():
                    smoothed[row] = probs[: len(LABELS)]
                    emotion[row] = self._said(np.nan_to_num(probs), int(np.nanargmax(probs)))
                continue
            key = (frame.source, frame.epoch, track)
            state = self._tracks.get(key)
            if not np.isnan(probs).all():
                state = self._tracks[key] = self._step(state, probs, float(quality), now)
            elif state is not None:  # unless nobody looked at it
                state.in_vain |= not math.isnan(quality) or (frame.hidden is not None and not faces.data["observed"][row])
            if state is not None:
                p = np.exp(state.log_probs)
                smoothed[row] = np.where(state.known, p, np.nan)[: len(LABELS)]
                emotion[row] = UNCERTAIN if state.in_vain and self._is_old(state, now) else self._said(p, state.label)
        for ended in frame.ended_tracks:
            self._tracks.pop((frame.source, frame.epoch, ended.tracker_id), None)
        faces.data["smoothed"], faces.data["emotion"] = smoothed, emotion

    def _said(self, probs: np.ndarray, label: int) -> str:
        known = label < len(LABELS) and probs[: len(LABELS)].max() >= self._min_confidence
        return LABELS[label] if known else UNCERTAIN

    def _is_old(self, state: TrackState, now: float) -> bool:
        return _elapsed(state.good_s, now) > self._hold_s

    def _step(self, state: TrackState | None, probs: np.ndarray, quality: float, now: float) -> TrackState:
        """One reading more; a track's first, and the first after "uncertain", sets its state whatever its quality."""
        log_p = np.log(np.maximum(np.nan_to_num(probs.astype(np.float64)), _EPSILON))
        if state is None or self._is_old(state, now):
            log_p -= np.log(np.exp(log_p).sum())
            return TrackState(log_p, now, ~np.isnan(probs), int(log_p.argmax()))
        elapsed = max(now - state.good_s, 0.0)
        weight = quality if self._tau_s == 0 else (1 - math.exp(-elapsed / self._tau_s)) * quality
        mixed = (1 - weight) * state.log_probs + weight * log_p
        state.log_probs = mixed - np.log(np.exp(mixed).sum())
        state.good_s, state.in_vain = now, False
        self._contest(state, now)
        return state

    def _contest(self, state: TrackState, now: float) -> None:
        """Hysteresis: the label changes when one and the same challenger has led by `margin` for `dwell_s`."""
        p = np.exp(state.log_probs)
        top = int(p.argmax())
        if top == state.label or p[top] - p[state.label] < self._margin:
            state.challenger = -1
            return
        if top != state.challenger:
            state.challenger, state.since_s = top, now
        if _elapsed(state.since_s, now) >= self._dwell_s:
            state.label, state.challenger = top, -1


def _elapsed(since_s: float, now: float) -> float:
    """To the microsecond: three frames of 1/30 s are .1 s, wherever in the clip they lie."""
    return round(now - since_s, 6)


def _all_classes(faces: Faces) -> np.ndarray:
    """(N, 7), or (N, 8) with the sum of what is said beyond the seven; NaN rows where a face was not read."""
    probs = faces.data["probs"]
    if "extra" not in faces.data:
        return probs
    return np.column_stack([probs, [sum(said.values()) if said else np.nan for said in faces.data["extra"]]])
