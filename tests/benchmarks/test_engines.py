"""`fer-bench engines` on the fake backend and on one that is not there."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import engines
from benchmarks.engines import explain
from benchmarks.host import manifest

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


def row(model: str, ms: float, batch: int = 1, backend: str = "openvino", precision: str = "f32") -> dict[str, Any]:
    named = {"task": "detector", "model": model, "backend": backend, "precision": precision, "batch": batch, "why_not": None}
    return named | {"per_image_ms": {"p50": ms}}


def whole(sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "fps": 50.0, "threads": {"detect": {"cpu_ms_per_frame": 12.0}}, "cpu_ms_per_frame": 30.0, "host": {"cores": 2},
        "stages": {"detect": {"ms_per_run_frame": 17.0}, "detect.model": {"ms_per_run_frame": 15.0, "batch_sizes": sizes}},
    }  # fmt: skip


def test_why_the_pipeline_is_slower_is_told_in_milliseconds() -> None:
    told = explain(row("large", 10.0, batch=4), whole({}))
    assert told["rows"][0] == ["the detector alone, nothing beside it (large, openvino f32 ×4)", "10.00"]
    assert ["a frame of the pipeline", "20.00"] in told["rows"]
    assert ["the rest of the stage detect (scaling, boxes)", "2.00"] in told["rows"]
    assert "30.0 ms of CPU a frame, which 2 cores give in 15.0 ms" in told["sentence"]


ROWS = [
    row("yolo11n_face", 30.0), row("yolo11n_face_int8", 20.0), row("yolo11n_face_int8", 9.0, batch=4),
    row("yolo11n_face_int8", 8.0, batch=4, precision="bf16"), row("yolo11n_face_int8", 2.0, batch=4, backend="torch"),
    row("yolo11n_face_int8", 7.0, batch=16),
]  # fmt: skip


@pytest.mark.parametrize(
    ("named", "rows", "explained"),
    [((), ROWS, 8.0), (("--detector", "yolo11n_face"), ROWS, 30.0), ((), ROWS[:1], "was not measured: add --backend openvino"),
     ((), [ROWS[1] | {"per_image_ms": None, "why_not": "it is broken"}], "was not measured: it is broken")],
)  # fmt: skip
def test_what_is_explained_is_what_the_pipeline_runs(
    named: tuple[str, ...], rows: list[dict[str, Any]], explained: float | str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    document = {"bench": "engines", "rows": rows, "tables": [], "settings": {"imgsz": 640, "device": "cpu"}, "host": manifest()}
    asked: dict[str, Any] = {}
    monkeypatch.setattr(engines, "measure_engines", lambda **_: document)
    monkeypatch.setattr("benchmarks.runs.run_pipeline", lambda **options: asked.update(options) or whole({"4": 9, "16": 1, "1": 3}))
    monkeypatch.setattr(engines.select, "default_model", lambda *_, **__: "yolo11n_face_int8")
    ran = bench(capfd, "engines", *named, "--explain", "--json")
    assert ran.code == 0, ran.err
    if isinstance(explained, str):
        assert explained in ran.document["warnings"][0]
        assert not asked
    else:
        assert ran.document["tables"][0]["rows"][0][1] == f"{explained:.2f}"
        assert asked["changes"] == (f"detect.model={named[1] if named else 'yolo11n_face_int8'}", "device=cpu")


@pytest.mark.parametrize("arguments", [("--batch", "0"), ("--batch", "two"), ("--backend", ",")])
def test_what_makes_no_sense_is_one_sentence(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "engines", *arguments)
    assert ran.code == 2
    assert len(ran.err.strip().splitlines()) == 1
