"""Classification: budget, quality gate, crops from luma."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from frames import PICTURE, VIDEO, detections, frame

from engines.contract import LABELS, ClassifierContract
from pipeline.flow.batch import Batch, Ended
from pipeline.stages.classify import Classify, quality_of
from pipeline.types import TrackEnd

RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 255, (180, 320, 3), dtype=np.uint8)


class Recorder:
    """Answers "happy" with a certainty that grows with the crop's brightness, and remembers what it was given."""

    labels = LABELS
    contract = ClassifierContract(crop_margin=1.0)

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []

    def inputs(self, crops: list[np.ndarray]) -> np.ndarray:
        import cv2

        assert all(c.ndim == 2 and c.shape[0] == c.shape[1] for c in crops)
        return np.stack([cv2.resize(c, (40, 40), interpolation=cv2.INTER_AREA)[None] for c in crops])

    def infer(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(batch)
        probs = np.full((len(batch), 7), 0.05, np.float32)
        probs[:, 3] = 0.7 + 0.2 * batch.mean((1, 2, 3)) / 255  # each crop's own, whatever else is in the batch
        return probs


def tracked(index: int, *boxes: tuple[float, ...], info=VIDEO, observed: bool = True, pts_s: float | None = None):
    """A frame of noise with faces 1…n."""
    f = frame(index, pts_s, info=info, picture=NOISE)
    f.faces = detections(*boxes)
    f.faces.tracker_id = np.arange(1, len(boxes) + 1)
    f.faces.data["observed"] = np.full(len(boxes), observed)
    return f


def was_read(f) -> list[bool]:
    return (~np.isnan(f.faces.data["probs"]).any(1)).tolist()


A, B, C, D = (10, 10, 60, 60, 0.9), (80, 10, 130, 60, 0.9), (150, 10, 200, 60, 0.9), (220, 10, 270, 60, 0.9)


@pytest.mark.parametrize("shape", [Fraction(2), Fraction(1, 2)])
def test_a_face_of_anamorphic_video_is_read_as_it_is_shown(shape: Fraction) -> None:
    stored = frame(0, info=replace(VIDEO, pixel_shape=shape), picture=NOISE)
    plain = frame(0, picture=cv2.resize(NOISE, (round(320 * shape), 180)))
    for one, wide in ((stored, 1), (plain, float(shape))):
        one.faces = detections((100 * wide, 40, 140 * wide, 100, 0.9))
        one.faces.tracker_id = np.array([1])
        one.faces.data["observed"] = np.array([True])
    model = Recorder()
    for one in (stored, plain):
        Classify(model).process(Batch([one]))
    assert np.abs(model.batches[0].astype(int) - model.batches[1]).mean() < 4
    np.testing.assert_allclose(stored.faces.xyxy[0], [100, 40, 140, 100])


def test_every_observed_face_is_read_within_the_budget() -> None:
    model = Recorder()
    frames = [tracked(0, A, B), tracked(1, A, B, C)]
    Classify(model).process(Batch(frames))
    assert [was_read(f) for f in frames] == [[True] * 2, [True] * 3]
    assert [b.shape for b in model.batches] == [(5, 1, 40, 40)]  # one call for all faces at hand


def test_new_tracks_come_first_then_stale_ones() -> None:
    stage = Classify(Recorder(), max_faces=1)
    assert was_read(stage.process(Batch([tracked(0, A)])).frames[0]) == [True]
    assert was_read(stage.process(Batch([tracked(1, A, B)])).frames[0]) == [False, True]  # B is new
    assert was_read(stage.process(Batch([tracked(2, A, B)])).frames[0]) == [True, False]  # A is stale


@pytest.mark.parametrize(("side", "first"), [(63, "grown"), (55, "stale")])
def test_grown_by_a_fifth_comes_before_stale_once(side: int, first: str) -> None:
    """B, of 50 pixels when it was last chosen, is now larger, while A waits longer."""
    stage, grown = Classify(Recorder(), max_faces=1), (80, 10, 80 + side, 10 + side, 0.9)
    for i in range(4):
        stage.process(Batch([tracked(i, *[A, B][: i + 1])]))  # A, B, A, B
    read = [was_read(stage.process(Batch([tracked(i, A, grown)])).frames[0]) for i in (90, 91)]
    assert read == [[False, True], [True, False]][:: 1 if first == "grown" else -1]


def test_faces_that_cannot_be_read_take_their_turn_and_no_more() -> None:
    stage, seen = Classify(Recorder(), max_faces=1), []
    for i in range(4):
        f = tracked(i, A, B)
        half = NOISE.copy()
        half[:, :70] = 128  # nothing in A
        f.image = frame(i, picture=half).image
        seen.append(was_read(stage.process(Batch([f])).frames[0]))
    assert seen == [[False, False], [False, True]] * 2


def test_of_a_picture_every_face_is_read_whatever_the_budget() -> None:
    f = tracked(0, A, B, C, info=PICTURE)
    f.faces.tracker_id[:] = -1
    Classify(Recorder(), max_faces=1).process(Batch([f]))
    assert was_read(f) == [True] * 3


def test_among_equally_stale_tracks_the_least_certain_comes_first() -> None:
    stage = Classify(Recorder(), max_faces=2)
    stage.process(Batch([tracked(0, A, B)]))
    stage._tracks["clip", 0, 1].certainty, stage._tracks["clip", 0, 2].certainty = 0.9, 0.4
    stage._max_faces = 1
    assert was_read(stage.process(Batch([tracked(1, A, B)])).frames[0]) == [False, True]


def test_s4_the_choice_does_not_depend_on_how_batches_fell() -> None:
    def choices(size: int) -> list[list[bool]]:
        stage = Classify(Recorder(), max_faces=3)
        frames = [tracked(i, A, B, C, D) for i in range(9)]
        for f in frames:  # darker to the right: of the three that are read in the first frame the last is the least certain
            f.image = frame(f.index, picture=(NOISE * np.linspace(1, 0.4, 320)[None, :, None]).astype(np.uint8)).image
        return [was_read(f) for i in range(0, 9, size) for f in stage.process(Batch(frames[i : i + size])).frames]

    assert choices(1) == choices(3) == choices(9)
    assert choices(1)[:2] == [[True, True, True, False], [False, True, True, True]]


def test_a_track_read_a_moment_ago_is_not_read_again() -> None:
    stage = Classify(Recorder(), max_age_s=0.1)
    assert [was_read(stage.process(Batch([tracked(i, A)])).frames[0])[0] for i in range(6)] == [True, False, False, True, False, False]


def test_a_crop_that_could_not_be_read_does_not_count_as_read() -> None:
    stage = Classify(Recorder(), max_age_s=0.5)
    blurred, sharp = tracked(0, A), tracked(1, A)
    blurred.image = frame(0).image  # flat grey: nothing in it
    assert [was_read(f)[0] for f in stage.process(Batch([blurred, sharp, tracked(2, A)])).frames] == [False, True, False]


def test_a_face_that_the_detector_missed_is_not_read() -> None:
    f = tracked(0, A, observed=False)
    f.hidden = np.empty((0, 4), np.float32)
    Classify(Recorder()).process(Batch([f]))
    assert was_read(f) == [False]
    assert np.isnan(f.faces.data["quality"]).all()


def test_between_two_looks_of_the_detector_faces_are_read() -> None:
    f = tracked(0, A, observed=False)
    Classify(Recorder()).process(Batch([f]))
    assert was_read(f) == [True]
    assert f.faces.data["quality"][0] > 0


def test_a_crop_below_the_quality_gate_is_judged_but_not_read() -> None:
    f = tracked(0, A)
    f.image = frame(0).image  # flat grey: nothing in it
    model = Recorder()
    Classify(model).process(Batch([f]))
    assert was_read(f) == [False]
    assert f.faces.data["quality"][0] < 0.15
    assert not model.batches


def test_limited_luma_is_expanded_to_full_range() -> None:
    black_and_white = np.zeros((180, 320, 3), np.uint8)
    black_and_white[:, 35:] = 255
    model, f = Recorder(), tracked(0, A)
    f.image = frame(0, picture=black_and_white).image
    assert f.image.format.name == "yuv420p"
    Classify(model, min_quality=0).process(Batch([f]))
    assert model.batches[0].min() == 0
    assert model.batches[0].max() >= 254


@pytest.mark.parametrize("format", ["yuv420p", "yuvj420p", "yuyv422", "yuv420p10le", "rgb24", "gbrp", "gray16le"])
def test_a_model_of_grey_gets_the_same_picture_in_every_pixel_format(format: str) -> None:
    ramp = np.repeat(np.linspace(0, 255, 320, dtype=np.uint8)[None, :, None], 180, 0).repeat(3, 2)
    model, f = Recorder(), tracked(0, A)
    f.image = av.VideoFrame.from_ndarray(ramp, "rgb24").reformat(format=format)
    Classify(model, min_quality=0).process(Batch([f]))
    seen = model.batches[0][0, 0, 20].astype(float)
    assert np.abs(seen - np.linspace(10, 60, 40) * 255 / 320).max() < 4


def test_no_faces_no_call() -> None:
    model, f = Recorder(), tracked(0)
    Classify(model).process(Batch([f]))
    assert f.faces.data["probs"].shape == (0, 7)
    assert not model.batches


def test_faces_of_pictures_are_read_afresh() -> None:
    stage = Classify(Recorder(), max_age_s=5)
    assert [was_read(stage.process(Batch([tracked(i, A, info=PICTURE)])).frames[0]) for i in range(2)] == [[True]] * 2


@pytest.mark.parametrize("step_s", [0.04, 0.2])
def test_the_crop_is_steadied_in_time(step_s: float) -> None:
    stage = Classify(Recorder())
    stage.process(Batch([tracked(0, A)]))
    stage.process(Batch([tracked(1, (14, 10, 64, 60, 0.9), pts_s=step_s)]))
    x = stage._tracks["clip", 0, 1].centre_side[0]
    assert x == pytest.approx(35 + 4 * (1 - np.exp(-step_s / 0.06)), abs=1e-3)


def test_the_model_gets_the_steadied_crop() -> None:
    model = Recorder()
    stage = Classify(model, min_quality=0)
    stage.process(Batch([tracked(0, A), tracked(1, (30, 10, 80, 60, 0.9), pts_s=1e-4)]))
    first, second = model.batches[0].astype(int)
    assert np.abs(first - second).mean() < 3  # the same place of the same noise


def test_the_crop_has_the_models_own_margin() -> None:
    model, f = Recorder(), tracked(0, (40, 20, 120, 100, 0.9))
    model.contract = ClassifierContract(crop_margin=0.5)
    Classify(model, min_quality=0).process(Batch([f]))
    luma = np.frombuffer(f.image.planes[0], np.uint8).reshape(180, -1)[40:80, 60:100].astype(float)
    assert np.abs(model.batches[0][0, 0] - np.clip((luma - 16) * 255 / 219, 0, 255)).max() < 2
    assert f._bgr is None  # full-size colour is made only when someone asks


def test_a_track_that_ended_is_forgotten() -> None:
    stage, f = Classify(Recorder()), tracked(1)
    stage.process(Batch([tracked(0, A)]))
    f.ended_tracks = [TrackEnd(1, 0.0, "lost")]
    stage.process(Batch([f]))
    assert not stage._tracks


def test_s2_state_is_forgotten_after_the_end() -> None:
    stage = Classify(Recorder())
    stage.process(Batch([tracked(0, A)], [Ended("clip", 0, "end of file", True)]))
    assert not stage._tracks


@pytest.mark.parametrize(
    ("box", "confidence", "expected"),
    [
        ((10, 10, 110, 110), 0.9, 1.0),
        ((10, 10, 110, 110), 0.25, 0.5),  # half of .5
        ((10, 10, 33, 33), 0.9, 0.5),  # 23 px: (23 − 10) / 26
        ((0, 10, 35, 110), 0.9, 0.0),  # cut by the left edge down to a third
        ((10, 0, 110, 35), 0.9, 0.0),  # by the upper one
        ((285, 10, 320, 110), 0.9, 0.0),  # by the right one
        ((10, 145, 110, 180), 0.9, 0.0),  # by the lower one
        ((142, 40, 177, 140), 0.9, 1.0),  # as narrow, but whole
    ],
)
def test_quality_is_a_product_of_ramps(box: tuple[int, ...], confidence: float, expected: float) -> None:
    sharp = RNG.integers(0, 255, (1, 40, 40), dtype=np.uint8)
    assert quality_of(sharp, np.array(box, np.float32), confidence, 320, 180) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("waves", "expected"), [(4, 1.0), (2, 0.32), (1, 0.0)])
def test_what_a_crop_lacks_in_detail_lowers_its_quality(waves: int, expected: float) -> None:
    """Of a wave the Laplacian's variance over its own is (2 − 2 cos(2π / period))²: .16, .011, .0007; the ramp goes from .005 to .05."""
    wave = 128 + 100 * np.cos(2 * np.pi * waves * np.arange(40) / 39)
    face = np.repeat(wave.round().astype(np.uint8)[None], 40, 0)[None]
    assert quality_of(face, np.array((10, 10, 110, 110), np.float32), 0.9, 320, 180) == pytest.approx(expected, abs=0.03)
