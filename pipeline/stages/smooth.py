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
    shown: np.ndarray
    """(7,) the probabilities of the seven; NaN where the model cannot say one."""
    good_s: float
    """When it was last read."""
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
        """All faces of a frame in one calculation: it is short Python work, thirty times a second for each of them."""
        faces, now, read = frame.faces, frame.pts_s, _all_classes(frame.faces)
        n, still = len(faces), frame.info.kind == "image"
        can_say = ~np.isnan(read)
        was_read, tracks, quality = can_say.any(1).tolist(), faces.tracker_id.tolist(), faces.data["quality"].tolist()
        log_p = np.log(np.maximum(np.nan_to_num(read.astype(np.float64)), _EPSILON))
        keys = [None if still or track < 0 else (frame.source, frame.epoch, track) for track in tracks]
        states = [self._tracks.get(key) if key else None for key in keys]

        before, weight = log_p.copy(), np.ones((n, 1))  # a track's first reading, and its first after "uncertain", sets its state
        for row, state in enumerate(states):
            if was_read[row] and state is not None and not self._is_old(state, now):
                before[row], weight[row] = state.log_probs, self._weight(now - state.good_s, quality[row])
            else:
                states[row] = None if was_read[row] else state
        mixed = (1 - weight) * before + weight * log_p
        mixed -= np.log(np.exp(mixed).sum(1, keepdims=True))
        probs = np.exp(mixed)
        shown = np.where(can_say, probs, np.nan)[:, : len(LABELS)]

        smoothed = np.full((n, len(LABELS)), np.nan, np.float32)
        emotion = np.full(n, UNCERTAIN, object)
        for row, (key, state) in enumerate(zip(keys, states, strict=True)):
            if key is None:  # nothing before it to lean on
                if was_read[row]:
                    smoothed[row] = read[row, : len(LABELS)]
                    emotion[row] = self._said(smoothed[row], int(np.nanargmax(read[row])))
                continue
            if was_read[row]:
                if state is None:
                    state = self._tracks[key] = TrackState(mixed[row], shown[row], now, int(mixed[row].argmax()))
                else:
                    state.log_probs, state.shown, state.good_s, state.in_vain = mixed[row], shown[row], now, False
                    self._contest(state, probs[row].tolist(), now)
            elif state is None:
                continue
            else:  # unless nobody looked at it
                state.in_vain |= not math.isnan(quality[row]) or (frame.hidden is not None and not faces.data["observed"][row])
            smoothed[row] = state.shown
            emotion[row] = UNCERTAIN if state.in_vain and self._is_old(state, now) else self._said(state.shown, state.label)
        for ended in frame.ended_tracks:
            self._tracks.pop((frame.source, frame.epoch, ended.tracker_id), None)
        faces.data["smoothed"], faces.data["emotion"] = smoothed, emotion

    def _said(self, shown: np.ndarray, label: int) -> str:
        known = label < len(LABELS) and np.fmax.reduce(shown) >= self._min_confidence
        return LABELS[label] if known else UNCERTAIN

    def _is_old(self, state: TrackState, now: float) -> bool:
        return _elapsed(state.good_s, now) > self._hold_s

    def _weight(self, elapsed_s: float, quality: float) -> float:
        return quality if self._tau_s == 0 else (1 - math.exp(-max(elapsed_s, 0.0) / self._tau_s)) * quality

    def _contest(self, state: TrackState, probs: list[float], now: float) -> None:
        """Hysteresis: the label changes when one and the same challenger has led by `margin` for `dwell_s`."""
        top = probs.index(max(probs))
        if top == state.label or probs[top] - probs[state.label] < self._margin:
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
