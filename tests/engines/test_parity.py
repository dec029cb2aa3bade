"""An engine that disagrees is found out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from engines import load_classifier, load_detector
from engines.backends.fake import FakeBackend, fixed_boxes
from engines.build.parity import LIMITS, Parity, classifier_parity, detector_parity
from engines.contract import DetectorContract
from engines.detector import Detector
from engines.manifest import Entry


def faked(xyxy, scores) -> Detector:
    return Detector(FakeBackend("detector", fixed_boxes(xyxy, scores)), Entry("fake", "detector", Path("f.detector"), DetectorContract()))


IMAGE = [np.zeros((1, 96, 96, 3), np.uint8)]


def test_the_same_answers_deviate_by_nothing():
    one = faked([[0, 0, 20, 20]], [0.9])
    found = detector_parity(one, one, IMAGE)
    assert (found.mean_deviation, found.agreement, found.pixels) == (0, 1, 0)
    assert found.problems("fp32") == []


def test_a_face_that_only_one_finds_lowers_the_agreement():
    found = detector_parity(faked([[0, 0, 20, 20], [50, 50, 70, 70]], [0.9, 0.8]), faked([[0, 0, 20, 22]], [0.7]), IMAGE)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.mean_deviation == pytest.approx(0.2)
    assert found.pixels == pytest.approx(0.5)
    assert len(found.problems("int8")) == 2


def test_without_faces_nothing_can_be_said_and_nothing_is_written():
    none = faked(np.zeros((0, 4)), [])
    found = detector_parity(none, none, IMAGE)
    assert math.isnan(found.mean_deviation)
    assert found.problems("int8")


def test_accuracy_that_is_lost_is_a_problem():
    lost = Parity(1, 0, 0, 1, scores={"accuracy": (0.8, 0.75)})
    assert lost.problems("int8") == ["accuracy falls from 0.8000 to 0.7500, at most 0.02 may be lost"]
    assert Parity(1, 0, 0, 1, scores={"accuracy": (0.8, 0.79)}).problems("int8") == []


def test_a_wrong_colour_order_is_beyond_the_limits():
    pytest.importorskip("skimage", reason="needs the extra demo")
    from engines.build.calibration import parity_samples

    reference = load_detector(precision="f32")
    samples = parity_samples(reference, None, None)
    swapped = detector_parity(reference, _RedForBlue(reference), samples)  # type: ignore[arg-type]
    assert swapped.problems("int8")
    faces = load_classifier(precision="f32")
    crops = parity_samples(faces, None, None)
    assert classifier_parity(faces, load_classifier(precision="bf16"), crops).problems("bf16") == []
    assert set(LIMITS) == {"fp32", "fp16", "bf16", "int8"}


class _RedForBlue:
    """An engine that takes red for blue."""

    def __init__(self, detector: Detector) -> None:
        self._detector, self.conf = detector, detector.conf

    def infer(self, batch, floor=None):
        return self._detector.infer(np.ascontiguousarray(batch[..., ::-1]), floor)
