"""How well the usual face detectors of small projects find the faces that ours is measured on: the same pictures, the same measure.

    python -m benchmarks.other_detectors DATA ours | haar | mtcnn | MODEL.onnx      (one at a time)

MODEL is what --detector takes: YuNet (OpenCV's), SCRFD, a YOLO. "haar" needs OpenCV before version 5, which has no
CascadeClassifier any more; "mtcnn" needs facenet-pytorch with its weights. Milliseconds are CPU time of the picture in the middle on
one thread, so that other work on the machine moves them little; only their ratios mean anything. docs/detectors.md has the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from engines.build.accuracy import FLOOR, score_boxes
from engines.build.labelled import read_pictures

SIDES = (16, 32, 64)
Found = tuple[np.ndarray, np.ndarray]
"""(K, 4) xyxy, (K,) score."""


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("which", metavar="ours|haar|mtcnn|MODEL")
def main(data: Path, which: str) -> None:
    """Print a row of docs/detectors.md: AP50 and recall of a detector on the validation pictures of DATA, and its milliseconds.

    MODEL is what --detector takes: YuNet (OpenCV's), SCRFD, a YOLO.
    """
    pictures = read_pictures(data, "val")
    find = {"haar": _haar, "mtcnn": _mtcnn}.get(which, lambda: _by_path(which))()
    find(pictures[0].image)
    found, seconds = [], []
    for picture in pictures:
        begun = time.process_time()
        found.append(find(picture.image))
        seconds.append(time.process_time() - begun)
    score = score_boxes([picture.boxes for picture in pictures], found, SIDES)
    ap50, recall = (" | ".join(f"{score[key][side]:.3f}" for side in SIDES) for key in ("ap50", "recall"))
    print(f"| {Path(which).stem} | {ap50} | {recall} | {1e3 * float(np.median(seconds)):.1f} |")


def _by_path(which: str) -> Callable[[np.ndarray], Found]:
    """Whatever engines.load_detector takes, at its own size."""
    import cv2

    from engines import load_detector

    cv2.setNumThreads(1)
    detector = load_detector(None if which == "ours" else which, conf=FLOOR, threads=1)

    def find(image: np.ndarray) -> Found:
        faces = detector.detect([image])[0]
        return faces.xyxy, np.asarray(faces.confidence)

    return find


def _haar() -> Callable[[np.ndarray], Found]:
    """The frontal cascade as OpenCV's tutorial calls it; its score is the last stage's sum."""
    import cv2

    cv2.setNumThreads(1)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def find(image: np.ndarray) -> Found:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        boxes, _, score = cascade.detectMultiScale3(grey, scaleFactor=1.1, minNeighbors=3, minSize=(20, 20), outputRejectLevels=True)
        corner = np.array(boxes, float).reshape(-1, 4)
        return np.hstack([corner[:, :2], corner[:, :2] + corner[:, 2:]]), np.array(score, float).reshape(-1)

    return find


def _mtcnn() -> Callable[[np.ndarray], Found]:
    """facenet-pytorch with its own thresholds, faces from 16 pixels (its 20 would miss some that count)."""
    import torch
    from facenet_pytorch import MTCNN

    torch.set_num_threads(1)
    net = MTCNN(keep_all=True, min_face_size=16, device="cpu")

    def find(image: np.ndarray) -> Found:
        boxes, score = net.detect(np.ascontiguousarray(image[:, :, ::-1]))
        return (np.zeros((0, 4)), np.zeros(0)) if boxes is None else (np.asarray(boxes, float), np.asarray(score, float))

    return find


if __name__ == "__main__":
    main()
