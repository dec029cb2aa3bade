"""From Python: a run, a callback, an iterator, the bare models."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import load_classifier, load_detector
from engines.detector import Detector
from engines.errors import EngineError
from pipeline.api import load_config, run, stream
from pipeline.errors import FerError, StageError, UsageError


def test_run_gives_the_summary_and_calls_back(media: Path, tmp_path: Path) -> None:
    seen = []
    summary = run(media / "d03_neutral_to_smile.mp4", events=tmp_path / "rows.csv", on_frame=seen.append)
    assert [f.index for f in seen] == list(range(72))
    assert summary["frames"] == 72
    assert summary["tracks"] == 1
    assert (tmp_path / "rows.csv").read_text().startswith("source,epoch,frame,pts_s")
    faces = seen[40].faces
    assert faces.data["emotion"].tolist() == ["happy"]
    assert faces.data["smoothed"].sum() == pytest.approx(1, abs=1e-4)
    assert faces.tracker_id.tolist() == [1]


def test_stream_hands_out_frames_and_ends_when_nobody_looks(media: Path) -> None:
    frames = stream(media / "d03_neutral_to_smile.mp4")
    first = next(frames)
    assert first.bgr.shape == (360, 640, 3)
    assert first.bgr.dtype == np.uint8
    assert first.nbytes >= 640 * 360 * 3 // 2
    frames.close()
    assert not [t.name for t in threading.enumerate() if t.name == "fer-stream"]
    assert sum(1 for _ in stream(media / "d03_neutral_to_smile.mp4", max_frames=10)) == 10


def test_errors_come_as_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.mp4"):
        run(tmp_path / "none.mp4")
    (tmp_path / "bad.mp4").write_text("no video at all")
    with pytest.raises(FerError, match=r"bad\.mp4"):
        run(tmp_path / "bad.mp4")
    with pytest.raises(FerError, match=r"bad\.mp4"):
        list(stream(tmp_path / "bad.mp4"))


def test_an_error_in_the_callback_ends_the_run(media: Path) -> None:
    def fails(frame) -> None:
        raise RuntimeError("mine")

    with pytest.raises(StageError, match="mine"):
        run(media / "d03_neutral_to_smile.mp4", on_frame=fails)


def test_models_that_a_run_loaded_are_closed_at_its_end_and_the_callers_are_not(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(*args: Any, **settings: Any) -> Detector:
        loaded.append(load_detector(*args, **settings))
        return loaded[-1]

    monkeypatch.setattr("pipeline.build.load_detector", load)
    photo = media / "photos" / "p03_one_man_smiling.jpg"
    batch = np.zeros((1, 64, 64, 3), np.uint8)
    run(photo)
    with pytest.raises(EngineError, match="closed"):
        loaded[0].infer(batch)
    mine = load_detector(), load_classifier()
    run(photo, models=mine)
    assert mine[0].infer(batch)
    assert len(loaded) == 1


def test_settings_from_python(media: Path) -> None:
    config = load_config(changes={"classify.head": "fer2013", "detect.interval": 3})
    frames = list(stream(media / "d03_neutral_to_smile.mp4", config=config))
    assert all(len(f.faces) == 1 for f in frames)
    assert [bool(f.faces.data["observed"][0]) for f in frames[:7]] == [True, False, False, True, False, False, True]
