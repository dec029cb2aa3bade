"""One short run of the whole bench, shared by the tests that look at what it says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cli


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


def bench(capfd: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(one) for one in arguments])
    out, err = capfd.readouterr()
    return Ran(int(ended.value.code or 0), out, err)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, 640×360, two faces."""
    from benchmarks.clips import compose_faces

    return compose_faces(tmp_path_factory.mktemp("bench") / "two faces.mp4", 2, width=640, height=360, frames=40)


FAST = ("--imgsz", 320, "--set", "backend=fake", "--runs", 1)
"""The full job with the fake engines: no model to compile, the same flow."""


@pytest.fixture(scope="session")
def unpaced(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """As `measured`, of --mode throughput with another model for the bare chain."""
    from benchmarks.report import write_report
    from benchmarks.runs import run_pipeline
    from benchmarks.throughput import kept_model

    document = run_pipeline(
        source=str(clip), imgsz=320, changes=("backend=fake",), runs=1, mode="throughput", bare_model=str(kept_model())
    )  # fmt: skip
    page = tmp_path_factory.mktemp("report") / "page.html"
    write_report(document, page)
    return document, page


@pytest.fixture(scope="session")
def measured(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The document of `fer-bench pipeline` and its report."""
    from benchmarks.report import write_report
    from benchmarks.runs import run_pipeline

    document = run_pipeline(source=str(clip), imgsz=320, changes=("backend=fake",), runs=1, starts=1)
    page = tmp_path_factory.mktemp("report") / "page.html"
    write_report(document, page)
    return document, page
