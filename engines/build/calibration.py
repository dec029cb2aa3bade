"""Real images as a model sees them: the samples that quantisation finds its ranges with, and that parity is checked on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.build.accuracy import central_crops
from engines.build.labelled import read_faces, read_pictures
from engines.classifier import Classifier
from engines.detector import Detector
from engines.errors import UsageError
from engines.preprocess import crop_square, letterbox

SAMPLES = {"detector": 150, "classifier": 300}
"""As many as the figures at int8_from_onnx.KEPT were measured with."""


def samples_of(model: Detector | Classifier, data: Path, split: str, count: int) -> list[np.ndarray]:
    """`count` inputs of one sample each, evenly spread over `split` ("train" or "val") of the folder `data`.

    Detector: (1, H, W, 3) uint8 RGB, letterboxed as detect() does. Classifier: (1, C, S, S) uint8, the centre of FER2013's
    Training or PublicTest images. Raises UsageError where the folder has none.
    """
    if isinstance(model, Classifier):
        faces = read_faces(data, "Training" if split == "train" else "PublicTest", count).images
        return [model.inputs([crop]) for crop in central_crops(faces, model.contract.input_size)]
    return [_letterboxed(model, picture.image) for picture in read_pictures(data, split, count)]


def parity_samples(model: Detector | Classifier, *folders: Path | None, count: int = 100) -> list[np.ndarray]:
    """Inputs to compare two engines with: from the first of the folders that is given, else from scikit-image's portrait.

    Raises UsageError where there is neither: what engines make of noise says nothing.
    """
    for folder, split in zip(folders, ("val", "train"), strict=True):
        if folder is not None:
            return samples_of(model, folder, split, count)
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise UsageError("checking an engine needs real images: give their folder with --data, or pip install scikit-image") from error
    portrait = np.ascontiguousarray(astronaut()[:, :, ::-1])  # type: ignore[no-untyped-call]
    if isinstance(model, Classifier):  # the astronaut's face, some pixels to the left or right
        boxes = [(170 + shift, 65, 275 + shift, 190) for shift in range(-8, 9)]
        return [model.inputs([crop_square(portrait, box, model.contract.crop_margin)]) for box in boxes]
    return [_letterboxed(model, np.ascontiguousarray(portrait[:side, :side])) for side in (512, 448, 384, 320, 288)]


def _letterboxed(model: Detector, image: np.ndarray) -> np.ndarray:
    return letterbox(image, model.geometry(image.shape[1], image.shape[0]))[None]
