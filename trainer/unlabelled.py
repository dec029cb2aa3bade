"""Faces without expression labels, cut from detection pictures as the pipeline cuts them from video.

FER2013 is grey scans from one search engine; the pipeline meets colour, other cameras, other light. Teachers that answer these faces
carry what they know to them (noisy student, Xie et al. 2020).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from engines.errors import UsageError

SMALLEST = 28
"""Longer side of a face's box under which 48 px would be mostly interpolation, pixels."""


def faces_from_pictures(pictures: Path, output: Path, margin: float, size: int = 48) -> int:
    """Write the training split's faces as an (N, size, size) uint8 grey array (.npy); returns N.

    `pictures` is what `fer-train detector` trains on. The square's side is `margin` times the longer side of the labelled box.
    Raises UsageError where there are no pictures, or no face in them.
    """
    import cv2

    from engines.build.labelled import read_pictures
    from engines.preprocess import crop_square

    output.parent.mkdir(parents=True, exist_ok=True)  # first: reading the pictures takes minutes
    faces = []
    for picture in read_pictures(pictures, "train"):
        for box in picture.boxes:
            if max(box[2] - box[0], box[3] - box[1]) >= SMALLEST:
                crop = crop_square(picture.image, box, margin)
                shrinks = crop.shape[0] > size
                crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
                faces.append(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY))
    if not faces:
        raise UsageError(f"{pictures} holds no labelled face of {SMALLEST} px or more; give pictures and labels to train a detector on")
    part = output.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, np.stack(faces))
    os.replace(part, output)
    return len(faces)
