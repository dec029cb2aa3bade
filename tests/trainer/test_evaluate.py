"""Figures that are ours, against cases computed by hand; the ways from a data set to a truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install 'fer-stream[train]'")
pytest.importorskip("sklearn", reason="the trainer needs scikit-learn: pip install 'fer-stream[train]'")

from PIL import Image

from engines.contract import LABELS
from engines.errors import UsageError
from trainer.calibrate import expected_calibration_error, reliability, risk_coverage
from trainer.data import FaceSet
from trainer.evaluate import metrics_of
from trainer.figures import figures, map_labels, parse_label_map
from trainer.judge import judge, read_faces
from trainer.predictor import Predictor, views

LETTERS = ("a", "b", "c")


def rows(*values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, float)


def face_set(label: list[int], majority: list[int] | None = None, seen: list[bool] | None = None) -> FaceSet:
    n = len(label)
    votes = np.zeros((n, len(LABELS)), np.float32)
    for i, k in enumerate(majority or []):
        votes[i, max(k, 0)] = 1
    images = np.random.default_rng(1).integers(0, 256, (n, 8, 8), dtype=np.uint8)
    return FaceSet(images, np.array(label), votes, np.array(majority or [-1] * n), np.array(seen or [False] * n))


def by_first_pixel(labels: tuple[str, ...] = LABELS, size: int = 4) -> Predictor:
    """A model whose most probable label is the first pixel of its window, modulo the number of labels."""

    def infer(batch: np.ndarray, head: str) -> np.ndarray:
        return (0.3 * np.eye(len(labels))[batch[:, 0, 0, 0] % len(labels)] + 0.7 / len(labels)).astype(np.float32)

    return Predictor("made", "0" * 64, ("crowd", "fer2013"), labels, size, 8, "grey", 0.5, {}, infer)


def test_risk_is_the_share_of_wrong_answers_among_the_surest() -> None:
    p = rows((0.3, 0.7), (0.9, 0.1), (0.4, 0.6), (0.8, 0.2))  # tops .7 right, .9 right, .6 wrong, .8 wrong
    coverage, risk = risk_coverage(p, np.array([1, 0, 0, 1]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    found = figures(np.hstack([p, np.zeros((4, 1))]), np.array([1, 0, 0, 1]), LETTERS, threshold=0.75)["risk_coverage"]
    assert found["area"] == pytest.approx(1 / 3)
    assert found["uncertain"] == {"threshold": 0.75, "coverage": 0.5, "accuracy": 0.5}


def test_calibration_error_weighs_each_bin_by_its_faces() -> None:
    p, truth = rows((0.95, 0.05), (0.95, 0.05), (0.45, 0.55)), np.array([0, 1, 1])
    found = reliability(p, truth)
    assert found["count"].tolist() == [0] * 8 + [1] + [0] * 5 + [2]
    assert (found["accuracy"][8], found["accuracy"][14]) == (1.0, 0.5)
    assert np.isnan(found["accuracy"][0])
    assert expected_calibration_error(p, truth) == pytest.approx(1 / 3 * (1 - 0.55) + 2 / 3 * (0.95 - 0.5))


def test_a_probability_of_one_falls_into_the_last_bin() -> None:
    assert reliability(rows((1.0, 0.0)), np.array([0]), bins=4)["count"].tolist() == [0, 0, 0, 1]


def test_a_label_without_faces_keeps_its_row_and_has_no_figures() -> None:
    p = rows((0.7, 0.1, 0.2), (0.1, 0.3, 0.6), (0.2, 0.1, 0.7), (0.6, 0.3, 0.1))
    found = figures(p, np.array([0, 0, 2, 0]), LETTERS)
    assert found["confusion"]["counts"] == [[2, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert found["confusion"]["rates"] == [[2 / 3, 0, 1 / 3], [None] * 3, [0, 0, 1]]
    assert found["labels"]["b"] == {"precision": None, "recall": None, "f1": None, "support": 0, "auc": None}
    assert found["labels"]["c"]["precision"] == 0.5
    assert found["macro"]["f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["weighted"]["f1"] == pytest.approx((3 * 0.8 + 2 / 3) / 4)
    assert "b" not in found["roc"]


def test_accuracy_top2_and_errors_of_the_probabilities() -> None:
    p = rows((0.5, 0.3, 0.2), (0.5, 0.3, 0.2))
    found = figures(p, np.array([0, 1]), LETTERS)
    assert (found["accuracy"], found["top2_accuracy"]) == (0.5, 1.0)
    assert found["nll"] == pytest.approx(-(np.log(0.5) + np.log(0.3)) / 2)
    assert found["brier"] == pytest.approx(((0.25 + 0.09 + 0.04) + (0.25 + 0.49 + 0.04)) / 2)


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    p = rows((0.6, 0.3, 0.1), (0.2, 0.7, 0.1), (0.3, 0.6, 0.1))
    found = figures(p, np.array([0, 0, 1]), LETTERS)
    assert found["labels"]["a"]["auc"] == 0.5  # .6 > .3, but .2 < .3
    assert found["macro_auc"] == pytest.approx((0.5 + 0.5) / 2)


def test_accuracy_is_also_given_without_images_of_the_training() -> None:
    found = figures(rows((1, 0, 0), (1, 0, 0), (1, 0, 0)), np.array([0, 0, 1]), LETTERS, in_training=np.array([True, False, False]))
    assert (found["accuracy"], found["accuracy_unseen"], found["faces_unseen"]) == (pytest.approx(2 / 3), 0.5, 2)


def test_no_face_to_judge_by_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="no face to judge by"):
        figures(np.zeros((0, 3)), np.zeros(0, int), LETTERS)


def test_a_label_map_renames_and_leaves_out() -> None:
    mapping = parse_label_map("fear=surprise, disgust=")
    assert mapping == {"fear": "surprise", "disgust": ""}
    truth = np.array([0, 1, 2, 3, -1])
    assert map_labels(truth, ("angry", "disgust", "fear", "surprise"), ("surprise", "angry"), mapping).tolist() == [1, -1, 0, 0, -1]


@pytest.mark.parametrize(("text", "said"), [("fear", "expected old=new"), ("=sad", "expected old=new"), ("fear=glee", "no label of")])
def test_a_wrong_label_map_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        map_labels(np.array([0]), ("fear", "sad"), ("fear", "sad"), parse_label_map(text))


def test_a_class_that_the_model_lacks_is_said_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="--label-map b=LABEL"):
        map_labels(np.array([0, 1]), ("a", "b"), ("a",), {})
    assert map_labels(np.array([0, 0]), ("a", "b"), ("a",), {}).tolist() == [0, 0]  # nobody has it: nothing to say


def test_the_crowd_head_is_judged_by_the_unique_majority_and_the_other_by_the_labels() -> None:
    faces = face_set([0, 1, 2], majority=[3, -1, 4])
    crowd, original = judge(by_first_pixel(), faces, "crowd"), judge(by_first_pixel(), faces, "fer2013")
    assert crowd.truth.tolist() == [3, 4]
    assert crowd.figures["faces_without_truth"] == 1
    assert original.truth.tolist() == [0, 1, 2]


def test_the_crowd_head_is_judged_by_the_labels_where_there_are_no_votes() -> None:
    judged = judge(by_first_pixel(), face_set([5, 6]), "crowd")
    assert judged.truth.tolist() == [5, 6]
    assert "no FER+ votes" in judged.against


def test_a_model_with_other_spellings_and_fewer_labels_is_judged_by_name() -> None:
    judged = judge(by_first_pixel(("happiness", "anger")), face_set([0, 3, 4]), "fer2013", label_map={"sad": ""})
    assert judged.truth.tolist() == [1, 0]


def test_the_window_of_a_view_is_the_middle_and_ten_crops_are_corners_and_middle_with_mirror_images() -> None:
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    (middle,) = views(images, 4)
    assert middle.shape == (1, 1, 4, 4)
    assert middle[0, 0].tolist() == images[0, 2:6, 2:6].tolist()
    ten = views(images, 4, "ten-crop")
    assert [int(view[0, 0, 0, 0]) for view in ten[:5]] == [0, 4, 32, 36, 18]
    assert all((mirrored == view[..., ::-1]).all() for view, mirrored in zip(ten[:5], ten[5:], strict=True))


def test_views_of_a_larger_input_are_the_whole_face_and_ten_crops_still_differ() -> None:
    images = np.random.default_rng(2).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    assert views(images, 64)[0].shape == (2, 3, 64, 64)
    ten = views(images, 48, "ten-crop")
    assert {view.shape for view in ten} == {(2, 3, 48, 48)}
    assert len({view.tobytes() for view in ten}) == 10


def test_probabilities_are_the_mean_over_the_views() -> None:
    images = np.zeros((1, 4, 4), np.uint8)
    images[0, 0] = (1, 0, 0, 5)  # first pixel 1; mirrored 5
    p = by_first_pixel().probabilities(images, "crowd", "flip")[0]
    assert p[[1, 5]] == pytest.approx([0.25, 0.25])
    assert p.sum() == pytest.approx(1, abs=1e-6)


def test_folders_of_another_data_set_are_renamed_or_left_out(tmp_path: Path) -> None:
    for i, name in enumerate(("Happiness", "contempt", "boredom", "surprised")):
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "train" / "happy").mkdir(parents=True, exist_ok=True)
        for k in range(2):
            Image.fromarray(np.full((48, 48), 40 * i + 5 * k, np.uint8)).save(tmp_path / "test" / name / f"{k}.png")
    Image.fromarray(np.full((48, 48), 250, np.uint8)).save(tmp_path / "train" / "happy" / "0.png")
    faces, notes = read_faces(tmp_path, label_map={"contempt": "disgust", "boredom": ""})
    assert sorted(LABELS[k] for k in faces.label) == ["disgust", "disgust", "happy", "happy", "surprise", "surprise"]
    assert notes  # the counts are not FER2013's
    assert len(read_faces(tmp_path, "all", label_map={"contempt": "disgust", "boredom": ""})[0]) == 7
    with pytest.raises(UsageError, match="envy"):
        read_faces(tmp_path, label_map={"envy": ""})


def test_the_log_leaves_out_what_the_faces_cannot_say() -> None:
    logits = {head: np.eye(7)[[0, 1, 2]] * 9 for head in ("crowd", "fer2013")}
    assert metrics_of(logits, face_set([0, 1, 3], majority=[0, 2, -1]))["crowd_accuracy"] == 0.5
    without = metrics_of(logits, replace(face_set([0, 1, 3]), in_training=np.ones(3, bool)))
    assert without["fer2013_accuracy"] == pytest.approx(2 / 3)
    assert not {"crowd_accuracy", "crowd_ece", "fer2013_accuracy_unseen"} & set(without)
