"""Models as objects: images in, arrays out. Knows nothing of video."""

from engines.api import crop_faces, load_classifier, load_detector

__all__ = ["crop_faces", "load_classifier", "load_detector"]
