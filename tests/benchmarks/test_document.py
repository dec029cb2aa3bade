"""What is told of records: shares, the bottleneck, names."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.document import _threads, bottleneck
from benchmarks.sampling import part


def stage(thread: str, busy: float, inside: str | None = None) -> dict[str, Any]:
    return {"thread": thread, "busy": busy, "inside": inside}


STAGES = {
    "decode": stage("decode", 0.5), "detect": stage("detect", 0.6), "detect.model": stage("detect", 0.45, "detect"),
    "track": stage("t+c", 0.3), "classify": stage("t+c", 0.5), "video": stage("video", 0.7),
}  # fmt: skip


def test_the_bottleneck_is_the_thread_that_is_busiest_with_all_its_stages() -> None:
    found = bottleneck(STAGES, 0.5, 0.0)
    assert (found["thread"], found["stage"], found["busy"], found["bound"]) == ("t+c", "classify", 0.8, "thread")


def test_where_no_core_is_left_the_cores_are_the_limit() -> None:
    assert bottleneck(STAGES, 0.95, 0.0)["bound"] == "cpu"
    assert bottleneck(STAGES, 0.5, 0.45)["bound"] == "cpu"


def test_the_part_of_the_engine_is_told() -> None:
    stages = {name: one for name, one in STAGES.items() if name.startswith("detect")}
    assert "75% of it in detect.model" in bottleneck(stages, 0.5, None)["sentence"]


def test_cpu_by_thread_is_told_per_frame_of_the_window() -> None:
    record = {"threads": {"video": [0.3, 0.6]}, "sources": {}, "frames": 100, "counted": 60}
    assert _threads([record]) == {"video": {"cpu_ms_per_frame": 5.0, "waited_for_core_ms_per_frame": 10.0}}


@pytest.mark.parametrize(("name", "said"), [("video of a of b.mp4", "video"), ("detect", "detect"), ("events", "events")])
def test_parts_have_the_same_name_whatever_the_clip(name: str, said: str) -> None:
    assert part(name) == said
