"""`fer-bench compare` without the rivals' environments: ours is measured, they are left out with a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.child import BenchError, run_module
from benchmarks.compare import _run_rival

from .conftest import FAST, bench


def test_rivals_that_cannot_run_are_left_out_and_say_why(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = clip.with_suffix(".pt")
    checkpoint.write_bytes(b"")
    ran = bench(capfd, "compare", "--source", clip, *FAST, "--python", sys.executable, "--checkpoint", checkpoint,
                "--rival", "script", "--rival", "fer-haar", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    d = ran.document
    assert d["compared"]["fer-stream"]["ours_is_faster_by"] == 1.0
    assert "--fer-python" in d["skipped"]["fer-haar"]
    if "script" in d["skipped"]:  # ultralytics is installed beside the run time on some machines, and then reads an empty checkpoint
        assert "script" in ran.err
    assert d["quality"]["equal"]
    assert (d["quality"]["face_f1"], d["quality"]["label_agreement"]) == (1.0, None)  # the fake detector sees no face
    assert "Event quality" in ran.err
    assert set(d["compared"]) | set(d["skipped"]) == {"fer-stream", "script", "fer-haar"}


def test_a_rival_that_does_not_exist_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "compare", "--rival", "magic")
    assert ran.code == 2
    assert "'magic'" in ran.err


@pytest.mark.parametrize("change", ["detect.interval=3", "detect.imgsz=320", "stride=2"])
def test_what_no_rival_would_obey_is_refused(change: str, capfd: pytest.CaptureFixture[str]) -> None:
    ran = bench(capfd, "compare", "--set", change)
    assert ran.code == 2
    assert f"--set {change} cannot be measured here" in ran.err


def test_a_rival_sees_of_our_folder_only_what_it_imports(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho * >&2\nexit 1\n")
    python.chmod(0o755)
    for _ in range(2):  # rounds
        with pytest.raises(BenchError, match=r"failed: benchmarks engines$"):
            _run_rival({"kind": "script", "folder": str(tmp_path)}, str(python))


def test_a_rival_that_crashes_says_so_and_not_what_it_wrote_before(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no CUDA here' >&2\nkill -SEGV $$\n")
    python.chmod(0o755)
    with pytest.raises(BenchError, match="the rival x crashed: Segmentation fault"):
        run_module("benchmarks.rivals", [], "rival x", str(python))
