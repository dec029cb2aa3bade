"""`fer-bench engines` on the fake backend and on one that is not there."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import engines
from benchmarks.engines import explain

from .conftest import bench


def test_each_combination_is_a_row_measured_or_with_a_reason(capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(
        capfd, "engines", "--detector", "yolo11n_face", "--classifier", "emotion_cnn", "--backend", "fake,tensorrt", "--precision", "f32",
        "--batch", "1,3", "--seconds", 1, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = ran.document["rows"]
    assert [(r["task"], r["backend"], r["batch"]) for r in rows] == [
        (task, backend, batch) for task in ("detector", "classifier") for backend in ("fake", "tensorrt") for batch in (1, 3)
    ]
    for row in rows:
        assert (row["why_not"] is None) == (row["backend"] == "fake") == (row["images_per_s"] is not None)
        if row["backend"] == "fake":
            assert row["speed"] == 1.0
            assert row["per_call_ms"]["p50"] == pytest.approx(row["per_image_ms"]["p50"] * row["batch"], rel=0.01, abs=0.002)
    assert "What this machine cannot run" in ran.err


def test_why_the_pipeline_is_slower_is_told_in_milliseconds() -> None:
    document = {
        "fps": 50.0, "stages": {"detect": {"ms_per_run_frame": 17.0}, "detect.model": {"ms_per_run_frame": 15.0}},
        "threads": {"detect": {"cpu_ms_per_frame": 12.0}}, "cpu_ms_per_frame": 30.0, "host": {"cores": 2},
    }  # fmt: skip
    told = explain(10.0, document)
    assert ["a frame of the pipeline", "20.00"] in told["rows"]
    assert ["the rest of the stage detect (scaling, boxes)", "2.00"] in told["rows"]
    assert "30.0 ms of CPU a frame, which 2 cores give in 15.0 ms" in told["sentence"]


def test_what_is_explained_is_the_detector_that_the_pipeline_runs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def row(model: str, ms: float, batch: int = 1) -> dict[str, Any]:
        return {"task": "detector", "model": model, "batch": batch, "per_image_ms": {"p50": ms}}

    rows = [row("large", 30.0), row("large", 20.0), row("large", 9.0, batch=4), row("small", 5.0)]
    explained: list[float] = []
    asked: dict[str, Any] = {}
    monkeypatch.setattr(engines, "measure_engines", lambda **_: {"rows": rows, "tables": []})
    monkeypatch.setattr("benchmarks.tables.print_document", lambda *_: None)
    monkeypatch.setattr(engines, "explain", lambda ms, whole: explained.append(ms) or {"title": "", "head": [], "rows": []})
    monkeypatch.setattr("benchmarks.runs.run_pipeline", lambda **options: asked.update(options))
    assert bench(capfd, "engines", "--detector", "large", "--detector", "small", "--explain").code == 0
    assert (explained, asked["changes"]) == ([20.0], ("detect.model=large",))


@pytest.mark.parametrize("arguments", [("--batch", "0"), ("--batch", "two"), ("--backend", ",")])
def test_what_makes_no_sense_is_one_sentence(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "engines", *arguments)
    assert ran.code == 2
    assert len(ran.err.strip().splitlines()) == 1
