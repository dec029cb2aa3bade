"""`fer-bench pipeline` from end to end, on a second of video. Ratios and shapes only: this machine may be busy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.throughput import Throughput

from .conftest import FAST, bench

Measured = tuple[dict[str, Any], Path]


def test_the_document_has_what_it_promises(measured: Measured) -> None:
    d, _ = measured
    assert {"fps", "efficiency", "efficiency_own", "age_ms", "drops", "stages", "peak_mb", "bottleneck", "host", "settings"} <= set(d)
    assert set(d["age_ms"]) == {"p50", "p95", "p99"}
    assert d["age_ms"]["p50"] <= d["age_ms"]["p95"] <= d["age_ms"]["p99"]
    assert d["settings"]["frames"] == 40
    assert d["start_s_spread"][0] <= d["start_s"] <= d["start_s_spread"][1]
    assert d["efficiency"] == pytest.approx(d["rounds"]["full_fps"][0] / d["rounds"]["bare_fps"][0], rel=0.01)
    assert any("one round only" in text for text in d["warnings"])
    assert d["settings"]["runs"] == len(d["rounds"]["full_fps"]) == len(d["rounds"]["bare_fps"]) == 1


def test_the_efficiency_is_the_median_of_the_rounds_ratios() -> None:
    def record(fps: float, cpu_s: float) -> dict[str, Any]:
        return {"counted": 5, "begin": 1.0, "end": 1.0 + 5 / fps, "begin_cpu": 0.5, "end_cpu": 0.5 + 5 * cpu_s}

    result = Throughput([record(40, 0.03), record(30, 0.03), record(90, 0.04)], [record(50, 0.02), record(60, 0.02), record(100, 0.02)])
    found = result.efficiency
    assert (found.median, found.low, found.high) == pytest.approx((0.8, 0.5, 0.9))
    assert result.efficiency_own == found  # our detector is the chain's
    assert result.cpu_efficiency.median == pytest.approx(2 / 3)
    assert (result.full.median, result.bare.median) == pytest.approx((40, 60))


def test_every_stage_is_there_in_the_order_of_the_flow(measured: Measured) -> None:
    d, _ = measured
    outer = [name for name, one in d["stages"].items() if one["inside"] is None]
    assert outer == ["decode", "detect", "track", "classify", "smooth", "events", "video", "summary"]
    assert d["stages"]["detect.model"]["inside"] == "detect"
    for name, one in d["stages"].items():
        assert 0 <= one["busy"] <= 1, name
        if name == "classify.model":  # the fake detector sees no face
            continue
        assert one["per_frame_ms"]["p50"] <= one["per_frame_ms"]["p99"], name
        assert sum(int(size) * count for size, count in one["batch_sizes"].items()) > 0, name
    assert d["stages"]["detect.model"]["ms_per_run_frame"] <= d["stages"]["detect"]["ms_per_run_frame"]
    assert d["stages"]["detect"]["queue_wait_ms"] is not None


def test_queues_threads_and_shares_are_told(measured: Measured) -> None:
    d, _ = measured
    assert {"lane", "video", "events", "track+classify+smooth"} <= set(d["queues"])
    assert all(0 <= queue["mean"] <= queue["max"] <= queue["capacity"] for queue in d["queues"].values())
    assert 0 < d["cpu_share"] <= 1
    assert any("libraries'" in name or "av:" in name for name in d["threads"])
    assert d["bottleneck"]["stage"] in d["stages"]


def test_the_paced_run_is_live(measured: Measured) -> None:
    latency = measured[0]["latency"]
    assert latency["stages"]["decode"]["busy"] is None
    assert latency["queues"]["lane"]["capacity"] == 2
    assert latency["drops"] >= 0
    assert 0 < latency["looked_share"] <= 1
    assert latency["age_frames"]["p50"] == pytest.approx(latency["age_ms"]["p50"] * 30 / 1000, abs=0.01)


def test_nothing_in_the_document_names_a_folder_of_this_machine(measured: Measured) -> None:
    d, _ = measured
    d = {**d, "settings": {**d["settings"], "source": ""}}
    assert not re.search(r"/tmp|/home|/root", repr(d))


def test_without_a_paced_run_there_is_no_age_and_the_report_is_whole(unpaced: Measured) -> None:
    d, page = unpaced
    assert (d["age_ms"], d["drops"]) == (None, None)
    assert page.read_text().count("data:image/png;base64,") == 3


def test_the_report_is_whole_and_fetches_nothing(measured: Measured) -> None:
    text = measured[1].read_text()
    assert text.count("data:image/png;base64,") == 5
    assert "efficiency" in text
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", text)
    assert not list(measured[1].parent.glob(".*"))


def test_json_is_the_last_line_of_standard_output_and_tables_go_to_the_other(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "pipeline", "--source", clip, *FAST, "--outputs", "events", "--interval", 3, "--mode", "latency", "--json")
    assert ran.code == 0, ran.err
    assert len(ran.out.splitlines()) == 1
    assert ran.document["bench"] == "latency"
    assert "video" not in ran.document["stages"]
    assert 0 < ran.document["looked_share"] <= 0.4  # every third
    assert "looked at" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "0"], "not a video file"),
        (["--source", "nowhere.mp4"], "nowhere.mp4"),
        (["--set", "detect.imgsz"], "not KEY=VALUE"),
        (["--report", "no/such/folder/page.html"], "does not exist"),
        (["--interval", "0"], "--interval"),
        (["--set", "detect.interval=3"], "use --interval"),
        (["--set", "detect.imgsz=320"], "use --imgsz"),
        (["--set", "stride=2"], "leave it out"),
        (["--source", "-"], "- cannot be measured: it is not a video file"),
        (["--source", "rtsp://user:secret@camera/stream"], "rtsp://camera/stream cannot be measured"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_exit_code_2(arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "pipeline", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert "secret" not in ran.err
    assert ran.out == ""


def test_a_file_that_is_no_video_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "not a video.mp4"
    text.write_text("hello")
    ran = bench(capfd, "pipeline", "--source", text)
    assert ran.code == 2
    assert "cannot measure" in ran.err


def test_a_run_that_fails_says_why_and_exits_with_1(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "pipeline", "--source", clip, *FAST, "--set", "detect.model=nowhere.onnx", "--set", "backend=openvino")
    assert ran.code in (1, 2)
    assert "nowhere.onnx" in ran.err
