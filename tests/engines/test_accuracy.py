"""Scores by hand, and the readers of labelled images."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

from engines.build.accuracy import average_precision, central_crops, recall_at, score_boxes, score_classifier
from engines.build.labelled import Faces, boxes_from_yolo, read_faces, read_pictures
from engines.contract import LABELS, ClassifierContract
from engines.errors import UsageError


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_average_precision_by_hand():
    confidence, hit = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert average_precision(confidence, hit, 2) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(confidence, hit, 4) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0


def test_recall_at_a_number_of_false_positives_by_hand():
    confidence, hit = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert recall_at(confidence, hit, 4, 0) == 0.25
    assert recall_at(confidence, hit, 4, 1) == 0.5
    assert recall_at(np.zeros(0), np.zeros(0, bool), 4, 1) == 0


def test_small_faces_are_ignored_not_wrong():
    truth = [boxes((0, 0, 40, 40), (100, 100, 110, 110))]
    found = [(boxes((0, 0, 40, 40), (100, 100, 110, 110), (200, 200, 208, 208)), np.array([0.9, 0.8, 0.7], np.float32))]
    scores = score_boxes(truth, found, (8, 32))
    assert scores["faces"] == {8: 2, 32: 1}
    assert scores["ap50"] == {8: 1, 32: 1}  # the false one comes last, and is under 32 px
    second = [(boxes((0, 0, 40, 40), (1, 1, 41, 41)), np.array([0.8, 0.9], np.float32))]
    assert score_boxes(truth, second, (32,))["ap50"][32] == 1  # the better one takes the face, the double comes after it


def test_labels_are_read_from_tar_and_from_folders(tmp_path):
    import cv2

    root = tmp_path / "faces"
    for kind in ("images", "labels"):
        (root / kind / "val").mkdir(parents=True)
    for name, text in (("a", "0 0.5 0.5 0.5 0.25\n"), ("b", "")):
        cv2.imwrite(str(root / "images" / "val" / f"{name}.png"), np.zeros((40, 80, 3), np.uint8))
        (root / "labels" / "val" / f"{name}.txt").write_text(text)
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "faces_val.tar", "w") as tar:
        tar.add(root, "faces")
    for folder in (tmp_path, packed):
        one, other = read_pictures(folder, "val")
        assert (one.name, one.image.shape, one.boxes.tolist()) == ("a.png", (40, 80, 3), [[20, 15, 60, 25]])
        assert other.boxes.shape == (0, 4)
    assert len(read_pictures(tmp_path, "val", 1)) == 1
    with pytest.raises(UsageError, match="holds no train images"):
        read_pictures(packed, "train")


def test_what_is_no_data_is_said(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        read_pictures(tmp_path / "none", "val")
    with pytest.raises(UsageError, match=r"expected fer2013\.npz"):
        read_faces(tmp_path, "PublicTest")
    for name in ("faces_val.tar", "fer2013.npz"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UsageError, match=r"cannot read the images in .*ReadError") as caught:
        read_pictures(tmp_path, "val")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="BadZipFile"):
        read_faces(tmp_path, "PublicTest")
    with pytest.raises(UsageError, match="class cx cy w h"):
        boxes_from_yolo("a b c d e", 10, 10)


def test_the_centre_of_a_face():
    images = np.arange(2 * 48 * 48, dtype=np.int64).reshape(2, 48, 48)
    assert [crop.shape for crop in central_crops(images, 40)] == [(40, 40)] * 2
    assert central_crops(images, 40)[0][0, 0] == 4 * 48 + 4
    assert central_crops(images, 41)[0].shape == (41, 41)
    assert central_crops(images, 64)[1].shape == (48, 48)


class Knowing:
    """Answers with the right label wherever it has that one."""

    head, name = "fer2013", "knowing"

    def __init__(self, labels: tuple[str, ...], truth: np.ndarray) -> None:
        self.labels, self.truth = labels, iter(truth)
        self.contract = ClassifierContract(labels=labels)

    def inputs(self, crops):
        return np.stack(crops)[:, None]

    def infer(self, batch):
        return np.eye(len(self.labels))[[self.labels.index(LABELS[next(self.truth)]) for _ in batch]]


def test_a_model_of_other_labels_is_judged_by_their_names_on_the_faces_that_have_one():
    truth = np.array([0, 1, 2, 3, 4, 5, 6, 1])
    faces = Faces(np.zeros((8, 48, 48), np.uint8), truth, np.full(8, -1))
    six = ("neutral", "sad", "happy", "surprise", "fear", "angry")
    assert score_classifier(Knowing(six, truth[truth != 1]), faces) == 1
    assert score_classifier(Knowing(LABELS, truth), faces) == 1
    with pytest.raises(UsageError, match="answers yes, no; expected some of angry"):
        score_classifier(Knowing(("yes", "no"), truth), faces)


@pytest.mark.parametrize(("size", "channels"), [(40, 3), (64, 1), (41, 3)])
def test_samples_have_the_form_of_the_models_input(small_classifier, tmp_path, size, channels):
    from engines import load_classifier
    from engines.build.calibration import samples_of

    faces = {"images_dx": np.full((3, 48, 48), 1, np.uint8), "label": np.zeros(3, int), "ferplus_votes": np.zeros((3, 10), int)}
    np.savez(tmp_path / "fer2013.npz", usage=np.array(["Training"] * 3), pixel_source=np.zeros(3, int), **faces)
    samples = samples_of(load_classifier(small_classifier(size=size, channels=channels)), tmp_path, "train", 2)
    assert [(one.shape, one.dtype) for one in samples] == [((1, channels, size, size), np.uint8)] * 2
    assert all((one == one[:, :1]).all() for one in samples)


def test_a_model_of_one_fixed_size_gets_samples_of_that_size(float_detector, white_pictures):
    from engines import load_detector
    from engines.build.calibration import parity_samples

    pytest.importorskip("skimage", reason="needs the extra demo")
    model = load_detector(float_detector)
    for samples in (parity_samples(model, None, white_pictures), parity_samples(model, None, None)):
        assert {one.shape for one in samples} == {(1, 64, 64, 3)}


def test_the_shipped_classifier_has_the_accuracy_of_its_manifest(data, classifier):
    faces = read_faces(data, "PublicTest", 600)
    assert score_classifier(classifier, faces) == pytest.approx(classifier.entry.metrics["crowd_accuracy"], abs=0.04)
