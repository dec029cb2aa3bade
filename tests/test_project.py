"""What is promised about dependencies: one cv2, light base, extras that are known."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_exactly_one_cv2_distribution_is_installed() -> None:
    """Two of them overwrite each other's files: whichever came last wins, silently."""
    found = [name for name, _ in _cv2_distributions()]
    assert found == ["opencv-python"], f"installed: {found}"


def test_no_installed_requirement_asks_for_another_cv2() -> None:
    for distribution in importlib.metadata.distributions():
        for requirement in distribution.requires or []:
            name = re.split(r"[ ;<>=!~\[(]", requirement, maxsplit=1)[0].lower()
            if name.startswith("opencv") and "extra ==" not in requirement:
                assert name == "opencv-python", f"{distribution.name} requires {requirement}"


def test_extras_are_the_documented_ones() -> None:
    assert set(PROJECT["optional-dependencies"]) == {
        "torch", "build", "tensorrt", "tensorrt-rtx", "onnxruntime", "parquet", "train", "demo", "dev"
    }  # fmt: skip
    assert not [d for d in PROJECT["dependencies"] if d.startswith(("torch", "ultralytics", "onnx"))]


def test_no_dependency_is_capped() -> None:
    """An upper bound on a library blocks its users' other packages; torch 2.13.0 alone is excluded, it cannot load torchvision."""
    everything = PROJECT["dependencies"] + [d for extra in PROJECT["optional-dependencies"].values() for d in extra]
    assert not [d for d in everything if "<" in d or "==" in d]


def test_the_hooks_before_a_commit_are_local_and_run_what_lint_runs() -> None:
    """Hooks of other repositories bring tools of other versions than those that CI runs."""
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert {hook["language"] for hook in hooks} == {"system"}
    entries = [hook["entry"] for hook in hooks]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lint is not None
    for command in lint[1].replace("$(BIN)", ".venv/bin").splitlines():
        assert command.strip().removesuffix(" .") in entries  # pre-commit names the files
    (layers,) = [entry.split() for entry in entries if "pytest" in entry]
    assert all((ROOT / word).is_file() for word in layers if word.startswith("tests/"))
    assert "tests/test_layers.py" in layers


def test_the_workflow_runs_what_contributors_run_on_the_oldest_and_the_newest_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert {step["uses"].split("@")[0] for step in job["steps"] if "uses" in step} <= {"actions/checkout", "actions/setup-python"}
    assert f">={job['strategy']['matrix']['python'][0]}" == PROJECT["requires-python"]
    assert all(isinstance(version, str) for version in job["strategy"]["matrix"]["python"]), "3.10 without quotes is 3.1"
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-2:] == ["make test", "make lint"]


def _cv2_distributions() -> list[tuple[str, str]]:
    return sorted(
        (d.name.lower(), d.version)
        for d in importlib.metadata.distributions()
        if (d.name or "").lower().startswith("opencv") and "python" in d.name.lower()
    )
