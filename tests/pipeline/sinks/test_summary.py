"""What a run saw."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import fer
from rich.console import Console

from pipeline.flow.ledger import LedgerSnapshot, SourceLedger
from pipeline.sinks.summary import SummarySink


def run(make):
    """Frames at 0, 0.1, 0.3, 0.4 s (step 1000 = 1/30 s): happy for 0.1 + 0.2 s, sad for 0.1 and 0.1 s more; id 2 once;
    the detector did not look at the second."""
    sink = SummarySink(clock=lambda: 102.0)
    said = [("happy", 0), ("happy", 3), ("sad", 9), ("sad", 12)]
    frames = [make.frame(i, faces=make.faces([[0, 0, 9, 9]], [emotion], ids=[1])) for emotion, i in said]
    frames[3].faces = make.faces([[0, 0, 9, 9], [20, 20, 30, 30]], ["sad", "neutral"], ids=[1, 2])
    frames[1].hidden = None
    make.drive(sink, frames)
    return sink


def test_shares_are_of_time(make):
    result = run(make).result()
    track = result["tracks_detail"][0]
    assert (track["source"], track["tracker_id"], track["frames"]) == ("clip.mp4", 1, 4)
    assert (track["first_pts_s"], track["last_pts_s"]) == (0.0, 0.4)
    assert track["shares"]["happy"] == pytest.approx(0.6)
    assert track["shares"]["sad"] == pytest.approx(0.4)
    assert track["confidence"] == pytest.approx(0.7)
    assert result["labels"]["neutral"] == pytest.approx(0.1 / 0.6, abs=1e-3)


def test_counts_and_speed(make):
    result = run(make).result()
    assert (result["frames"], result["faces"], result["tracks"]) == (4, 5, 2)
    assert result["fps"] == pytest.approx(2.0)  # decoded at 100.0, asked at 102.0
    assert run(make).result(seconds=8.0)["fps"] == pytest.approx(0.5)


def test_keys_are_stable_and_json_strict(make):
    sink = SummarySink()
    unread = make.faces([[0, 0, 9, 9]], ["uncertain"])
    unread.data["smoothed"] = np.full((1, 7), np.nan, np.float32)
    make.drive(sink, [make.frame(0, faces=unread)])
    result = json.loads(json.dumps(sink.result(), allow_nan=False))
    assert list(result) == ["fps", "seconds", "frames", "faces", "tracks", "sources", "labels", "tracks_detail"]
    assert list(SummarySink().result()) == list(result)
    assert result["tracks_detail"][0]["confidence"] is None


def test_the_ledger_gives_the_accounts(make):
    ledger = LedgerSnapshot({"clip.mp4": SourceLedger(9, 4, {"stride": 5}), "cam": SourceLedger()})
    assert run(make).result(ledger)["sources"] == {
        "clip.mp4": {"decoded": 9, "shown": 4, "dropped": {"stride": 5}, "carried": 1},
        "cam": {"decoded": 0, "shown": 0, "dropped": {}, "carried": 0},
    }


def test_pictures_are_counted_but_not_tracked(make):
    sink = SummarySink()
    make.drive(sink, [make.frame(i, kind="image", origin=f"{i}.png", faces=make.faces([[0, 0, 9, 9]])) for i in range(3)])
    result = sink.result()
    assert (result["frames"], result["faces"], result["tracks"], result["tracks_detail"]) == (3, 3, 0, [])
    assert result["labels"]["happy"] == 1.0


def test_of_a_film_of_one_frame_its_labels_are_told(make):
    sink = SummarySink()
    make.drive(sink, [make.frame(0, faces=make.faces([[0, 0, 9, 9]], ["sad"], ids=[1]))])
    result = sink.result()
    assert result["labels"]["sad"] == result["tracks_detail"][0]["shares"]["sad"] == 1.0


def test_a_gap_weighs_a_second_at_most(make):
    sink = SummarySink()
    make.drive(sink, [make.frame(i, faces=make.faces([[0, 0, 9, 9]], [emotion], ids=[1])) for i, emotion in ((0, "sad"), (3000, "happy"))])
    assert sink.result()["tracks_detail"][0]["shares"]["sad"] == pytest.approx(0.5)


def test_the_table_is_legible(make):
    sink, text = run(make), io.StringIO()
    sink.result(LedgerSnapshot({"clip.mp4": SourceLedger(9, 4, {"stride": 5})}))
    sink.print(Console(file=text, width=100))
    lines = text.getvalue().splitlines()
    assert lines[0] == "4 frames in 2.0 s, 2.0 fps · faces in them: 5 · tracks: 2"
    assert lines[1] == "clip.mp4: 9 decoded, 4 shown (1 without a look of the detector), dropped: 5 stride"
    assert lines[3].split() == ["1", "0.0–0.4", "4", "happy", "60%,", "sad", "40%", "0.70"]


def test_names_in_brackets_are_shown_as_they_are(make):
    sink, text, names = SummarySink(), io.StringIO(), ["[foo] a.mp4", "br[/y].mp4"]
    for name in names:
        make.drive(sink, [make.frame(i, source=name, faces=make.faces([[0, 0, 9, 9]], ["sad"], ids=[1])) for i in range(2)])
    sink.print(Console(file=text, width=100))
    assert [line for line in text.getvalue().splitlines() if line.startswith(tuple(names)) and "sad" in line] != []
    assert all(text.getvalue().count(name) == 2 for name in names)


def test_a_run_without_frames_prints_a_line():
    sink, text = SummarySink(), io.StringIO()
    sink.result()
    sink.print(Console(file=text, width=100))
    assert text.getvalue().strip() == "0 frames · faces in them: 0 · tracks: 0"


def test_off_a_terminal_no_path_is_broken_into_lines(tmp_path: Path) -> None:
    folder = tmp_path / ("a folder with quite a long name " * 4).strip()
    folder.mkdir()
    picture = folder / "blank.png"
    cv2.imwrite(str(picture), np.zeros((64, 64, 3), np.uint8))
    done = fer("--source", picture, "--backend", "fake", "--output", tmp_path / "out.png")
    assert done.returncode == 0
    assert f"{picture}: 1 decoded, 1 shown, dropped: none" in done.stderr.splitlines()
