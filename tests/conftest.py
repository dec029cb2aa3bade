"""Where tests find real media and data, and how they skip without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable) or _SHARED / name)
    if not folder.is_dir():
        pytest.skip(f"needs the {name} folder: not at ../shared/{name}, and ${variable} names none")
    return folder


@pytest.fixture(scope="session")
def media() -> Path:
    """Real clips and photos with hand-made truth (`$FER_MEDIA`, else ../shared/media)."""
    return _folder("FER_MEDIA", "media")


@pytest.fixture(scope="session")
def data() -> Path:
    """Training data (`$FER_DATA`, else ../shared/data)."""
    return _folder("FER_DATA", "data")


@pytest.fixture(scope="session")
def weights() -> Path:
    """Checkpoints to compare with (`$FER_WEIGHTS`, else ../shared/weights)."""
    return _folder("FER_WEIGHTS", "weights")
