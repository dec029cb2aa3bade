"""Detectors and classifiers of others, by path, through the whole pipeline.

YuNet and SCRFD are the released files; the YOLO exports are our detector in the form that Ultralytics writes, and a YOLOv8n that it
exports itself; the classifiers are made by hand, so that every probability is known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx_by_hand
import pytest
from clips import film, needs_ffmpeg, portrait
from command import fer, rows
from tiny_yolo import random_yolov8n, ultralytics_here

from engines import load_classifier, load_detector
from engines.contract import LABELS
from engines.manifest import MODELS
from pipeline.api import run
from pipeline.config import load_config
from pipeline.errors import FerError, UsageError

OURS = MODELS / "yolo11n_face.onnx"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads of different size."""
    path = tmp_path_factory.mktemp("picture") / "two.png"
    canvas = np.full((480, 640, 3), 90, np.uint8)
    canvas[40:440, 40:360] = portrait((320, 400))
    canvas[120:320, 420:620] = portrait((200, 200))
    cv2.imwrite(str(path), canvas)
    return path


def watched(picture: Path, folder: Path, **settings: object) -> list[dict]:
    """The face rows of a picture."""
    config = load_config(None, {key.replace("__", "."): str(value) for key, value in settings.items()})
    run(picture, events=folder / "rows.jsonl", overwrite=True, config=config)
    return [row for row in rows(folder / "rows.jsonl") if row["kind"] == "face"]


def boxes(found: list[dict]) -> np.ndarray:
    return np.array(sorted([row["x1"], row["y1"], row["x2"], row["y2"]] for row in found))


def _xml(folder: Path) -> Path:
    """As `yolo export format=openvino` does: fp16 weights, one size."""
    import openvino

    path = folder / "export.xml"
    openvino.save_model(openvino.Core().read_model(onnx_by_hand.as_ultralytics_exports(OURS, folder / "x.onnx", (640, 640))), path)
    return path


DETECTORS: dict[str, Callable[[Path], Path]] = {
    "ONNX of one size": lambda folder: onnx_by_hand.as_ultralytics_exports(OURS, folder / "a.onnx", (640, 640)),
    "ONNX of a small, flat size": lambda folder: onnx_by_hand.as_ultralytics_exports(OURS, folder / "b.onnx", (416, 320)),
    "ONNX of any size": lambda folder: onnx_by_hand.as_ultralytics_exports(OURS, folder / "c.onnx"),
    "OpenVINO": _xml,
}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("export", list(DETECTORS))
def test_exports_of_ultralytics_find_the_same_faces(picture: Path, tmp_path: Path, export: str, backend: str) -> None:
    if (export, backend) == ("OpenVINO", "onnxruntime"):
        pytest.skip("an .xml is OpenVINO's own")
    model = DETECTORS[export](tmp_path)
    # What was exported, at the size that it was exported for: at another one the network itself sees an edge elsewhere.
    ours = boxes(watched(picture, tmp_path, detect__model="yolo11n_face", detect__imgsz=416 if "small" in export else 640))
    found = watched(picture, tmp_path, detect__model=model, backend=backend, detect__conf=0.45)
    assert [row["tracker_id"] for row in found] == [1, 2]
    assert np.abs(boxes(found) - ours).max() < 6, "of boxes of some 150 pixels"
    assert all(row["emotion"] for row in found)


@pytest.fixture(scope="module")
def yolov8n(picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and what Ultralytics exports of it beside it."""
    ultralytics = ultralytics_here()
    pytest.importorskip("onnx", reason="needs onnx: pip install 'fer-stream[build]'")
    checkpoint = random_yolov8n(tmp_path_factory.mktemp("yolov8n"), cv2.imread(str(picture)))
    ultralytics.YOLO(str(checkpoint)).export(format="onnx", imgsz=640, simplify=False, verbose=False)
    return checkpoint


@pytest.mark.parametrize(("suffix", "backend"), [(".onnx", "onnxruntime"), (".onnx", "openvino"), (".onnx", "torch"), (".pt", "torch")])
def test_a_yolov8n_of_ultralytics_has_the_boxes_that_ultralytics_finds_with_it(
    picture: Path, yolov8n: Path, suffix: str, backend: str
) -> None:
    """In a picture that need not be scaled: of their pixels ours would differ (they do not average), and random weights forgive nothing."""
    model, image = yolov8n.with_suffix(suffix), cv2.imread(str(picture))
    settings = {"imgsz": 640, "conf": 0.5, "iou": 0.6}
    (theirs,) = ultralytics_here().YOLO(str(model), task="detect").predict(image, device="cpu", max_det=1000, verbose=False, **settings)
    detector = load_detector(model, **settings, backend=backend, device="cpu", precision="f32", unsafe_pickle=True)
    ours = detector.detect(image)
    assert len(ours) > 15
    away = np.abs(ours.xyxy[:, None] - theirs.boxes.xyxy.numpy()[None]).max(2)
    alike = away.min(1) < 0.1, away.min(0) < 0.1
    # Another library's last digits may carry one box over a threshold.
    assert [int((~one).sum()) for one in alike] <= ([0, 0] if backend == "onnxruntime" else [1, 1])
    scores = theirs.boxes.conf.numpy()[away.argmin(1)]
    assert np.abs(ours.confidence - scores)[alike[0]].max() < 0.001


@pytest.mark.parametrize("name", ["face_detection_yunet_2023mar.onnx", "scrfd_500m_bnkps.onnx"])
def test_yunet_and_scrfd_find_the_same_faces(picture: Path, tmp_path: Path, weights: Path, name: str) -> None:
    ours = boxes(watched(picture, tmp_path))
    found = watched(picture, tmp_path, detect__model=weights / name)
    theirs = boxes(found)
    assert theirs.shape == ours.shape == (2, 4)
    centres = lambda b: (b[:, :2] + b[:, 2:]) / 2  # noqa: E731
    assert np.abs(centres(ours) - centres(theirs)).max() < 30
    info = json.loads(rows(tmp_path / "rows.jsonl")[0]["info"])
    assert info["models"]["detector"]["name"] == name
    assert len(info["models"]["detector"]["sha256"]) == 64


SIX = ["happy", "sad", "surprise", "neutral", "angry", "fear"]
SEVEN = list(reversed(LABELS))
EIGHT = ["Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise"]
"""As EmotiEffLib's models are called."""
SAYS = dict(zip(EIGHT, ["angry", "Contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"], strict=True))


@pytest.mark.parametrize("labels", [SIX, SEVEN, EIGHT], ids=["six classes", "seven in another order", "eight"])
def test_a_classifier_with_its_own_classes_fills_the_seven_columns(picture: Path, tmp_path: Path, labels: list[str]) -> None:
    path = onnx_by_hand.classifier(tmp_path / "mine.onnx", len(labels), labels=json.dumps(labels), crop_margin="1.1")
    found = watched(picture, tmp_path, classify__model=path, smooth__min_confidence=0.01)
    assert len(found) == 2
    ours = [SAYS.get(label, label) for label in labels]
    for row in found:
        raw = {label: row[f"raw_{label}"] for label in LABELS}
        extra = json.loads(row["info"])["extra"] if row["info"] else {}
        assert {label for label, value in raw.items() if value is not None} == set(ours) & set(LABELS)
        assert {label for label in LABELS if row[f"p_{label}"] is None} == set(LABELS) - set(ours)
        assert set(extra) == set(ours) - set(LABELS)
        both = raw | extra
        logs = [math.log(both[label]) for label in ours]  # logits grow by the same step from column to column
        assert np.diff(logs) == pytest.approx([logs[1] - logs[0]] * (len(logs) - 1), abs=0.02)
        assert sum(value for value in both.values() if value is not None) == pytest.approx(1, abs=1e-4)
        assert row["emotion"] == next(label for label in reversed(ours) if label in LABELS)


@needs_ffmpeg
@pytest.mark.parametrize("labels", [SIX, [*EIGHT[:1], *EIGHT[2:], EIGHT[1]]], ids=["six classes", "eight, contempt ahead"])
def test_a_film_read_with_other_classes_on_the_command_line(tmp_path: Path, labels: list[str]) -> None:
    """Smoothing over time takes nothing from a class beyond the seven, and gives nothing to one that the model lacks."""
    clip = film(tmp_path / "clip.mp4", "-c:v", "libx264", "-preset", "ultrafast", size=(320, 240), frames=16)
    mine = onnx_by_hand.classifier(tmp_path / "mine.onnx", len(labels), labels=json.dumps(labels))
    places = ["--events", tmp_path / "rows.jsonl", "--output", tmp_path / "seen.mp4", "--report", tmp_path / "report.html"]
    done = fer("--source", clip, "--classifier", mine, *places, "--set", "smooth.min_confidence=0.1", "--quiet")
    assert done.returncode == 0, done.stderr
    found = [row for row in rows(tmp_path / "rows.jsonl") if row["kind"] == "face"]
    ours = {SAYS.get(label, label) for label in labels}
    assert [row["frame"] for row in found] == list(range(16))
    for row in found:
        smoothed, raw = ({label: row[f"{kind}_{label}"] for label in LABELS} for kind in ("p", "raw"))
        beyond = json.loads(row["info"])["extra"] if row["info"] else {}
        for kind in (smoothed, raw):
            assert {label for label, value in kind.items() if value is None} == set(LABELS) - ours
            assert sum(value or 0 for value in kind.values()) == pytest.approx(1 - sum(beyond.values()), abs=0.01)
        assert set(beyond) == ours - set(LABELS)
        assert row["emotion"] == ("uncertain" if beyond else "fear")
        assert row["confidence"] == max(value for value in smoothed.values() if value is not None)
    assert not beyond or beyond["Contempt"] > max(value for value in raw.values() if value is not None)
    report = (tmp_path / "report.html").read_text()
    assert {label for label in LABELS if f"</i>{label} <b>–</b>" in report} == set(LABELS) - ours


def test_a_softmax_at_the_end_is_not_taken_twice(picture: Path, tmp_path: Path) -> None:
    plain = watched(picture, tmp_path, classify__model=onnx_by_hand.classifier(tmp_path / "a.onnx", 7))
    ended = watched(picture, tmp_path, classify__model=onnx_by_hand.classifier(tmp_path / "b.onnx", 7, softmax=True))
    for one, other in zip(plain, ended, strict=True):
        assert [one[f"raw_{label}"] for label in LABELS] == pytest.approx([other[f"raw_{label}"] for label in LABELS], abs=0.01)


def test_a_classifier_in_colour_with_float_input_gets_it_less_the_mean_over_std(picture: Path, tmp_path: Path) -> None:
    def levels(name: str, **numbers: str) -> np.ndarray:
        """What the network saw of each face, on average: from column to column its logits grow by that over 255."""
        path = onnx_by_hand.classifier(tmp_path / name, 7, size=64, channels=3, kind=1, **numbers)
        found = watched(picture, tmp_path, classify__model=path)
        assert len(found) == 2
        return np.array([math.log(row["raw_neutral"] / row["raw_angry"]) / 6 * 255 for row in found])

    plain = levels("plain.onnx")
    assert ((plain > 100) & (plain < 150)).all()  # grey levels
    numbers = {"mean": "[123.675, 116.28, 103.53]", "std": "[0.5, 0.5, 0.5]"}
    assert levels("scaled.onnx", **numbers) == pytest.approx((plain - (123.675 + 116.28 + 103.53) / 3) / 0.5, abs=0.5)


def test_a_classifier_of_something_else_is_a_sentence(picture: Path, tmp_path: Path) -> None:
    path = onnx_by_hand.classifier(tmp_path / "d.onnx", 2, labels='["cat", "dog"]')
    with pytest.raises(UsageError, match=r"d\.onnx says cat, dog; expected some of angry"):
        watched(picture, tmp_path, classify__model=path)
    with pytest.raises(FerError, match="answers 8 columns but names 7 labels"):
        watched(picture, tmp_path, classify__model=onnx_by_hand.classifier(tmp_path / "e.onnx", 8))


def test_a_detector_and_a_classifier_by_path_on_the_command_line(picture: Path, tmp_path: Path) -> None:
    detector = DETECTORS["ONNX of one size"](tmp_path)
    classifier = onnx_by_hand.classifier(tmp_path / "six.onnx", 6, labels=json.dumps(SIX))
    done = fer("--source", picture, "--detector", detector, "--classifier", classifier, "--events", tmp_path / "r.csv", "--quiet")
    assert done.returncode == 0, done.stderr
    done = fer("--source", picture, "--detector", classifier, "--quiet")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_loading_by_path_tells_what_the_model_is(weights: Path, tmp_path: Path) -> None:
    assert load_detector(weights / "scrfd_500m_bnkps.onnx").contract.kind == "scrfd"
    assert load_classifier(onnx_by_hand.classifier(tmp_path / "six.onnx", 6, labels=json.dumps(SIX))).labels == tuple(SIX)
