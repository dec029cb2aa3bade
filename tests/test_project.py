"""What is promised about dependencies: one cv2, light base, extras that are known."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]


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


def _cv2_distributions() -> list[tuple[str, str]]:
    return sorted(
        (d.name.lower(), d.version)
        for d in importlib.metadata.distributions()
        if (d.name or "").lower().startswith("opencv") and "python" in d.name.lower()
    )
