"""`fer-bench tune`: what is tried, what is taken, what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_what_is_written_is_a_configuration(tmp_path: Path) -> None:
    document = {"goal": "fps", "reached": "80.0 FPS", "host": {"cpu": "x", "cores": 2}, "best": {"detect.interval": 3, "max_batch": 2}}
    write_config(document, 320, {"video.crf": 20}, tmp_path / "found.yaml")
    config = load_config(tmp_path / "found.yaml")
    assert (config.detect.interval, config.max_batch, config.detect.imgsz, config.video.crf) == (3, 2, 320, 20)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--fps", 30), "--goal latency"), (("--intervals", "often"), "whole numbers"), (("--config", "no/such/x.yaml"), "does not exist")],
)
def test_what_makes_no_sense_is_one_sentence(arguments: tuple[object, ...], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "tune", *arguments)
    assert ran.code == 2
    assert said in ran.err
