"""Models as objects: images in, arrays out. Knows nothing of video.

    from engines import load_detector, load_classifier, crop_faces
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines.classifier import load_classifier
    from engines.detector import load_detector
    from engines.preprocess import crop_faces

__all__ = ["crop_faces", "load_classifier", "load_detector"]

_HOMES = {"load_detector": "detector", "load_classifier": "classifier", "crop_faces": "preprocess"}


def __getattr__(name: str) -> Any:
    """Imports on first use: `fer-stream --help` must not wait for cv2."""
    if name not in _HOMES:
        raise AttributeError(f"module 'engines' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"engines.{_HOMES[name]}"), name)
