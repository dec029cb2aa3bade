from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from frames import LIVE, PICTURE, VIDEO, frame

from engines import load_detector
from engines.backends.fake import FakeBackend, bright_blobs, fixed_boxes
from engines.contract import DetectorContract
from engines.detector import Detector
from engines.manifest import Entry
from pipeline.flow.batch import Batch, Ended
from pipeline.stages.detect import _LATE, _SCALERS, Detect
from pipeline.types import Frame, SourceInfo

STANDS = SourceInfo("a camera whose clock stands", "live", 320, 180)


def bright(width: int, height: int) -> np.ndarray:
    """A dark picture with one bright square, which the fake detector takes for a face."""
    picture = np.full((height, width, 3), 30, np.uint8)
    picture[height // 4 : height // 2, width // 4 : width // 4 + height // 4] = 255
    return picture


def sized(index: int, width: int, height: int) -> Frame:
    info = SourceInfo(f"{index}.png", "image", width, height)
    return frame(0, info=info, picture=bright(width, height))


@pytest.fixture
def stage() -> Detect:
    return Detect(load_detector(backend="fake"), interval=3)


def test_boxes_are_pixels_of_the_full_frame_whatever_its_size(stage: Detect) -> None:
    frames = [sized(0, 1920, 1080), sized(1, 320, 240), sized(2, 1280, 720)]
    stage.process(Batch(frames, []))
    for one in frames:
        assert one.faces.xyxy.shape == (1, 4)
        side = one.height / 4
        expected = [one.width // 4, one.height // 4, one.width // 4 + side, one.height / 2]
        assert np.abs(one.faces.xyxy[0] - expected).max() <= 0.02 * one.height


def test_of_more_faces_than_max_faces_the_surest_are_kept_and_all_may_be_hidden() -> None:
    boxes = [[0, 0, 60, 60], [100, 0, 160, 60], [200, 0, 260, 60]]
    entry = Entry("fake", "detector", Path("fake.detector"), DetectorContract())
    detector = Detector(FakeBackend("detector", fixed_boxes(boxes, [0.5, 0.9, 0.7])), entry)
    one = frame(0, picture=bright(640, 384))
    Detect(detector, max_faces=2, suspicion=0.01).process(Batch([one]))
    assert one.faces.confidence == pytest.approx([0.9, 0.7])
    assert len(one.hidden) == 3
    assert one._bgr is None  # scaled from the decoded picture


def test_anamorphic_video_is_looked_at_as_it_is_shown() -> None:
    stored = frame(0, info=SourceInfo("dv", "video", 160, 180, pixel_shape=Fraction(2)), picture=bright(320, 180)[:, ::2])
    plain = frame(0, info=VIDEO, picture=bright(320, 180))
    seen: list[np.ndarray] = []

    def answer(images: np.ndarray):
        seen.append(images)
        return bright_blobs(images)

    entry = Entry("fake", "detector", Path("fake.detector"), DetectorContract())
    Detect(Detector(FakeBackend("detector", answer), entry)).process(Batch([stored, plain]))
    assert [len(images) for images in seen] == [2]  # of one shape
    np.testing.assert_allclose(stored.faces.xyxy * [2, 1, 2, 1], plain.faces.xyxy, atol=1)


def test_every_third_frame_is_looked_at_and_an_epoch_begins_anew(stage: Detect) -> None:
    frames = [frame(i, info=VIDEO, picture=bright(320, 180)) for i in range(7)]
    stage.process(Batch(frames[:5], []))
    stage.process(Batch(frames[5:], [Ended(VIDEO.name, 0, "end", final=False)]))
    assert [one.faces is not None for one in frames] == [True, False, False] * 2 + [True]
    again = [frame(i, info=VIDEO, epoch=1, picture=bright(320, 180)) for i in range(2)]
    stage.process(Batch(again, []))
    assert [one.faces is not None for one in again] == [True, False]


def test_a_frame_of_another_size_is_looked_at(stage: Detect) -> None:
    frames = [frame(i, info=VIDEO, picture=bright(320 if i < 2 else 640, 180)) for i in range(6)]
    stage.process(Batch(frames, []))
    assert [one.faces is not None for one in frames] == [True, False, True, False, False, True]


def test_s3_each_source_has_an_interval_of_its_own(stage: Detect) -> None:
    pairs = [(frame(i, info=VIDEO, picture=bright(320, 180)), frame(i, info=LIVE, picture=bright(320, 180))) for i in range(4)]
    stage.process(Batch([one for pair in pairs for one in pair], []))
    assert [[one.faces is not None for one in pair] for pair in pairs] == [[True, True], [False, False], [False, False], [True, True]]


def test_s2_epochs_that_are_over_are_forgotten(stage: Detect) -> None:
    stage.process(Batch([frame(0, info=VIDEO, picture=bright(320, 180))], [Ended(VIDEO.name, 0, "end", final=True)]))
    assert not stage._looks


def test_live_frames_that_come_late_are_carried_but_not_for_long() -> None:
    now = 0.0
    stage = Detect(load_detector(backend="fake"), keep_up=True, wait_s=0.01, clock=lambda: now)

    def looked(index: int, waited_s: float, info: SourceInfo = LIVE) -> bool:
        nonlocal now
        one = frame(index, pts_s=index * 1e-5 if info is STANDS else None, info=info, picture=bright(320, 180))
        one.captured_at = index * (0.07 if info is STANDS else 0.04)
        now = one.captured_at + waited_s
        stage.process(Batch([one], []))
        return one.faces is not None

    longest = 0.01 + _LATE * (frame(1).pts_s - frame(0).pts_s)
    assert looked(0, 9.0)  # nothing to carry yet
    assert looked(1, longest - 0.001)
    assert not looked(2, longest + 0.001)
    assert looked(3, 0.0)
    assert [index for index in range(4, 16) if looked(index, 9.0)] == [8, 13]  # at 25 a second
    assert all(looked(index, 9.0) for index in range(100, 140, 4))  # at 6 a second the next frame would be too late
    assert [index for index in range(6) if looked(index, 9.0, STANDS)] == [0, 2, 4]
    assert all(looked(index, 0.011, STANDS) for index in range(10, 16))  # not late: by our clock they are .07 s apart
    assert all(looked(index, 9.0, VIDEO) for index in range(3))  # a file waits for us


def test_an_interval_counts_from_the_last_look_where_one_came_late() -> None:
    now = 0.0
    stage = Detect(load_detector(backend="fake"), interval=2, keep_up=True, clock=lambda: now)
    frames = [frame(i, info=LIVE, picture=bright(320, 180)) for i in range(7)]
    for one, waited_s in zip(frames, [0, 0, 9, 0, 0, 0, 0], strict=True):
        now = one.captured_at + waited_s
        stage.process(Batch([one], []))
    assert [one.faces is not None for one in frames] == [True, False, False, True, False, True, False]


def test_pictures_are_all_looked_at(stage: Detect) -> None:
    frames = [frame(i, info=PICTURE, picture=bright(320, 180)) for i in range(4)]
    stage.process(Batch(frames, []))
    assert all(len(one.faces) == 1 for one in frames)


def test_a_picture_is_looked_at_mirrored_too_and_a_frame_of_a_video_is_not() -> None:
    entry = Entry("fake", "detector", Path("fake.detector"), DetectorContract(mirror=True))
    left = Detector(FakeBackend("detector", fixed_boxes([[0, 100, 50, 150]], [0.8])), entry)  # in the mirror image as well
    picture, video = frame(0, info=PICTURE, picture=bright(640, 384)), frame(0, info=VIDEO, picture=bright(640, 384))
    Detect(left, floor=0.1).process(Batch([picture, video], []))
    assert sorted(picture.faces.xyxy[:, 0].tolist()) == [0, 590]
    assert picture.faces.confidence == pytest.approx([0.4, 0.4])
    assert (video.faces.xyxy[:, 0].tolist(), video.faces.confidence.tolist()) == ([0], pytest.approx([0.8]))

    Detect(left, floor=0.45, suspicion=0.5).process(Batch([picture], []))
    assert (len(picture.faces), len(picture.hidden)) == (0, 2)  # what one look suspects is hidden


@pytest.mark.parametrize("info", [VIDEO, PICTURE])
def test_what_is_compiled_at_the_start_is_what_runs(info: SourceInfo) -> None:
    detector = load_detector(backend="openvino")
    stage = Detect(detector, stills=info is PICTURE)
    stage.open()
    stage.process(Batch([frame(0, info=info, picture=bright(640, 360))], []))
    assert len(detector._engine._compiled) == 1


def test_scalers_of_a_folder_of_many_sizes_do_not_pile_up(stage: Detect) -> None:
    for i in range(3 * _SCALERS):
        stage.process(Batch([sized(i, 320 + 16 * i, 240)], []))
    assert len(stage._scalers) == _SCALERS
