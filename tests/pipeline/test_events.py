"""Schema v1."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import supervision as sv

from pipeline.events import COLUMNS, EventRows, rows_from_ended, rows_from_frame, run_row
from pipeline.flow.batch import Batch, Ended
from pipeline.types import Frame, SourceInfo, TrackEnd


def frame(index=0, faces=None, pts=None, kind="video", **more):
    info = SourceInfo("s", kind, 64, 48)
    return Frame("s", 0, index, index if pts is None else pts, more.pop("time_base", Fraction(1, 25)), 0.0, None, info, faces=faces, **more)


def face(ids=(1,), smoothed=None, emotion="happy", **data):
    count = len(ids)
    smoothed = np.full((count, 7), 1 / 7, np.float32) if smoothed is None else np.asarray([smoothed] * count, np.float32)
    return sv.Detections(xyxy=np.zeros((count, 4), np.float32), confidence=np.ones(count, np.float32), tracker_id=np.asarray(ids),
                         data={"smoothed": smoothed, "emotion": np.asarray([emotion] * count, object), **data})  # fmt: skip


def test_columns_are_these_in_this_order():
    assert ",".join(COLUMNS) == (
        "source,epoch,frame,pts_s,time_utc,kind,tracker_id,x1,y1,x2,y2,detection_confidence,observed,quality,emotion,confidence,"
        "p_angry,p_disgust,p_fear,p_happy,p_sad,p_surprise,p_neutral,"
        "raw_angry,raw_disgust,raw_fear,raw_happy,raw_sad,raw_surprise,raw_neutral,info"
    )


def test_every_row_has_every_column_in_order():
    end = TrackEnd(1, 0.0, "lost")
    rows = [*rows_from_frame(frame()), *rows_from_frame(frame(faces=face())), run_row({}),
            *rows_from_ended(Ended("s", 0, "x", True, added=[end])), *EventRows().rows(Batch([frame(faces=face())]))]  # fmt: skip
    assert all(tuple(row) == COLUMNS for row in rows)


@pytest.mark.parametrize(("pts", "time_base"), [(1, Fraction(1, 90000)), (10**9 + 7, Fraction(1, 90000)), (12345, Fraction(1001, 30000))])
def test_time_is_the_frames_own(pts, time_base):
    one = frame(pts=pts, time_base=time_base)
    assert abs(rows_from_frame(one)[0]["pts_s"] - one.pts_s) < 1e-6


def test_confidence_is_of_the_label_said():
    held = face(smoothed=[0.5, 0, 0, 0.4, 0.1, 0, 0], emotion="happy")  # hysteresis: not the likeliest
    assert rows_from_frame(frame(faces=held))[0]["confidence"] == pytest.approx(0.4)


def test_confidence_of_uncertain_is_the_likeliest_and_of_nothing_null():
    nan = float("nan")
    unsure, none = face(smoothed=[0.3, nan, 0.1, 0.2, 0.2, 0.1, 0.1], emotion="uncertain"), face(smoothed=[nan] * 7, emotion="uncertain")
    assert rows_from_frame(frame(faces=unsure))[0]["confidence"] == pytest.approx(0.3)
    row = rows_from_frame(frame(faces=none))[0]
    assert row["confidence"] is row["p_angry"] is row["raw_neutral"] is row["quality"] is None


def test_a_frame_without_faces_is_one_row_without_an_id():
    for empty in (None, sv.Detections.empty()):
        rows = rows_from_frame(frame(faces=empty))
        assert [(row["kind"], row["tracker_id"], row["x1"]) for row in rows] == [("frame", None, None)]


def test_tracks_start_once_and_end_with_their_reason():
    rows = EventRows()
    second = frame(1, faces=face([1, -1]))
    second.ended_tracks.append(TrackEnd(2, 0.0, "lost"))
    ended = Ended("s", 0, "end of file", True, added=[TrackEnd(1, 0.04, "source ended")])
    got = list(rows.rows(Batch([frame(0, faces=face([2, 1])), second], [ended])))
    assert [(row["kind"], row["frame"], row["tracker_id"]) for row in got] == [
        ("source_state", 0, None), ("track_started", 0, 2), ("track_started", 0, 1), ("face", 0, 2), ("face", 0, 1),
        ("track_ended", 1, 2), ("face", 1, 1), ("face", 1, None),
        ("track_ended", None, 1), ("source_state", None, None),
    ]  # fmt: skip
    assert json.loads(got[5]["info"]) == {"reason": "lost", "last_pts_s": 0.0}
    assert json.loads(got[-1]["info"]) == {"state": "ENDED", "reason": "end of file"}


@pytest.mark.parametrize(("final", "failed", "state"), [(False, False, "LOST"), (True, True, "FAILED"), (True, False, "ENDED")])
def test_a_source_says_how_it_ended(final, failed, state):
    assert json.loads(rows_from_ended(Ended("s", 0, "why", final, failed))[-1]["info"]) == {"state": state, "reason": "why"}


def test_pictures_start_no_tracks_and_say_their_file():
    rows = list(EventRows().rows(Batch([frame(faces=face(), kind="image", origin="a.png")])))
    assert [(row["kind"], row["source"]) for row in rows] == [("source_state", "s"), ("face", "a.png")]


def test_how_batches_fall_changes_no_row():
    def frames():
        return [frame(i, faces=face([i // 2])) for i in range(6)]

    together, apart = EventRows(), EventRows()
    assert list(together.rows(Batch(frames()))) == [row for one in frames() for row in apart.rows(Batch([one]))]


def test_info_is_strict_json():
    info = json.loads(run_row({"a": float("inf"), "b": np.float32(0.5), "c": (1, np.int64(2)), "d": "é"})["info"])
    assert info == {"schema_version": 1, "a": None, "b": 0.5, "c": [1, 2], "d": "é"}


def test_the_module_needs_only_numpy():
    code = "import sys, pipeline.events; print([m for m in ('av', 'cv2', 'supervision', 'torch', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
