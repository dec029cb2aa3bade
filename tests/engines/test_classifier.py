"""Reading expressions from crops."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from onnx_by_hand import model, node, tensor, value_info

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


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"crop_margin": "wide"}, "crop_margin='wide'; expected a number above 0"),
        ({"crop_margin": "nan"}, "expected a number above 0"),
        ({"crop_margin": "[1, 2]"}, "expected a number above 0"),
        ({"mean": "grey"}, "mean='grey'; expected a number, or a list of one per channel"),
        ({"mean": "[1, 2]"}, r"mean=1, 2; expected one finite number, or one per channel \(3\)"),
        ({"std": "[1, 0, 1]"}, "std=1, 0, 1; expected one finite number above 0"),
    ],
)
def test_metadata_that_is_no_such_number_is_a_sentence(small_classifier, metadata, said):
    with pytest.raises(ModelError, match=said):
        load_classifier(small_classifier(channels=3, kind=1, **metadata))


def test_one_grey_level_has_one_mean(small_classifier):
    with pytest.raises(ModelError, match=r"mean=1, 2, 3; expected one finite number$"):
        load_classifier(small_classifier(kind=1, mean="1, 2, 3"))


def test_a_model_that_ends_in_a_softmax_is_not_given_another(small_classifier):
    mine = load_classifier(small_classifier(softmax=True), precision="f32")
    assert mine.contract.output == "probabilities"
    expected = softmax(np.arange(7, dtype=np.float32))
    assert mine.classify([np.full((40, 40), 255, np.uint8)])[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("tail", ["Identity", "Cast", "Flatten", "xml"])
def test_what_stands_behind_a_softmax_changes_nothing(small_classifier, tmp_path, tail):
    path = small_classifier(softmax=True, tail="" if tail == "xml" else tail)
    if tail == "xml":
        import openvino

        openvino.save_model(openvino.Core().read_model(str(path)), str(tmp_path / "own.xml"), compress_to_fp16=False)
        path = tmp_path / "own.xml"
    mine = load_classifier(path, precision="f32")
    assert mine.classify([np.full((40, 40), 255, np.uint8)])[0] == pytest.approx(softmax(np.arange(7, dtype=np.float32)), abs=1e-4)


@pytest.mark.parametrize("labels", ['["a", "b", "c"]', "a, b, c", '{"0": "a", "1": "b", "2": "c"}', '{"b": 1, "a": 0, "c": 2}'])
def test_labels_may_be_written_in_several_ways(small_classifier, labels):
    assert load_classifier(small_classifier(3, labels=labels)).labels == ("a", "b", "c")


@pytest.mark.parametrize("labels", ["a;b;c;d;e;f;g", "a b c d e f g", '["a", "b", "c", "d", "e", "f", "g"', '{"a": 0, "b": 7}'])
def test_labels_that_cannot_be_read_are_not_taken_for_ours(small_classifier, labels):
    with pytest.raises(ModelError, match=r"has the metadata labels=.*expected a JSON list"):
        load_classifier(small_classifier(labels=labels))


def test_a_label_that_is_named_twice_is_refused(small_classifier):
    with pytest.raises(ModelError, match="names the label 'happy' twice"):
        load_classifier(small_classifier(3, labels='["happy", "sad", "happy"]'))


def test_a_float_model_in_colour(small_classifier):
    mine = load_classifier(small_classifier(channels=3, kind=1, mean="0", std="255"), precision="f32")
    assert mine.contract.colour == "rgb"
    bgr, grey = np.full((9, 9, 3), 255, np.uint8), np.full((9, 9), 255, np.uint8)
    assert mine.inputs([bgr, grey]).shape == (2, 3, 40, 40)
    assert mine.classify([bgr]) == pytest.approx(mine.classify([grey]))


TORCHVISION = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


@pytest.mark.parametrize("written", [json.dumps, lambda numbers: ", ".join(map(str, numbers))], ids=["JSON", "with commas"])
def test_mean_and_std_of_each_channel_are_applied_in_the_order_of_the_input(small_classifier, written):
    """The logits of the model are (0, 1, 2 …) times the mean over the three channels and 255: known for every colour."""
    path = small_classifier(channels=3, kind=1, **{key: written(numbers) for key, numbers in TORCHVISION.items()})
    mine = load_classifier(path, precision="f32")
    red, green, blue = 250, 100, 10
    face = np.full((40, 40, 3), (blue, green, red), np.uint8)
    normalised = [(level - mean) / std for level, mean, std in zip((red, green, blue), *TORCHVISION.values(), strict=True)]
    expected = softmax(np.arange(7, dtype=np.float32) * np.float32(np.mean(normalised) / 255))
    assert mine.contract.mean == tuple(TORCHVISION["mean"])
    assert mine.classify([face])[0] == pytest.approx(expected, abs=1e-6)


def test_three_equal_numbers_are_what_one_is(small_classifier):
    one = load_classifier(small_classifier(channels=3, kind=10, mean="120", std="60"), precision="f32")
    faces = crops(3)
    alone = one.classify(faces)
    three = load_classifier(small_classifier(channels=3, kind=10, mean="[120, 120, 120]", std="[60, 60, 60]"), precision="f32")
    assert np.array_equal(alone, three.classify(faces))


@pytest.mark.parametrize("head", ["logits", "probabilities"])
@pytest.mark.parametrize("outputs", [["logits", "probabilities"], ["probabilities", "logits"], ["flat", "logits", "probabilities"]])
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_of_several_outputs_the_one_that_is_asked_for_says_what_it_answers(tmp_path, outputs, head, suffix):
    nodes = [
        node("Cast", ["faces"], ["x"], to=1), node("GlobalAveragePool", ["x"], ["m"]), node("Flatten", ["m"], ["flat"], axis=1),
        node("MatMul", ["flat", "w"], ["logits"]), node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]  # fmt: skip
    weights = tensor("w", np.arange(7, dtype=np.float32)[None] / 255)
    path = tmp_path / "two.onnx"
    said = [value_info(name, 1, (None, 1 if name == "flat" else 7)) for name in outputs]
    path.write_bytes(model(nodes, [weights], [value_info("faces", 2, (None, 1, 40, 40))], said))
    if suffix == "xml":
        import openvino

        openvino.save_model(openvino.Core().read_model(str(path)), str(path.with_suffix(".xml")), compress_to_fp16=False)
    found = load_classifier(path.with_suffix(f".{suffix}"), head=head, precision="f32").classify([np.full((40, 40), 255, np.uint8)])[0]
    assert found == pytest.approx(softmax(np.arange(7, dtype=np.float32)), abs=1e-4)
