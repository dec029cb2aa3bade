"""`fer-bench check`: worse beyond the noise fails, within it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.check import read_baseline, verdict

from .conftest import bench


def document(efficiency: float = 0.8, spread: float = 0.01, peak_mb: float = 500) -> dict[str, Any]:
    names = ("efficiency", "efficiency_own", "cpu_efficiency")
    return {
        "bench": "pipeline", "peak_mb": peak_mb, "warnings": [], "host": {"cpu": "x", "cores": 2}, "settings": {},
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


def test_the_exit_code_says_which(measured: tuple[dict[str, Any], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    same, better = tmp_path / "same.json", tmp_path / "better.json"
    same.write_text(json.dumps(measured[0]))
    better.write_text(json.dumps(measured[0] | {"efficiency": measured[0]["efficiency"] * 100}))
    ran = bench(capfd, "check", same, "--measured", same, "--json")
    assert ran.code == 0
    assert ran.document["ok"] is True
    ran = bench(capfd, "check", better, "--measured", same, "--json")
    assert ran.code == 1
    assert "regression: " in ran.err
    assert [one["name"] for one in ran.document["compared"] if not one["ok"]] == ["efficiency"]
