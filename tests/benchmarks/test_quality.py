"""Event quality: handmade rows, and one real clip with detection on every third frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.job import Job
from benchmarks.quality import event_quality, measure_quality


def face(frame: int, x: float, emotion: str = "happy", side: float = 100) -> dict[str, Any]:
    box = {"x1": x, "y1": 0.0, "x2": x + side, "y2": side}
    return {"source": "clip", "epoch": 0, "frame": frame, "kind": "face", "emotion": emotion, **box}


def frame(number: int, kind: str = "frame") -> dict[str, Any]:
    return dict.fromkeys(face(0, 0)) | {"source": "clip", "epoch": 0, "frame": number, "kind": kind}


REFERENCE = [frame(0, "source_state"), *(face(n, x) for n in range(5) for x in (0, 300))]


def test_the_same_rows_are_the_same() -> None:
    found = event_quality(REFERENCE, REFERENCE)
    assert (found.precision, found.recall, found.face_f1, found.label_agreement, found.matched) == (1, 1, 1, 1, 10)
    assert found.equal
    assert found.sentence.endswith(": equal event quality")


def test_a_missed_face_costs_recall_and_an_invented_one_precision() -> None:
    missed = event_quality(REFERENCE[:-1], REFERENCE)
    assert (missed.precision, missed.recall, missed.face_f1) == pytest.approx((1, 0.9, 18 / 19))
    assert not missed.equal
    invented = event_quality([*REFERENCE, face(9, 0), face(0, 600)], REFERENCE)
    assert (invented.precision, invented.recall) == pytest.approx((10 / 12, 1))


@pytest.mark.parametrize(("shift", "matched"), [(0, 1), (33, 1), (34, 0), (300, 0)])
def test_a_third_of_a_side_apart_is_an_overlap_of_a_half(shift: float, matched: int) -> None:
    assert event_quality([face(0, shift)], [face(0, 0)]).matched == matched


def test_a_face_is_matched_once_and_to_the_one_it_overlaps_most() -> None:
    ours, reference = [face(0, 20, "sad"), face(0, 0, "happy")], [face(0, 0, "happy"), face(0, 25, "sad")]
    found = event_quality(ours, reference)
    assert (found.matched, found.label_agreement) == (2, 1)
    assert event_quality([face(0, 0), face(0, 1)], [face(0, 0)]).precision == 0.5


def test_frames_sources_and_epochs_are_kept_apart() -> None:
    for other in ({"frame": 1}, {"source": "b"}, {"epoch": 1}):
        assert event_quality([face(0, 0) | other], [face(0, 0)]).face_f1 == 0


def test_labels_are_compared_where_faces_match_and_make_up_half_of_the_verdict() -> None:
    ours = [face(n, x, "uncertain" if (n, x) == (0, 0) else "happy") for n in range(5) for x in (0, 300)]
    found = event_quality([*ours, face(0, 600, "sad")], REFERENCE)
    assert found.label_agreement == 0.9
    assert found.face_f1 > 0.95
    assert not found.equal
    assert "NOT equal" in found.sentence


def test_without_a_face_on_either_side_nothing_is_wrong() -> None:
    found = event_quality([frame(0)], [frame(0)])
    assert (found.face_f1, found.label_agreement, found.equal) == (1, None, True)
    assert found.table()["rows"][0] == ["1.000", "1.000", "1.000", "–", 0]
    assert not event_quality([], REFERENCE).equal
    assert event_quality([], REFERENCE).face_f1 == event_quality(REFERENCE, []).face_f1 == 0


def test_of_a_real_clip_every_third_frame_is_told_against_every_frame(clip: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = measure_quality(Job("full", str(clip), str(tmp_path), interval=3, imgsz=320, settings={"classify.max_faces": 1}), said.append)
    assert len(said) == 1
    assert found.matched > 60  # of 80
    assert found.face_f1 >= 0.95
    assert 0.4 < found.label_agreement <= 1


def test_the_command_tells_each_interval_of_each_clip(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "quality.html"
    command = ["quality", str(clip), str(clip), "--intervals", "1,4", "--imgsz", "320", "--report", str(page), "--json"]
    with pytest.raises(SystemExit, match="0"):
        main(command)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["clip"] for one in told["clips"]] == [clip.name] * 2
    same, fewer = (told["clips"][0]["intervals"][n] for n in ("1", "4"))
    assert (same["face_f1"], same["label_agreement"]) == (1.0, 1.0)
    assert 0.8 < fewer["face_f1"] <= 1
    assert "<svg" in page.read_text() or "<img" in page.read_text()
    for wrong in ([], [str(clip), "--intervals", "0"], [str(clip), "--intervals", ","], [str(page)]):
        with pytest.raises(SystemExit, match="2"):
            main(["quality", *wrong])
