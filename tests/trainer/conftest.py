from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Kaggle CSV of drawn faces: 112 to train on, 35 to judge by."""
    from drawn_faces import write_csv

    return write_csv(tmp_path_factory.mktemp("drawn") / "fer2013.csv", 112, 35)
