"""Models for tests of what comes in, whichever kind it is."""

from __future__ import annotations

import pytest

from engines import load_classifier, load_detector
from engines.classifier import Classifier
from engines.detector import Detector


@pytest.fixture(scope="module")
def models() -> tuple[Detector, Classifier]:
    """Loaded once: a first inference of each takes a second."""
    return load_detector(threads=1), load_classifier(threads=1)
