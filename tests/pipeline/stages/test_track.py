"""Tracking: ids, look-ahead, gaps, intervals, ends."""

from __future__ import annotations

import numpy as np
import pytest
from frames import LIVE, PICTURE, VIDEO, detections, frame

from pipeline.flow.batch import Batch, Ended
from pipeline.stages.track import Track
from pipeline.types import SourceInfo

BOX = (100.0, 50.0, 140.0, 90.0)


def moving(i: int, confidence: float = 0.8) -> tuple[float, float, float, float, float]:
    return (BOX[0] + 2 * i, BOX[1], BOX[2] + 2 * i, BOX[3], confidence)


def moving_at(pts_s: float) -> tuple[float, float, float, float, float]:
    """As moving(), by the clock: 50 pixels a second."""
    return BOX[0] + 50 * pts_s, BOX[1], BOX[2] + 50 * pts_s, BOX[3], 0.8


def play(
    stage: Track, found: list, info=VIDEO, end: bool = True, epoch: int = 0, sizes: int = 1, times: list[float] | None = None
) -> tuple[list, Ended]:
    """Frames with the given detections (None: not looked at) through the stage; `times` in seconds, else 25 a second."""
    out, ended = [], Ended(info.name, epoch, "end of file", True)
    frames = []
    for i, faces in enumerate(found):
        f = frame(i, times[i] if times else None, info=info, epoch=epoch)
        f.faces = faces
        frames.append(f)
    for i in range(0, len(frames), sizes):
        out += stage.process(Batch(frames[i : i + sizes])).frames
    if end:
        out += stage.process(Batch([], [ended])).frames
    assert [f.index for f in out] == sorted(f.index for f in out)
    return out, ended


def ids(frames: list) -> list[list[int]]:
    return [f.faces.tracker_id.tolist() for f in frames]


def test_a_face_has_its_id_from_its_first_frame_on_in_a_file() -> None:
    out, ended = play(Track(conf=0.4), [detections(moving(i)) for i in range(4)])
    assert ids(out) == [[1]] * 4
    assert all(f.faces.data["observed"].all() for f in out)
    assert [(t.tracker_id, t.reason) for t in ended.added] == [(1, "source ended")]
    assert ended.added[0].last_pts_s == pytest.approx(3 / 25)


def test_a_live_face_goes_out_at_once_and_without_an_id_until_it_matures() -> None:
    stage = Track(conf=0.4)
    seen = []
    for i in range(3):
        f = frame(i, info=LIVE)
        f.faces = detections(moving(i))
        seen += ids(stage.process(Batch([f])).frames)
    assert seen == [[-1], [1], [1]]


def test_a_live_face_has_its_id_from_the_detection_on_that_makes_it_mature() -> None:
    out, _ = play(Track(conf=0.4, mature=3), [detections(moving(i)) for i in range(4)], info=LIVE)
    assert ids(out) == [[-1], [-1], [1], [1]]


def test_a_face_that_jumps_is_the_same_while_its_boxes_overlap_by_iou() -> None:
    found = [detections(moving(0 if i < 3 else 8)) for i in range(6)]  # 16 of 40 pixels: the two overlap by 24 / 56 = .43
    assert ids(play(Track(conf=0.4, iou=0.3), found)[0]) == [[1]] * 6
    assert ids(play(Track(conf=0.4, iou=0.6), found)[0]) == [[1]] * 3 + [[2]] * 3


def test_a_gap_within_the_look_ahead_is_filled_linearly_in_time() -> None:
    found = [detections(moving(i)) if i not in (3, 4) else detections() for i in range(8)]
    out, _ = play(Track(conf=0.4), found)
    assert ids(out) == [[1]] * 8
    assert [bool(f.faces.data["observed"][0]) for f in out] == [True] * 3 + [False] * 2 + [True] * 3
    np.testing.assert_allclose(out[3].faces.xyxy[0], moving(3)[:4], atol=1e-3)


def test_a_gap_longer_than_the_look_ahead_stays_empty_and_the_id_survives_it() -> None:
    found = [detections(moving(0)) if i < 3 or i >= 9 else detections() for i in range(12)]
    out, _ = play(Track(conf=0.4, lookahead=4, lost_s=1.0), found)
    assert ids(out) == [[1]] * 3 + [[]] * 6 + [[1]] * 3


def test_a_gap_longer_than_the_look_ahead_is_never_half_filled() -> None:
    """Frames inside of it may still be held, for another face: the first ones have gone out without a box."""
    other = (10, 10, 50, 50, 0.8)
    found = [detections(*[moving(0)] * (i < 3 or i >= 19), *[other] * (not 13 <= i < 20)) for i in range(24)]
    out, _ = play(Track(conf=0.4), found)
    assert [1 in f for f in ids(out)] == [True] * 3 + [False] * 16 + [True] * 5


def test_boxes_in_a_gap_are_as_sure_as_the_fainter_of_its_ends() -> None:
    found = [detections(moving(i, 0.8 if i < 4 else 0.6)) if i not in (3, 6) else detections() for i in range(8)]
    found[7] = detections(moving(7, 0.9))
    out, _ = play(Track(conf=0.4), found)
    assert [round(float(f.faces.confidence[0]), 3) for f in out] == [0.8] * 3 + [0.6] * 4 + [0.9]


def test_a_track_unseen_for_longer_than_lost_s_ends_and_the_face_that_returns_is_another() -> None:
    found = [detections(moving(0)) if i < 3 or i >= 33 else detections() for i in range(36)]
    out, _ = play(Track(conf=0.4, lookahead=4, lost_s=1.0), found)
    assert [i for f in ids(out) for i in f] == [1, 1, 1, 2, 2, 2]
    ends = [(f.index, t.tracker_id, t.reason) for f in out for t in f.ended_tracks]
    assert [e[1:] for e in ends] == [(1, "lost")]
    assert 27 <= ends[0][0] <= 30  # a second after frame 2
    assert [t.last_pts_s for f in out for t in f.ended_tracks] == [pytest.approx(2 / 25)]


def test_boxes_between_detections_are_interpolated_in_a_file() -> None:
    found = [detections(moving(i)) if i % 3 == 0 else None for i in range(12)]
    out, _ = play(Track(conf=0.4), found)
    assert ids(out) == [[1]] * 12  # the last two carried by the motion model: no detection follows
    np.testing.assert_allclose(out[11].faces.xyxy[0], moving(11)[:4], atol=3)
    for i, f in enumerate(out[:10]):
        np.testing.assert_allclose(f.faces.xyxy[0], moving(i)[:4], atol=1e-2)
        assert bool(f.faces.data["observed"][0]) == (i % 3 == 0)


def test_boxes_between_detections_go_by_the_clock_not_by_the_count_of_frames() -> None:
    times = [0, 0.04, 0.08, 0.12, 0.32, 0.36, 0.40]
    found = [detections(moving_at(t)) if i not in (3, 4) else None for i, t in enumerate(times)]
    out, _ = play(Track(conf=0.4), found, times=times)
    assert [bool(f.faces.data["observed"][0]) for f in out] == [True] * 3 + [False] * 2 + [True] * 2
    for f, t in zip(out, times, strict=True):
        np.testing.assert_allclose(f.faces.xyxy[0], moving_at(t)[:4], atol=0.01)


@pytest.mark.parametrize("steps", [(0.04, 0.2, 0.04), (0.2, 0.04, 0.04)])
def test_live_boxes_are_carried_by_the_clock_not_by_the_count_of_frames(steps: tuple[float, ...]) -> None:
    times = [0.0, *np.cumsum(steps * 10).tolist()]
    found = [detections(moving_at(t)) if i % 3 != 2 else None for i, t in enumerate(times)]
    out, _ = play(Track(conf=0.4), found, info=LIVE, times=times)
    carried = [(f, t) for f, t in zip(out, times, strict=True) if f.index % 3 == 2 and f.index > 10]
    assert not any(f.faces.data["observed"][0] for f, _ in carried)
    for f, t in carried:
        np.testing.assert_allclose(f.faces.xyxy[0], moving_at(t)[:4], atol=0.5)


def test_boxes_between_detections_follow_the_motion_model_live() -> None:
    found = [detections(moving(i)) if i % 3 == 0 else None for i in range(31)]
    out, _ = play(Track(conf=0.4), found, info=LIVE)
    assert ids(out)[4:] == [[1]] * 27
    np.testing.assert_allclose(out[29].faces.xyxy[0], moving(29)[:4], atol=3)


@pytest.mark.parametrize(("info", "said"), [(LIVE, [[-1]] * 5 + [[1]] * 2), (VIDEO, [[1]] * 7)])
def test_a_new_face_stays_where_it_was_until_the_next_look(info: SourceInfo, said: list[list[int]]) -> None:
    out, _ = play(Track(conf=0.4, lookahead=6), [detections(moving(0)) if i % 5 == 0 else None for i in range(7)], info=info)
    assert ids(out) == said
    assert [bool(f.faces.data["observed"][0]) for f in out] == [i % 5 == 0 for i in range(7)]


def test_a_face_first_seen_at_a_files_last_look_stays_to_its_end() -> None:
    out, ended = play(Track(conf=0.4, lookahead=11), [detections(moving(0)), *[None] * 7])
    assert ids(out) == [[1]] * 8
    assert len(ended.added) == 1


def test_live_boxes_are_not_carried_past_a_detection_that_missed_them() -> None:
    found = [detections(moving(i)) if i % 2 == 0 else None for i in range(8)] + [detections(), None, None]
    out, _ = play(Track(conf=0.4), found, info=LIVE)
    assert ids(out)[8:] == [[], [], []]


def test_a_faint_detection_continues_a_track_but_starts_none() -> None:
    found = [detections(moving(i, 0.8 if i < 3 else 0.15), (10, 10, 40, 40, 0.3)) for i in range(6)]
    out, _ = play(Track(conf=0.4), found)
    assert ids(out) == [[1]] * 6


def test_faint_detections_continue_a_track_for_faint_s_and_no_longer() -> None:
    out, _ = play(Track(conf=0.4, faint_s=0.2), [detections(moving(0, 0.8 if i < 3 else 0.2)) for i in range(20)])
    assert ids(out) == [[1]] * 8 + [[]] * 12  # sure until frame 2, .2 s are five frames


def test_a_face_too_small_starts_no_track_and_continues_one() -> None:
    small, large = (10, 10, 20, 20, 0.9), (10, 10, 23, 23, 0.9)
    assert ids(play(Track(conf=0.4, min_size=12), [detections(small)] * 4)[0]) == [[]] * 4
    assert ids(play(Track(conf=0.4, min_size=12), [detections(large if i < 3 else small) for i in range(6)])[0]) == [[1]] * 6


def test_scores_below_the_trackers_own_thresholds_get_ids() -> None:
    assert ids(play(Track(conf=0.4), [detections(moving(i, 0.45)) for i in range(4)])[0]) == [[1]] * 4


def test_boxes_keep_to_their_faces_though_the_tracker_answers_in_another_order() -> None:
    found = [detections(moving(i, 0.8 if i < 3 else 0.2), (10, 10, 40, 40, 0.8)) for i in range(6)]
    out, _ = play(Track(conf=0.4), found)
    assert [dict(zip(f.faces.tracker_id.tolist(), f.faces.xyxy[:, 0].tolist(), strict=True)) for f in out] == [
        {1: 100 + 2 * i, 2: 10} for i in range(6)
    ]


@pytest.mark.parametrize("every_s", [1.1, 4.0])
def test_a_face_that_every_look_sees_is_one_track_however_rare_looks_are(every_s: float) -> None:
    stage, out = Track(conf=0.4, lost_s=1.0), []
    for i in range(8):
        f = frame(i, i * every_s)
        f.faces = detections(moving(0))
        out += stage.process(Batch([f])).frames
    out += stage.process(Batch([], [Ended("clip", 0, "end of file", True)])).frames
    assert ids(out) == [[1]] * 8


def test_tracks_that_are_over_are_not_remembered() -> None:
    found = [detections(moving(0)) if i % 40 < 3 else detections() for i in range(200)]
    stage = Track(conf=0.4, lost_s=0.5)
    play(stage, found, end=False)
    (epoch,) = stage._epochs.values()
    assert stage.next_id("clip") == 6
    assert len(epoch._ids) <= 1


def test_a_face_in_a_video_of_one_frame_gets_an_id() -> None:
    out, ended = play(Track(conf=0.4), [detections(moving(0))])
    assert ids(out) == [[1]]
    assert len(ended.added) == 1


@pytest.mark.parametrize("mature", [2, 3, 5])
def test_a_face_that_the_end_keeps_from_maturing_has_one_id_in_all_its_frames(mature: int) -> None:
    found = [detections(), *[detections(moving(i)) for i in range(mature - 1)]]
    out, ended = play(Track(conf=0.4, mature=mature), found)
    assert ids(out) == [[], *[[1]] * (mature - 1)]
    assert [(t.tracker_id, t.last_pts_s) for t in ended.added] == [(1, pytest.approx((mature - 1) / 25))]


def test_a_face_seen_once_in_a_file_goes_out_without_an_id() -> None:
    out, _ = play(Track(conf=0.4), [detections(), detections(moving(0)), detections(), detections()])
    assert ids(out) == [[], [-1], [], []]


def test_ids_go_on_counting_over_epochs_and_state_is_forgotten() -> None:
    stage = Track(conf=0.4)
    first, _ = play(stage, [detections(moving(i)) for i in range(3)])
    second, _ = play(stage, [detections(moving(i)) for i in range(3)], epoch=1)
    assert ids(first) + ids(second) == [[1]] * 3 + [[2]] * 3
    assert not stage._epochs


def test_pictures_are_numbered_not_tracked() -> None:
    stage = Track(conf=0.4)
    found = detections((10, 10, 50, 50, 0.5), (100, 10, 150, 60, 0.9), (200, 10, 240, 50, 0.2))
    out, _ = play(stage, [found, found], info=PICTURE)
    assert ids(out) == [[1, 2]] * 2


def test_s4_splitting_batches_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    found = [detections(*[moving(i, float(rng.uniform(0.1, 1))) for _ in range(int(rng.integers(0, 2)))]) for i in range(40)]
    whole, _ = play(Track(conf=0.4), found, sizes=40)
    single, _ = play(Track(conf=0.4), found, sizes=1)
    assert ids(whole) == ids(single)
    for a, b in zip(whole, single, strict=True):
        np.testing.assert_array_equal(a.faces.xyxy, b.faces.xyxy)


def test_s3_a_source_gives_the_same_alone_and_interleaved() -> None:
    stage, alone = Track(conf=0.4), Track(conf=0.4)
    mixed, plain = [], []
    for i in range(6):
        a, b, c = frame(i), frame(i, info=LIVE), frame(i)
        a.faces, b.faces, c.faces = detections(moving(i)), detections(moving(2 * i)), detections(moving(i))
        mixed += [f for f in stage.process(Batch([b, a])).frames if f.source == "clip"]
        plain += alone.process(Batch([c])).frames
    assert ids(mixed) == ids(plain)
