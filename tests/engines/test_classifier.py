"""Reading expressions from crops."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engines import load_classifier
from engines.backends.fake import TOP, label_of
from engines.classifier import softmax
from engines.contract import HEADS, LABELS
from engines.errors import ModelError, UsageError


def crops(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    sides = random.integers(8, 120, count)
    return [random.integers(0, 255, (side, side, 3), dtype=np.uint8) for side in sides]


def test_probabilities_of_the_seven_labels(classifier):
    probs = classifier.classify(crops(5))
    assert classifier.labels == LABELS
    assert (probs.shape, probs.dtype) == ((5, 7), np.float32)
    assert probs.sum(1) == pytest.approx(1, abs=1e-5)


def test_no_crops_give_no_rows(classifier):
    assert classifier.classify([]).shape == (0, 7)
    assert classifier.infer(np.zeros((0, 1, 40, 40), np.uint8)).shape == (0, 7)


def test_a_crop_does_not_depend_on_its_batch(classifier):
    faces = crops(37)
    together = classifier.classify(faces)
    alone = np.concatenate([classifier.classify([face]) for face in faces])
    assert np.array_equal(together, alone)


def test_grey_crops_are_what_bgr_ones_become(classifier):
    import cv2

    faces = crops(3)
    grey = [cv2.cvtColor(face, cv2.COLOR_BGR2GRAY) for face in faces]
    assert np.array_equal(classifier.inputs(faces), classifier.inputs(grey))
    assert classifier.inputs(grey).shape == (3, 1, 40, 40)


def test_the_heads_differ():
    faces = crops(4)
    answers = [load_classifier(head=head).classify(faces) for head in HEADS]
    assert not np.allclose(*answers)
    with pytest.raises(UsageError, match="no head 'ferplus'; it has crowd, fer2013"):
        load_classifier(head="ferplus")


def test_probabilities_are_the_softmax_of_logits_over_the_temperature(classifier):
    batch = classifier.inputs(crops(2))
    logits = classifier._engine.infer([batch])[0]
    expected = softmax(logits / classifier.contract.temperature["crowd"])
    assert classifier.infer(batch) == pytest.approx(expected, abs=1e-6)


def test_three_threads_on_one_classifier(classifier):
    faces = [crops(n, n) for n in (1, 5, 12)]
    alone = [classifier.classify(part) for part in faces]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for turn in range(10) if not np.array_equal(classifier.classify(faces[(i + turn) % 3]), alone[(i + turn) % 3]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([None], "crop 0"),
        ([np.zeros((5, 6, 3), np.uint8)], "square crops, got 6×5"),
        ([np.zeros((5, 5, 3), np.float32)], "got float32"),
        ([np.zeros((0, 0), np.uint8)], "without pixels"),
        (np.zeros((5, 5, 3), np.uint8), r"pass \[crop\]"),
        (np.zeros((2, 5, 5, 3), np.uint8), r"list\(crops\)"),
    ],
)
def test_what_is_no_list_of_crops_is_a_value_error(classifier, wrong, said):
    with pytest.raises(ValueError, match=said):
        classifier.classify(wrong)


def test_infer_takes_its_own_shape_only(classifier):
    with pytest.raises(UsageError, match=r"expected \(N, 1, 40, 40\) uint8"):
        classifier.infer(np.zeros((1, 1, 48, 48), np.uint8))


@pytest.mark.parametrize("grey", [0, 40, 128, 255])
def test_the_fake_reads_the_mean_grey_level(grey):
    probs = load_classifier(backend="fake").classify([np.full((30, 30, 3), grey, np.uint8)])[0]
    assert probs.argmax() == label_of(grey)
    assert probs.max() == pytest.approx(TOP)


def test_a_users_model_without_a_contract(small_classifier):
    mine = load_classifier(small_classifier(), head="fer2013")
    assert (mine.labels, mine.contract.input_size, mine.contract.output) == (LABELS, 40, "logits")
    probs = mine.classify([np.full((20, 20), 255, np.uint8)])[0]
    assert probs == pytest.approx(softmax(np.arange(7, dtype=np.float32)), abs=0.02)


def test_a_users_labels_size_and_margin_come_from_the_file(small_classifier):
    mine = load_classifier(small_classifier(3, size=48, labels='["sad", "happy", "bored"]', crop_margin="1.2"))
    assert (mine.labels, mine.contract.input_size, mine.contract.crop_margin) == (("sad", "happy", "bored"), 48, 1.2)
    assert mine.classify([np.zeros((10, 10), np.uint8)]) == pytest.approx(1 / 3)


def test_columns_without_labels_are_refused(small_classifier):
    with pytest.raises(ModelError, match="answers 8 columns but names 7 labels"):
        load_classifier(small_classifier(8))
    with pytest.raises(ModelError, match="expected a number"):
        load_classifier(small_classifier(crop_margin="wide"))


def test_a_model_that_ends_in_a_softmax_is_not_given_another(small_classifier):
    mine = load_classifier(small_classifier(softmax=True), precision="f32")
    assert mine.contract.output == "probabilities"
    expected = softmax(np.arange(7, dtype=np.float32))
    assert mine.classify([np.full((40, 40), 255, np.uint8)])[0] == pytest.approx(expected, abs=1e-4)


def test_a_float_model_in_colour(small_classifier):
    mine = load_classifier(small_classifier(channels=3, kind=1, mean="0", std="255"), precision="f32")
    assert mine.contract.colour == "rgb"
    bgr, grey = np.full((9, 9, 3), 255, np.uint8), np.full((9, 9), 255, np.uint8)
    assert mine.inputs([bgr, grey]).shape == (2, 3, 40, 40)
    assert mine.classify([bgr]) == pytest.approx(mine.classify([grey]))
