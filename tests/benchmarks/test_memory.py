"""`python -m benchmarks.memory`: the verdict on curves, and a run of seconds."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.looks import Look
from benchmarks.memory import judge

ROOT = Path(__file__).resolve().parents[2]


def curve(per_minute: float = 0, at: float = 500, seed: int = 1, peak_mb: float = 0, minutes: int = 6) -> list[Look]:
    """Fills for half a minute, jitters by 5 MB, and grows by `per_minute` MB."""
    chance = random.Random(seed)
    rss = [at * min(t / 30, 1) + chance.uniform(-5, 5) + per_minute * t / 60 for t in range(minutes * 60)]
    return [Look(float(t), 20, 0, 10, mb, mb, peak_mb) for t, mb in enumerate(rss)]


def bad(looks: list[Look]) -> list[str]:
    return [one.what.split()[0] for one in judge(looks) if not one.ok]


@pytest.mark.parametrize("seed", range(3))
def test_a_flat_curve_passes_however_it_jitters_and_fills(seed: int) -> None:
    assert bad(curve(seed=seed)) == []
    assert bad(curve(per_minute=-3, seed=seed)) == []


def test_a_growing_curve_fails_and_so_does_one_that_is_too_high() -> None:
    assert bad(curve(per_minute=1.5)) == ["memory"]
    assert bad(curve(at=910)) == ["most"]
    assert bad(curve(peak_mb=901)) == ["most"], "a peak between two looks"
    assert bad(curve(per_minute=80)) == ["most", "memory"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_run_of_seconds_leaves_a_document_and_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    command = [sys.executable, "-m", "benchmarks.memory", "--minutes", "0.1", "--width", "320", "--height", "180",
               "--set", "backend=fake", "--plot", str(picture), "--json"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if document["ok"] else 1)
    assert [one["what"].split()[0] for one in document["verdicts"]] == ["most", "memory"]
    assert len(document["curve"]["rows"]) in range(4, 8)
    assert document["frames"] > 0
    assert 50 < document["curve"]["rows"][-1][document["curve"]["columns"].index("peak_mb")] < 900
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--width", "641"), "642×1080"), (("--plot", "no/such/x.png"), "does not exist"),
     (("--minutes", "0.1", "--width", "64", "--height", "64", "--set", "colour=red"), "colour")],
)  # fmt: skip
def test_what_makes_no_sense_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
