"""`fer-bench check`: worse beyond the noise fails, within it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.check import check_against, read_baseline, verdict
from engines.errors import UsageError

from .conftest import bench


def document(efficiency: float = 0.8, spread: float = 0.01, peak_mb: float = 500) -> dict[str, Any]:
    names = ("efficiency", "efficiency_own", "cpu_efficiency")
    return {
        "bench": "pipeline", "peak_mb": peak_mb, "warnings": [], "host": {"cpu": "x", "cores": 2},
        "settings": {"source": "demo", "interval": 1, "imgsz": 640, "outputs": "full", "settings": {}, "runs": 3},
        **dict.fromkeys(names, efficiency), **{f"{name}_spread": [efficiency - spread, efficiency + spread] for name in names},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("then", "now", "ok"),
    [
        (document(), document(), True),
        (document(), document(0.95), True),
        (document(), document(0.79), True),  # -1.3 %
        (document(), document(0.75), False),  # -6.3 %, noise 1.25 + 1.33 %
        (document(), document(0.75, spread=0.06), True),  # noise 1.25 + 8 %
        (document(spread=0), document(0.79, spread=0), True),  # two per cent are always allowed
        (document(spread=0), document(0.78, spread=0), False),
        (document(), document(peak_mb=540), True),
        (document(), document(peak_mb=560), False),
    ],
)
def test_worse_is_what_the_noise_of_both_runs_does_not_explain(then: dict[str, Any], now: dict[str, Any], ok: bool) -> None:
    assert verdict(then, now)["ok"] is ok


def test_the_sentence_says_what_is_worse_and_by_how_much() -> None:
    sentence = verdict(document(), document(0.6))["sentence"]
    assert "efficiency 0.8 -> 0.6 (-25.0%" in sentence
    assert "peak_mb" not in sentence


def test_a_run_that_is_too_noisy_says_so() -> None:
    assert any("noisy" in text for text in verdict(document(spread=0.1), document())["warnings"])


def test_the_last_line_of_a_file_is_the_baseline(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text("something else\n" + json.dumps(document()) + "\n")
    assert read_baseline(path)["efficiency"] == 0.8


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"bench": "engines"}'])
def test_what_is_no_baseline_is_one_sentence(text: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.json"
    if text is not None:
        path.write_text(text)
    ran = bench(capfd, "check", path)
    assert ran.code == 2
    assert "baseline" in ran.err
    assert len(ran.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("lacks", "said"),
    [(["efficiency_spread"], "lacks efficiency_spread:"), (["host", "peak_mb"], "lacks host, peak_mb:"), (["settings"], "lacks settings")],
)
def test_a_baseline_of_another_fer_bench_is_one_sentence(
    lacks: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({key: value for key, value in document().items() if key not in lacks}))
    ran = bench(capfd, "check", path)
    assert ran.code == 2
    assert said in ran.err
    assert "make it anew" in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_a_bare_chain_of_another_model_is_measured_again_as_it_was_or_said(monkeypatch: pytest.MonkeyPatch) -> None:
    one = document()
    other = one | {"settings": one["settings"] | {"bare_model": "/models/yolo11n.xml"}}
    asked: dict[str, Any] = {}
    monkeypatch.setattr("benchmarks.runs.run_pipeline", lambda **options: asked.update(options) or other)
    assert not any("bare chain" in text for text in check_against(other)["warnings"])
    assert asked["bare_model"] == "/models/yolo11n.xml"
    assert any("bare chains ran different models" in text for text in verdict(one, other)["warnings"])


def test_a_document_names_the_models_of_its_chains(measured: tuple[dict[str, Any], Path], unpaced: tuple[dict[str, Any], Path]) -> None:
    from benchmarks.throughput import kept_model

    assert measured[0]["settings"]["bare_model"] is None
    assert measured[0]["settings"]["own_detector"].startswith("yolo11n_face")
    assert (unpaced[0]["settings"]["bare_model"], unpaced[0]["settings"]["own_detector"]) == (str(kept_model()), None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "a/other.mp4"}, "source demo and other.mp4"), ({"interval": 3}, "interval 1 and 3"),
        ({"imgsz": 320}, "imgsz 640 and 320"), ({"outputs": "events"}, "outputs full and events"),
        ({"max_frames": 90}, "max_frames None and 90"), ({"frames": 9}, "frames None and 9"),
    ],
)  # fmt: skip
def test_runs_of_unlike_things_are_not_compared(change: dict[str, Any], said: str) -> None:
    one = document()
    with pytest.raises(UsageError, match=said):
        verdict(one, one | {"settings": one["settings"] | change})


def test_the_same_clip_in_another_folder_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    one = document()
    then, now = (one | {"settings": one["settings"] | {"source": source}} for source in ("was/talk.mp4", "is/talk.mp4"))
    assert verdict(then, now)["ok"]
    renamed = one | {"settings": one["settings"] | {"source": "is/renamed.mp4"}}
    monkeypatch.setattr("benchmarks.runs.run_pipeline", lambda **_: renamed)
    assert check_against(then, source="is/renamed.mp4")["ok"]


def test_a_faster_detector_is_no_regression_of_what_is_held_against_it() -> None:
    then, now = (document() | {"settings": document()["settings"] | {"own_detector": name}} for name in ("n 1234", "n 5678"))
    now["efficiency_own"] = 0.5
    found = verdict(then, now)
    assert found["ok"]
    assert [one["name"] for one in found["compared"]] == ["efficiency", "cpu_efficiency", "peak_mb"]
    assert any("efficiency_own is left out" in text for text in found["warnings"])


def test_one_round_is_no_baseline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = {runs: tmp_path / f"{runs}.json" for runs in (1, 2)}
    for runs, path in paths.items():
        path.write_text(json.dumps(document() | {"settings": document()["settings"] | {"runs": runs}}))
    for pair in ((1, 2), (2, 1)):
        ran = bench(capfd, "check", paths[pair[0]], "--measured", paths[pair[1]])
        assert ran.code == 2
        assert "1.json is of one round" in ran.err


def test_the_exit_code_says_which(measured: tuple[dict[str, Any], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    same, better = tmp_path / "same.json", tmp_path / "better.json"
    twice = measured[0] | {"settings": measured[0]["settings"] | {"runs": 2}}
    same.write_text(json.dumps(twice))
    better.write_text(json.dumps(twice | {"efficiency": twice["efficiency"] * 100}))
    ran = bench(capfd, "check", same, "--measured", same, "--json")
    assert ran.code == 0
    assert ran.document["ok"] is True
    ran = bench(capfd, "check", better, "--measured", same, "--json")
    assert ran.code == 1
    assert "regression: " in ran.err
    assert [one["name"] for one in ran.document["compared"] if not one["ok"]] == ["efficiency"]
