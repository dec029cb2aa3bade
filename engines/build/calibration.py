"""Real images as a model sees them: the samples that quantisation finds its ranges with, and that parity is checked on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.build.accuracy import central_crops
from engines.build.labelled import read_faces, read_pictures
from engines.contract import ClassifierContract, DetectorContract
from engines.errors import UsageError
from engines.preprocess import crop_square, letterbox, letterbox_geometry

SAMPLES = {"detector": 150, "classifier": 300}
"""As many as the figures at int8_from_onnx.KEPT were measured with."""


def samples_of(contract: DetectorContract | ClassifierContract, data: Path, split: str, count: int) -> list[np.ndarray]:
    """`count` inputs of one sample each, evenly spread over `split` ("train" or "val") of the folder `data`.

    Detector: (1, H, W, 3) uint8 RGB, letterboxed as detect() does. Classifier: (1, 1, S, S) uint8, the centre of FER2013's
    Training or PublicTest images. Raises UsageError where the folder has none.
    """
    if isinstance(contract, ClassifierContract):
        faces = read_faces(data, "Training" if split == "train" else "PublicTest", count).images
        return [np.ascontiguousarray(crop)[None, None] for crop in central_crops(faces, contract.input_size)]
    samples = []
    for picture in read_pictures(data, split, count):
        height, width = picture.image.shape[:2]
        samples.append(letterbox(picture.image, letterbox_geometry(width, height, contract.imgsz, contract.stride))[None])
    return samples


def parity_samples(contract: DetectorContract | ClassifierContract, *folders: Path | None, count: int = 100) -> list[np.ndarray]:
    """Inputs to compare two engines with: from the first of the folders that is given, else from scikit-image's portrait.

    Raises UsageError where there is neither: what engines make of noise says nothing.
    """
    for folder, split in zip(folders, ("val", "train"), strict=True):
        if folder is not None:
            return samples_of(contract, folder, split, count)
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise UsageError("checking an engine needs real images: give their folder with --data, or pip install scikit-image") from error
    portrait = np.ascontiguousarray(astronaut()[:, :, ::-1])  # type: ignore[no-untyped-call]
    if isinstance(contract, DetectorContract):
        pictures = [np.ascontiguousarray(portrait[:side, :side]) for side in (512, 448, 384, 320, 288)]
        return [letterbox(p, letterbox_geometry(len(p), len(p), contract.imgsz, contract.stride))[None] for p in pictures]
    return [_portrait_crop(portrait, shift, contract) for shift in range(-8, 9)]


def _portrait_crop(portrait: np.ndarray, shift: int, contract: ClassifierContract) -> np.ndarray:
    """The astronaut's face, (1, C, S, S); `shift` pixels to the right."""
    import cv2

    crop = crop_square(portrait, (170 + shift, 65, 275 + shift, 190), contract.crop_margin)
    crop = cv2.resize(crop, (contract.input_size,) * 2, interpolation=cv2.INTER_AREA)
    if contract.colour == "rgb":
        return np.ascontiguousarray(crop[:, :, ::-1].transpose(2, 0, 1))[None]
    return cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[None, None]
