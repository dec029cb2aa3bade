"""`fer-bench tune`: what is tried, what is taken, what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tune
from benchmarks.job import Job
from benchmarks.quality import event_quality
from benchmarks.tune import Goal, candidates, write_config
from pipeline.config import load_config

from .conftest import bench


def test_intervals_are_tried_last_and_only_where_allowed() -> None:
    assert "detect.interval" not in candidates(Goal("fps"), ())
    assert list(candidates(Goal("latency", 30), (1, 2, 3)).items())[-1] == ("detect.interval", [2, 3])


def test_a_goal_is_told_in_its_own_unit() -> None:
    assert Goal("fps").told(41.26) == "41.3 FPS"
    assert Goal("latency", 30).told(20.0) == "age p95 50 ms"
    assert Goal("latency", 30).told(0.0) == "missed"


@pytest.mark.parametrize(("intervals", "best"), [((1, 2, 3), {"detect.interval": 3}), ((), {})])
def test_what_a_chosen_interval_costs_is_told(
    intervals: tuple[int, ...], best: dict[str, int], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(job: Job) -> dict[str, float]:
        return {"counted": 30 * job.interval, "begin": 0.0, "end": 1.0, "begin_cpu": 0.0, "end_cpu": 1.0}

    monkeypatch.setattr(tune, "run_in_child", ran)
    monkeypatch.setattr(tune, "measure_quality", lambda job, say: event_quality([], []))
    document = tune.tune(source=str(clip), goal=Goal("fps"), intervals=intervals, runs=2)
    assert document["best"] == best
    assert (document["quality"] is None) == (not best)
    assert ("equal event quality" in document["tables"][0]["sentence"]) == bool(best)


@pytest.mark.parametrize(("fps", "said"), [(None, "let a frame of a live source through"), (30.0, "reach 30 FPS")])
def test_a_goal_that_is_not_reached_is_said_and_nothing_is_written(
    fps: float | None, said: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "run_in_child", lambda job: {"counted": 1, "begin": 0, "end": 1, "begin_cpu": 0, "end_cpu": 1, "ages": []})
    wanted = () if fps is None else ("--fps", fps)
    ran = bench(capfd, "tune", "--source", clip, "--goal", "latency", *wanted, "--runs", 1, "--config", tmp_path / "x.yaml")
    assert ran.code == 1
    assert said in ran.err.splitlines()[-1]
    assert "x.yaml is not written" in ran.err
    assert not (tmp_path / "x.yaml").exists()


def test_a_setting_with_which_the_goal_is_reached_at_last_says_so(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(job: Job) -> dict[str, object]:
        return {"ages": [0.1] if job.settings.get("max_batch") == 1 else []}

    monkeypatch.setattr(tune, "run_in_child", ran)
    rows = tune.tune(source=str(clip), goal=Goal("latency"), runs=1)["tables"][0]["rows"]
    assert ["max_batch=1", "reaches the goal, which the best so far misses", "taken"] in rows


def test_where_the_detector_runs_in_int8_its_twin_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    for default, tried in (("yolo11n_face_int8", ["yolo11n_face"]), ("yolo11n_face", None)):
        monkeypatch.setattr(tune.select, "default_model", lambda task, default=default: default)
        assert candidates(Goal("fps"), ()).get("detect.model") == tried


def test_what_is_written_is_a_configuration(tmp_path: Path) -> None:
    document = {"goal": "fps", "reached": "80.0 FPS", "host": {"cpu": "x", "cores": 2}, "best": {"detect.interval": 3, "max_batch": 2}}
    write_config(document, 320, {"video.crf": 20}, tmp_path / "found.yaml")
    config = load_config(tmp_path / "found.yaml")
    assert (config.detect.interval, config.max_batch, config.detect.imgsz, config.video.crf) == (3, 2, 320, 20)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--fps", 30), "--goal latency"), (("--intervals", "often"), "whole numbers"), (("--config", "no/such/x.yaml"), "does not exist"),
     (("--set", "detect.imgsz=320"), "use --imgsz")],
)
def test_what_makes_no_sense_is_one_sentence(arguments: tuple[object, ...], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "tune", *arguments)
    assert ran.code == 2
    assert said in ran.err
