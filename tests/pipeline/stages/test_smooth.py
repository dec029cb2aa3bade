"""Smoothing: sequences computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from frames import PICTURE, detections, frame

from engines.contract import LABELS
from pipeline.flow.batch import Batch, Ended
from pipeline.stages.smooth import Smooth

HAPPY, SAD, NEUTRAL = (LABELS.index(label) for label in ("happy", "sad", "neutral"))


def sure(label: int, top: float = 0.88) -> np.ndarray:
    p = np.full(7, (1 - top) / 6, np.float32)
    p[label] = top
    return p


def read(stage: Smooth, pts_s: float, probs: np.ndarray | None, quality: float = 1.0, track: int = 1,
         extra: dict[str, float] | None = None, observed: bool = True, **kw):  # fmt: skip
    f = frame(0, pts_s, **kw)
    f.hidden = np.zeros((0, 4), np.float32)
    f.faces = detections((10, 10, 60, 60, 0.9))
    f.faces.tracker_id = np.array([track])
    f.faces.data |= {
        "quality": np.array([quality], np.float32),
        "observed": np.array([observed]),
        "probs": np.full((1, 7), np.nan, np.float32) if probs is None else probs[None].astype(np.float32),
    }
    if extra is not None:
        f.faces.data["extra"] = np.array([extra or None], object)
    stage.process(Batch([f]))
    return f.faces.data["smoothed"][0], f.faces.data["emotion"][0]


def test_the_first_reading_sets_the_state() -> None:
    smoothed, emotion = read(Smooth(), 0.0, sure(HAPPY), quality=0.2)
    np.testing.assert_allclose(smoothed, sure(HAPPY), rtol=1e-5)
    assert emotion == "happy"


def test_a_step_moves_log_probabilities_by_the_kernel() -> None:
    stage = Smooth(tau_s=0.2)
    read(stage, 0.0, sure(HAPPY))
    smoothed, _ = read(stage, 0.1, sure(SAD), quality=0.5)
    w = (1 - math.exp(-0.5)) * 0.5  # .19673
    # log ratio of happy to sad: (1 − w)·log(.88/.02) + w·log(.02/.88) = (1 − 2w)·log 44
    assert math.log(smoothed[HAPPY] / smoothed[SAD]) == pytest.approx((1 - 2 * w) * math.log(44), rel=1e-5)
    assert smoothed.sum() == pytest.approx(1, abs=1e-6)


def test_variable_rate_gives_the_same_as_the_same_time_in_more_steps() -> None:
    coarse, fine = Smooth(tau_s=0.3), Smooth(tau_s=0.3)
    for stage, steps in ((coarse, [0.4]), (fine, [0.1, 0.15, 0.33, 0.4])):
        read(stage, 0.0, sure(HAPPY))
        for t in steps:
            smoothed, _ = read(stage, t, sure(SAD))
        assert math.log(smoothed[HAPPY] / smoothed[SAD]) == pytest.approx((2 * math.exp(-0.4 / 0.3) - 1) * math.log(44), rel=1e-4)


def test_a_long_gap_lets_the_new_reading_win() -> None:
    stage = Smooth(tau_s=0.2, hold_s=1.0)
    read(stage, 0.0, sure(HAPPY))
    smoothed, _ = read(stage, 10.0, sure(SAD))
    np.testing.assert_allclose(smoothed, sure(SAD), rtol=1e-3)


def test_tau_zero_is_no_smoothing() -> None:
    stage = Smooth(tau_s=0)
    read(stage, 0.0, sure(HAPPY))
    np.testing.assert_allclose(read(stage, 0.04, sure(SAD))[0], sure(SAD), rtol=1e-4)


def test_a_new_label_must_lead_for_dwell_s() -> None:
    stage = Smooth(tau_s=0, margin=0.05, dwell_s=0.1)
    labels = [read(stage, t, sure(HAPPY if t == 0 else SAD))[1] for t in (0.0, 0.04, 0.08, 0.12, 0.16)]
    assert labels == ["happy", "happy", "happy", "happy", "sad"]  # leads since .04; .14 − .04 ≥ .1 first holds at .16


def test_a_challenger_that_falls_back_starts_again() -> None:
    stage = Smooth(tau_s=0, margin=0.05, dwell_s=0.1)
    sequence = [(0.0, HAPPY), (0.04, SAD), (0.08, SAD), (0.12, HAPPY), (0.16, SAD), (0.2, SAD), (0.24, SAD), (0.28, SAD)]
    labels = [read(stage, t, sure(label))[1] for t, label in sequence]
    assert labels == ["happy"] * 7 + ["sad"]


def test_dwell_s_is_a_number_of_frames_wherever_they_lie_in_the_clip() -> None:
    for first in range(300):
        stage = Smooth(tau_s=0, margin=0.05, dwell_s=0.1)
        labels = [read(stage, (first + i) / 30, sure(SAD if i else HAPPY))[1] for i in range(5)]
        assert labels == ["happy"] * 4 + ["sad"], first


def test_one_and_the_same_challenger_must_lead_for_dwell_s() -> None:
    stage = Smooth(tau_s=0, margin=0.05, dwell_s=0.1)
    sequence = [(0.0, HAPPY), (0.04, SAD), (0.08, SAD), (0.16, NEUTRAL), (0.2, NEUTRAL), (0.26, NEUTRAL)]
    assert [read(stage, t, sure(label))[1] for t, label in sequence] == ["happy"] * 5 + ["neutral"]


def test_the_lead_must_last_for_dwell_s() -> None:
    stage = Smooth(tau_s=0, margin=0.2, dwell_s=0.1, min_confidence=0)
    close = np.array([0.02, 0.02, 0.02, 0.42, 0.48, 0.02, 0.02])
    sequence = [(0.0, sure(HAPPY)), (0.04, sure(SAD)), (0.08, close), (0.12, sure(SAD)), (0.16, sure(SAD))]
    assert [read(stage, t, p)[1] for t, p in sequence] == ["happy"] * 5


def test_a_lead_below_the_margin_changes_nothing() -> None:
    stage = Smooth(tau_s=0, margin=0.2, dwell_s=0.0, min_confidence=0.0)
    read(stage, 0.0, sure(HAPPY))
    close = np.array([0.02, 0.02, 0.02, 0.42, 0.48, 0.02, 0.02])
    assert read(stage, 0.1, close)[1] == "happy"


def test_below_min_confidence_the_answer_is_uncertain() -> None:
    assert read(Smooth(min_confidence=0.5), 0.0, sure(HAPPY, 0.45))[1] == "uncertain"
    assert read(Smooth(min_confidence=0.4), 0.0, sure(HAPPY, 0.45))[1] == "happy"


def test_without_a_good_crop_for_hold_s_the_answer_is_uncertain() -> None:
    stage = Smooth(hold_s=0.5)
    read(stage, 0.0, sure(HAPPY))
    smoothed, emotion = read(stage, 0.5, None)
    assert emotion == "happy"
    np.testing.assert_allclose(smoothed, sure(HAPPY), rtol=1e-5)
    assert read(stage, 0.54, None)[1] == "uncertain"
    assert read(stage, 0.6, sure(HAPPY))[1] == "happy"


def test_hold_s_is_a_number_of_frames_wherever_they_lie_in_the_clip() -> None:
    for first in range(300):
        stage = Smooth(hold_s=0.1)
        labels = [read(stage, (first + i) / 30, None if i else sure(HAPPY))[1] for i in range(5)]
        assert labels == ["happy"] * 4 + ["uncertain"], first


def test_a_face_that_waits_for_its_turn_keeps_what_was_said_and_one_that_is_covered_does_not() -> None:
    waits, covered = Smooth(hold_s=0.5), Smooth(hold_s=0.5)
    for stage in (waits, covered):
        read(stage, 0.0, sure(HAPPY))
    assert [read(waits, t, None, quality=math.nan)[1] for t in (1.5, 3.0)] == ["happy"] * 2
    assert read(waits, 4.5, None, quality=0.01)[1] == "uncertain"
    assert read(waits, 6.0, None, quality=math.nan)[1] == "uncertain"
    assert read(waits, 7.5, sure(SAD))[1] == "sad"
    assert read(waits, 9.0, None, quality=math.nan)[1] == "sad"
    assert [read(covered, t, None, quality=math.nan, observed=False)[1] for t in (0.4, 0.6)] == ["happy", "uncertain"]


@pytest.mark.parametrize("quality", [0.2, 1.0])
def test_after_uncertain_nothing_is_left_of_what_was_said_before_it(quality: float) -> None:
    stage = Smooth(hold_s=0.5, dwell_s=0.1)
    read(stage, 0.0, sure(SAD, 0.95))
    assert read(stage, 0.6, None)[1] == "uncertain"
    smoothed, emotion = read(stage, 3.0, sure(HAPPY), quality=quality)
    assert emotion == "happy"
    np.testing.assert_allclose(smoothed, sure(HAPPY), rtol=1e-5)


def test_a_face_never_read_has_no_probabilities() -> None:
    smoothed, emotion = read(Smooth(), 0.0, None)
    assert np.isnan(smoothed).all()
    assert emotion == "uncertain"


def test_a_class_that_the_model_lacks_stays_empty() -> None:
    six = sure(HAPPY)
    six[1] = np.nan
    stage = Smooth()
    read(stage, 0.0, six)
    smoothed, emotion = read(stage, 0.1, None)
    assert np.isnan(smoothed[1])
    assert not np.isnan(np.delete(smoothed, 1)).any()
    assert emotion == "happy"


def test_a_class_beyond_the_seven_keeps_its_share() -> None:
    """Of an eighth class at .75 nothing is handed to the seven, in the first reading or over time."""
    quarter, rest = sure(HAPPY) / 4, {"contempt": 0.75}
    stage = Smooth(tau_s=0.2)
    smoothed, emotion = read(stage, 0.0, quarter, extra=rest)
    np.testing.assert_allclose(smoothed, quarter, rtol=1e-5)
    assert emotion == "uncertain"
    smoothed, _ = read(stage, 0.04, quarter, extra=rest)
    np.testing.assert_allclose(smoothed, quarter, rtol=1e-5)
    smoothed, _ = read(stage, 0.08, None, extra={})
    np.testing.assert_allclose(smoothed, quarter, rtol=1e-5)
    smoothed, _ = read(stage, 5.0, sure(HAPPY, 0.9) * 0.9, extra={"contempt": 0.1})
    assert smoothed.sum() == pytest.approx(0.9, abs=1e-3)


def test_where_a_class_beyond_the_seven_leads_none_of_them_is_said() -> None:
    half = sure(HAPPY, 0.95) * 0.45  # .43 would do alone
    for said in ({"track": 1}, {"track": -1}, {"info": PICTURE}):
        assert read(Smooth(), 0.0, half, extra={"contempt": 0.55}, **said)[1] == "uncertain"
        assert read(Smooth(), 0.0, half, extra={"contempt": 0.25, "bored": 0.3}, **said)[1] == "uncertain"
        assert read(Smooth(), 0.0, sure(HAPPY) * 0.9, extra={"contempt": 0.1}, **said)[1] == "happy"


def test_pictures_and_faces_without_an_id_are_not_smoothed() -> None:
    stage = Smooth()
    read(stage, 0.0, sure(HAPPY), info=PICTURE)
    np.testing.assert_allclose(read(stage, 1.0, sure(SAD), info=PICTURE)[0], sure(SAD), rtol=1e-5)
    read(stage, 0.0, sure(HAPPY), track=-1)
    assert read(stage, 0.04, sure(SAD), track=-1)[1] == "sad"


def test_s2_state_is_forgotten_after_the_end() -> None:
    stage = Smooth()
    for epoch in (0, 1):
        read(stage, 0.0, sure(HAPPY), epoch=epoch)
        assert list(stage._tracks) == [("clip", epoch, 1)]
        stage.process(Batch([], [Ended("clip", epoch, "end of file", True)]))
        assert not stage._tracks
