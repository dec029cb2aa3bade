"""From Python: a run, a callback, an iterator, the bare models."""

from __future__ import annotations

import subprocess
import sys
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
from pipeline.flow.batch import Batch


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


CAMERA = "lavfi:testsrc2=size=160x120:rate=30,realtime"
"""What does not end by itself, or here after `max_frames` in twenty seconds, so that a run that goes on is seen."""
LONG = 600


class Ends:
    """A sink that remembers for what reason sources came to their end: none, where the run was broken off before."""

    name, best_effort = "ends", False

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def write(self, batch: Batch) -> None:
        self.reasons += [ended.reason for ended in batch.ended]

    def close(self) -> None:
        pass


def test_leaving_a_stream_ends_what_would_go_on() -> None:
    ends = Ends()
    frames = stream(CAMERA, max_frames=LONG, sinks=[ends])
    next(frames)
    frames.close()
    assert not [t.name for t in threading.enumerate() if t.name == "fer-stream"]
    assert not ends.reasons


def test_stream_hands_out_frames_and_ends_when_nobody_looks(media: Path) -> None:
    frames = stream(media / "d03_neutral_to_smile.mp4")
    first = next(frames)
    assert first.bgr.shape == (360, 640, 3)
    assert first.bgr.dtype == np.uint8
    assert first.nbytes >= 640 * 360 * 3 // 2
    frames.close()
    assert not [t.name for t in threading.enumerate() if t.name == "fer-stream"]
    assert sum(1 for _ in stream(media / "d03_neutral_to_smile.mp4", max_frames=10)) == 10


def test_a_stream_that_the_garbage_collector_closes_on_a_thread_of_its_own_run_ends(media: Path) -> None:
    class Closes:
        """The collector runs on whichever thread makes the object that is one too many; a sink's, here."""

        name, best_effort = "closes", False

        def write(self, batch: Batch) -> None:
            assert got_one.wait(60)
            frames.close()

        def close(self) -> None:
            closed.set()

    got_one, closed = threading.Event(), threading.Event()
    frames = stream(media / "d03_neutral_to_smile.mp4", sinks=[Closes()])
    next(frames)
    got_one.set()
    assert closed.wait(60)
    for thread in [t for t in threading.enumerate() if t.name == "fer-stream"]:
        thread.join(60)
        assert not thread.is_alive()


def test_errors_come_as_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.mp4"):
        run(tmp_path / "none.mp4")
    (tmp_path / "bad.mp4").write_text("no video at all")
    with pytest.raises(FerError, match=r"bad\.mp4"):
        run(tmp_path / "bad.mp4")
    with pytest.raises(FerError, match=r"bad\.mp4"):
        list(stream(tmp_path / "bad.mp4"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_frames": 29.5}, "a whole number"),
        ({"evnts": "a.csv"}, "did you mean events"),
        ({"config": {"detect": {"interval": 3}}}, "load_config"),
        ({"source": []}, "no source is named"),
        ({"source": None}, "a webcam's number"),
        ({"source": b"film.mp4"}, "is a bytes"),
        ({"source": [0, None]}, "is a NoneType"),
        ({"start": "1:30"}, "expected seconds"),
        ({"sinks": 1}, "a list of objects"),
    ],
)
def test_arguments_that_make_no_sense_are_one_sentence(media: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(**{"source": media / "d03_neutral_to_smile.mp4", **arguments})


def test_sinks_of_ones_own_get_the_frames(media: Path) -> None:
    class Counter:
        name, best_effort = "counter", False
        frames = 0

        def write(self, batch: Batch) -> None:
            self.frames += len(batch.frames)

        def close(self) -> None:
            pass

    counter = Counter()
    assert sum(1 for _ in stream(media / "d03_neutral_to_smile.mp4", sinks=[counter], max_frames=5)) == 5
    assert counter.frames == 5


def test_a_script_that_ends_while_it_holds_a_stream_ends_well(media: Path, tmp_path: Path) -> None:
    script = f"""
from pipeline.api import stream
frames = stream({str(media / "d02_sad_to_laugh.mp4")!r}, output={str(tmp_path / "out.mp4")!r})
for frame in frames:
    if frame.index == 3:
        break
print("done")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_script_that_ends_while_it_holds_a_stream_ends_what_would_go_on() -> None:
    script = f"""
from pipeline.api import stream
class Says:
    name, best_effort = "says", False
    def write(self, batch):
        for ended in batch.ended:
            print(ended.reason, flush=True)
    def close(self):
        print("closed", flush=True)
frames = stream({CAMERA!r}, max_frames={LONG}, sinks=[Says()])
next(frames)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


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


def test_a_reading_that_was_put_off_is_not_one_that_is_missing(media: Path) -> None:
    config = load_config(changes={"classify.max_age_s": 2.0, "smooth.hold_s": 0.2})
    assert run(media / "d03_neutral_to_smile.mp4", config=config, max_frames=30)["labels"]["uncertain"] == 0


def test_settings_from_python(media: Path) -> None:
    config = load_config(changes={"classify.head": "fer2013", "detect.interval": 3})
    frames = list(stream(media / "d03_neutral_to_smile.mp4", config=config))
    assert all(len(f.faces) == 1 for f in frames)
    assert [bool(f.faces.data["observed"][0]) for f in frames[:7]] == [True, False, False, True, False, False, True]
