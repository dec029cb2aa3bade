"""What a user would run instead, each the way its own documentation shows; run by an environment that has torch and ultralytics.

    PYTHON -m benchmarks.rivals JOB.json RESULT.json      (fer-bench compare starts this; not for people)

All do the full job: find, (b: track), classify, draw, write; with outputs "events" none draws or writes. The detector's weights,
its input size, the classifier's weights and the crops of (a) and (b) are those of the full job, so that only the way they are put
together differs; (c) brings its own. Their environments, the second for (c) (Haar cascades left OpenCV with version 5):

    python3 -m venv rivals && rivals/bin/pip install torch torchvision ultralytics lap openvino
    python3 -m venv ferpkg && ferpkg/bin/pip install fer==25.10.3 tensorflow facenet_pytorch "opencv-python<5" \\
        "opencv-contrib-python<5" "setuptools<80"
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import machine_busy_s, others_share, peak_mb, warm_up
from engines import load_classifier
from engines.preprocess import crop_square

KINDS = {
    "script": "(a) the usual script: OpenCV, ultralytics predict frame by frame, PyTorch classifier face by face",
    "track-torch": "(b) ultralytics track in stream mode, batched PyTorch classifier",
    "track-openvino": "(b) the same on its OpenVINO export, batched OpenVINO classifier",
    "fer-haar": "(c) the fer package's video analysis, Haar cascade",
    "fer-mtcnn": "(c) the fer package's video analysis, MTCNN",
}
Result = tuple[np.ndarray, list[tuple[np.ndarray, str]]]
"""A BGR frame, and (xyxy, text) of each face."""


def script(job: dict[str, Any]) -> Iterator[Result]:
    from ultralytics import YOLO

    detector, classifier = YOLO(job["checkpoint"]), load_classifier(backend="torch", device="cpu")
    for picture in _captured(job["clip"]):
        boxes = detector.predict(picture, imgsz=job["imgsz"], conf=job["conf"], device="cpu", verbose=False)[0].boxes.xyxy.cpu().numpy()
        yield picture, [(box, _label(classifier, _read(classifier, picture, [box])[0])) for box in boxes]


def track(job: dict[str, Any]) -> Iterator[Result]:
    from ultralytics import YOLO

    on = "torch" if job["kind"] == "track-torch" else "openvino"
    detector = YOLO(job["checkpoint"] if on == "torch" else job["export"], task="detect")
    classifier = load_classifier(backend=on, device="cpu")
    imgsz = job["imgsz"] if on == "torch" else job["export_imgsz"]
    settings = {"imgsz": imgsz, "conf": job["conf"], "tracker": "bytetrack.yaml", "device": "cpu", "verbose": False}
    for result in detector.track(source=job["clip"], stream=True, **settings):
        boxes = result.boxes.xyxy.cpu().numpy()
        ids = [-1] * len(boxes) if result.boxes.id is None else result.boxes.id.int().tolist()
        answers = _read(classifier, result.orig_img, boxes) if len(boxes) else []
        names = [f"#{number} {_label(classifier, answer)}" for number, answer in zip(ids, answers, strict=True)]
        yield result.orig_img, list(zip(boxes, names, strict=True))


def fer(job: dict[str, Any]) -> dict[str, Any]:
    """Video.analyze with its own loop and writer; the record. Without its defaults of a JPEG a frame and a zip of them, which cost it more.

    Only `detect_emotions` is wrapped: each call's begin is a frame's, and what it raises, which Video.analyze logs and stops at, is
    raised after all.
    """
    if job["kind"] == "fer-mtcnn":
        import facenet_pytorch  # noqa: F401  # before TensorFlow: triton, which comes with torch, crashes when it is loaded after it
    from fer.classes import Video
    from fer.fer import FER

    detector, clock = FER(mtcnn=job["kind"] == "fer-mtcnn"), _Clock()
    detect, failed = detector.detect_emotions, []

    def detect_emotions(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        clock.frame()
        try:
            found = detect(*args, **kwargs)
        except Exception as error:
            failed.append(error)
            raise
        clock.faces += len(found)
        return found

    detector.detect_emotions = detect_emotions
    full = job["outputs"] == "full"
    video = Video(job["clip"], outdir=job["folder"])
    video.analyze(detector, output="pandas", max_results=job["max_frames"], save_frames=False, save_video=full, annotate_frames=full)
    if failed:
        raise failed[0]
    return clock.record()


def export(job: dict[str, Any]) -> str:
    """ultralytics' own OpenVINO export of the checkpoint, rectangular; beside a copy of it, since it writes beside its input."""
    from ultralytics import YOLO

    copy = Path(job["folder"]) / Path(job["checkpoint"]).name
    shutil.copyfile(job["checkpoint"], copy)
    return str(YOLO(str(copy)).export(format="openvino", imgsz=job["export_imgsz"], verbose=False))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The record, as of a bare chain."""
    if job["kind"].startswith("fer-"):
        return fer(job)
    writer, clock = None, _Clock()
    clock.frame()
    for picture, found in script(job) if job["kind"] == "script" else track(job):
        clock.faces += len(found)
        if job["outputs"] == "full":
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(Path(job["folder"]) / "rival.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), job["rate"], size)
            _draw(picture, found)
            writer.write(picture)
        clock.frame()
        if len(clock.begun) - 1 == job["max_frames"]:
            break
    clock.begun.pop()  # one frame after the other: the next would have begun when the last was done
    if writer is not None:
        writer.release()
    return clock.record()


class _Clock:
    """When each frame was begun, and what the process and the machine used."""

    def __init__(self) -> None:
        self.begun: list[tuple[float, float]] = []
        """Monotonic and CPU seconds."""
        self.faces = 0
        self._machine, self._at, self._used = machine_busy_s(), time.monotonic(), time.process_time()

    def frame(self) -> None:
        self.begun.append((time.monotonic(), time.process_time()))

    def record(self) -> dict[str, Any]:
        """Call it when the outputs are closed. ValueError without a frame."""
        end, end_cpu, frames = time.monotonic(), time.process_time(), len(self.begun)
        if not frames:
            raise ValueError("not one frame came out")
        warm = warm_up(frames)
        begin, begin_cpu = self.begun[warm]
        return {
            "counted": frames - warm, "begin": begin, "begin_cpu": begin_cpu, "end": end, "end_cpu": end_cpu, "frames": frames,
            "faces": self.faces, "peak_mb": peak_mb(), "others_share": others_share(self._machine, end_cpu - self._used, end - self._at),
        }  # fmt: skip


def _captured(clip: str) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(clip)
    try:
        while True:
            good, picture = capture.read()
            if not good:
                return
            yield picture
    finally:
        capture.release()


def _read(classifier: Any, picture: np.ndarray, boxes: Sequence[np.ndarray]) -> np.ndarray:
    """(N, C) probabilities of the faces, in one call."""
    crops = [crop_square(picture, box, classifier.contract.crop_margin) for box in boxes]
    return classifier.classify(crops)


def _label(classifier: Any, probabilities: np.ndarray) -> str:
    best = int(probabilities.argmax())
    return f"{classifier.labels[best]} {probabilities[best]:.2f}"


def _draw(picture: np.ndarray, found: list[tuple[np.ndarray, str]]) -> None:
    for box, text in found:
        x1, y1, x2, y2 = (int(value) for value in box)
        cv2.rectangle(picture, (x1, y1), (x2, y2), (0, 200, 0), 2)
        cv2.putText(picture, text, (x1, max(y1 - 6, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 200, 0), 2)


def main() -> None:
    os.environ.setdefault("YOLO_AUTOINSTALL", "False")  # nothing is installed, fetched or reported while we measure
    os.environ.setdefault("YOLO_OFFLINE", "True")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    question, answer = sys.argv[1:]
    job = json.loads(Path(question).read_text())
    try:
        record = {"export": export(job)} if job["kind"] == "export" else run(job)
    except ImportError as error:
        print(f"its environment lacks a package ({error})", file=sys.stderr)
        sys.exit(1)
    Path(answer).write_text(json.dumps(record))


if __name__ == "__main__":
    main()
