"""How much of a face's surroundings FER2013 shows, in the terms of our own detector.

FER2013 does not document how its 48×48 images were cut. So the detector is run on them, enlarged, and the median of
image side over box side tells how to cut crops that look like what the classifier was trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from engines.detector import Detector

FER2013_MARGIN = 1.11
"""Side of a FER2013 image over the longer side of the face's box as our detector draws it, see measure_crop_margin()."""


def measure_crop_margin(images: np.ndarray, detector: Detector, *, side: int = 192, border: int = 64) -> dict[str, Any]:
    """(N, S, S) uint8 grey faces -> medians over those where exactly one face is found.

    `detector` should see faces at the size they have in videos: load_detector(imgsz=192). Measured so on 600 random FER2013
    Training images: margin 1.11 (quartiles 1.07, 1.18), offset x .00, y .05; between 1.10 and 1.14 for other borders and
    sizes up to 320 px.

    Each image is enlarged to `side` pixels and its edges are replicated for `border` pixels, so that a box may reach beyond
    the image as it does in a video. Returns `margin` (image side over the longer side of the box), its quartiles,
    `offset_x`, `offset_y` (box centre less image centre, in box sides; y down), `images`, `found`. A classifier that looks
    at the central S' of S pixels needs margin × S' / S.
    """
    import cv2

    margins, offsets = [], []
    for start in range(0, len(images), 64):
        pictures = []
        for image in images[start : start + 64]:
            large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
            large = cv2.copyMakeBorder(large, border, border, border, border, cv2.BORDER_REPLICATE)
            pictures.append(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR))
        for faces in detector.detect(pictures):
            if len(faces) == 1:
                x1, y1, x2, y2 = (float(v) for v in faces.xyxy[0])
                box = max(x2 - x1, y2 - y1)
                margins.append(side / box)
                offsets.append((((x1 + x2 - side) / 2 - border) / box, ((y1 + y2 - side) / 2 - border) / box))
    if not margins:
        return {"images": len(images), "found": 0, "margin": None, "quartiles": None, "offset_x": None, "offset_y": None}
    quartiles = np.percentile(margins, [25, 75])
    offset = np.median(offsets, 0)
    return {
        "images": len(images), "found": len(margins), "margin": round(float(np.median(margins)), 3),
        "quartiles": [round(float(q), 3) for q in quartiles],
        "offset_x": round(float(offset[0]), 3), "offset_y": round(float(offset[1]), 3),
    }
