"""Finding faces in pictures."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from engines import load_detector, select
from engines.backends.fake import FakeBackend, bright_blobs, fixed_boxes
from engines.contract import DetectorContract
from engines.detector import Detector
from engines.errors import EngineError, ModelError, UsageError
from engines.manifest import MODELS, Entry
from engines.preprocess import iou_with, letterbox, unletterbox

FACES = {"p01_family_of_four_smiling": 4, "p03_one_man_smiling": 1, "p06_sad_pout": 1, "p07_dog_no_human": 0, "p08_exif_orientation6": 1}


@pytest.fixture(scope="module")
def photos(media: Path) -> dict[str, np.ndarray]:
    import cv2

    return {name: cv2.imread(str(media / "photos" / f"{name}.jpg")) for name in FACES}


def blobs(width: int, height: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image


def faked(answer, **settings) -> Detector:
    return Detector(FakeBackend("detector", answer), Entry("fake", "detector", Path("fake.detector"), DetectorContract()), **settings)


def same(one, other) -> bool:
    return np.array_equal(one.xyxy, other.xyxy) and np.array_equal(one.confidence, other.confidence)


def test_photos_have_their_counts(detector, photos):
    assert {name: len(detector.detect(image)) for name, image in photos.items()} == FACES


def test_what_comes_out_is_sv_detections_in_pixels_of_the_image(detector, photos):
    image = photos["p01_family_of_four_smiling"]
    found = detector.detect(image)
    assert (found.xyxy.dtype, found.confidence.dtype) == (np.float32, np.float32)
    assert (found.class_id == 0).all()
    assert (found.xyxy >= 0).all()
    assert (found.xyxy[:, 2:] <= [image.shape[1], image.shape[0]]).all()
    assert (found.confidence >= detector.conf).all()
    assert (np.diff(found.confidence) <= 0).all()


def test_a_list_of_mixed_sizes_equals_one_by_one(detector, photos):
    images = list(photos.values())
    together = detector.detect(images)
    assert isinstance(together, list)
    assert all(same(one, detector.detect(image)) for one, image in zip(together, images, strict=True))
    assert detector.detect([]) == []


def test_detect_ends_in_infer(detector, photos):
    image = photos["p01_family_of_four_smiling"]
    g = detector.geometry(image.shape[1], image.shape[0])
    xyxy, confidence = detector.infer(letterbox(image, g)[None], floor=detector.conf, still=True)[0]
    found = detector.detect(image)
    assert np.array_equal(found.xyxy, unletterbox(xyxy, g, image.shape[1], image.shape[0]))
    assert np.array_equal(found.confidence, confidence)


def test_pictures_of_many_shapes_are_compiled_for_once():
    detector = load_detector(backend="openvino")
    detector.detect([np.zeros((64 + 64 * i, 640, 3), np.uint8) for i in range(4)])
    assert len(detector._engine._compiled) == 1
    detector.infer(np.zeros((1, 64, 640, 3), np.uint8))
    assert len(detector._engine._compiled) == 2  # a video's frames have one shape, and run fastest compiled for it


def test_a_lower_floor_only_adds(detector, photos):
    batch = letterbox(photos["p07_dog_no_human"], detector.geometry(512, 512))[None]
    (few, few_scores), (many, many_scores) = detector.infer(batch, floor=0.5)[0], detector.infer(batch, floor=0.01)[0]
    assert len(many) > len(few)
    assert many_scores.min() >= 0.01
    assert np.array_equal(many_scores[: len(few)], few_scores)


def test_three_threads_on_one_detector(detector, photos):
    images = [photos["p01_family_of_four_smiling"], photos["p03_one_man_smiling"], photos["p07_dog_no_human"]]
    alone = [detector.detect(image) for image in images]
    wrong: list[str] = []

    def work(i: int) -> None:
        for turn in range(4):
            which = (i + turn) % 3
            if not same(detector.detect(images[which]), alone[which]):
                wrong.append(f"thread {i}, image {which}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_model_says_who_it_is(detector):
    assert detector.name in ("yolo11n_face", "yolo11n_face_int8")
    assert (detector.backend, detector.device) == ("openvino", "cpu")
    assert detector.conf == detector.contract.conf == detector.entry.contract.conf
    assert detector.sha256 == detector.entry.digest
    assert detector.contract.kind == "yolo"


@pytest.mark.parametrize("image", [None, np.zeros((0, 0, 3), np.uint8), np.zeros((9, 9, 3), float), np.zeros((9, 9), np.uint8)])
def test_what_is_no_image_is_a_value_error(detector, image):
    with pytest.raises(ValueError, match="detect expected a BGR image"):
        detector.detect(image)
    with pytest.raises(ValueError, match="image 1 of the list"):
        detector.detect([np.zeros((9, 9, 3), np.uint8), image])


@pytest.mark.parametrize("batch", [None, np.zeros((1, 50, 64, 3), np.uint8), np.zeros((1, 64, 64, 3)), np.zeros((64, 64, 3), np.uint8)])
def test_infer_takes_letterboxed_batches_only(detector, batch):
    with pytest.raises(UsageError, match="infer expected"):
        detector.infer(batch)


@pytest.mark.parametrize(
    "setting",
    [
        {"conf": 0}, {"conf": 1.5}, {"conf": "a"}, {"iou": -1}, {"floor": float("nan")},
        {"imgsz": 100}, {"imgsz": "640"}, {"imgsz": float("nan")},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_before_a_frame_comes(setting):
    with pytest.raises(UsageError):
        load_detector(backend="fake", **setting)


@pytest.mark.parametrize("setting", [{"threads": "2"}, {"threads": 0}, {"requests": 0}, {"requests": None}, {"options": ["a"]}])
def test_settings_of_a_backend_that_make_no_sense_are_refused(setting):
    with pytest.raises(UsageError, match=f"{next(iter(setting))} must "):
        load_detector(**setting)


def test_one_pixel_and_extreme_shapes(detector):
    assert [len(found) for found in detector.detect([np.zeros((1, 1, 3), np.uint8), np.zeros((2, 900, 3), np.uint8)])] == [0, 0]


def test_the_fake_finds_bright_blobs_where_they_are():
    found = load_detector(backend="fake").detect(blobs(640, 360, (100, 50, 200, 150), (400, 200, 460, 300)))
    assert found.xyxy.tolist() == [[100, 50, 200, 150], [400, 200, 460, 300]]
    assert (found.confidence > 0.8).all()


def test_a_thousand_faces_and_no_more():
    x, y = np.meshgrid(np.arange(40) * 16, 12 + np.arange(30) * 12)  # 12 rows of border above the picture
    boxes = np.stack([x.ravel(), y.ravel(), x.ravel() + 10, y.ravel() + 10], 1)
    found = faked(fixed_boxes(boxes)).detect(np.zeros((360, 640, 3), np.uint8))
    assert len(found) == 1000


def test_boxes_in_the_border_and_broken_numbers_do_not_come_out():
    boxes = [[0, 0, 50, 10], [100, 100, 150, 150], [float("nan"), 0, 5, 5]]  # the first lies in the border: rows 0…11
    found = faked(fixed_boxes(boxes)).detect(np.zeros((360, 640, 3), np.uint8))
    assert found.xyxy.tolist() == [[100, 88, 150, 138]]


def test_conf_decides_what_is_a_face():
    answer = fixed_boxes([[0, 100, 50, 150], [100, 100, 150, 150]], [0.5, 0.3])
    image = np.zeros((360, 640, 3), np.uint8)
    assert [len(faked(answer, conf=conf).detect(image)) for conf in (0.2, 0.4, 0.6)] == [2, 1, 0]


def test_a_mirrored_look_counts_what_both_see_in_full_and_what_one_sees_by_half():
    blob = blobs(640, 360, (100, 50, 200, 150))
    seen = faked(bright_blobs).detect(blob, mirror=True)
    assert seen.xyxy.tolist() == [[100, 50, 200, 150]]
    assert seen.confidence == pytest.approx([0.9])
    fixed = faked(fixed_boxes([[0, 100, 50, 150]], [0.8]), conf=0.3)  # left in the picture, and left in its mirror image
    assert fixed.detect(blob).xyxy.tolist() == [[0, 88, 50, 138]]
    both = fixed.detect(blob, mirror=True)
    assert sorted(both.xyxy.tolist()) == [[0, 88, 50, 138], [590, 88, 640, 138]]
    assert both.confidence == pytest.approx([0.4, 0.4])
    assert len(faked(fixed_boxes([[0, 100, 50, 150]], [0.8]), conf=0.5).detect(blob, mirror=True)) == 0


def test_the_shipped_detector_says_of_a_picture_what_it_says_of_its_mirror_image(detector, photos):
    assert detector.contract.mirror
    image = photos["p01_family_of_four_smiling"]
    found = detector.detect(image)
    assert not same(found, detector.detect(image, mirror=False))
    mirrored = detector.detect(np.ascontiguousarray(image[:, ::-1])).xyxy
    back = np.stack([image.shape[1] - mirrored[:, 2], mirrored[:, 1], image.shape[1] - mirrored[:, 0], mirrored[:, 3]], 1)
    assert iou_with(found.xyxy, back).max(1).min() > 0.95  # an odd column of border may lie on the other side


def test_a_closed_detector_says_so():
    closed = load_detector(backend="fake")
    closed.close()
    closed.close()
    with pytest.raises(EngineError, match="closed"):
        closed.detect(np.zeros((64, 64, 3), np.uint8))


def test_a_copy_by_path_answers_alike(detector, photos, tmp_path):
    path = tmp_path / f"mine{detector.entry.path.suffix}"
    for file in (detector.entry.path, detector.entry.path.with_suffix(".bin")):
        if file.is_file():
            path.with_suffix(file.suffix).write_bytes(file.read_bytes())
    mine = load_detector(path, conf=0.5)
    assert (mine.conf, mine.sha256) == (0.5, detector.sha256)
    assert len(mine.detect(photos["p03_one_man_smiling"])) == 1


def test_a_classifier_is_no_detector():
    with pytest.raises(ModelError, match="takes faces"):
        load_detector(MODELS / "emotion_cnn.onnx")


def test_yunet_through_the_same_interface(weights, photos):
    yunet = load_detector(weights / "face_detection_yunet_2023mar.onnx")
    assert (yunet.contract.kind, yunet.conf, yunet.backend) == ("yunet", 0.7, "opencv")
    image = photos["p01_family_of_four_smiling"]
    assert len(yunet.detect(image)) == 4
    assert [len(found) for found in yunet.detect([image, photos["p03_one_man_smiling"]])] == [4, 1]
    batch = letterbox(image, yunet.geometry(image.shape[1], image.shape[0]))[None]
    xyxy, confidence = yunet.infer(batch, floor=0.1)[0]
    assert xyxy.shape == (len(confidence), 4)
    assert len(xyxy) >= 4
    with pytest.raises(EngineError, match="OpenCV"):
        load_detector(weights / "face_detection_yunet_2023mar.onnx", backend="openvino")


def test_a_detector_as_ultralytics_exports_it_runs_at_its_one_size(float_detector):
    mine = load_detector(float_detector, precision="f32")
    assert mine.geometry(1920, 1080).input_width == mine.geometry(50, 90).input_height == 64
    white = np.full((128, 128, 3), 255, np.uint8)
    both = mine.detect([white, white])
    assert [found.xyxy.round(2).tolist() for found in both] == [[[48, 48, 80, 80]]] * 2
    assert both[0].confidence == pytest.approx(0.9)


def test_scrfd_through_the_same_interface(weights, photos):
    scrfd = load_detector(weights / "scrfd_500m_bnkps.onnx")
    assert (scrfd.contract.kind, scrfd.conf, scrfd.backend) == ("scrfd", 0.5, "openvino")
    family, man = photos["p01_family_of_four_smiling"], photos["p03_one_man_smiling"]
    assert [len(found) for found in scrfd.detect([family, man, family])] == [4, 1, 4]
    ours = load_detector()
    for theirs, mine in zip(sorted(scrfd.detect(family).xyxy.tolist()), sorted(ours.detect(family).xyxy.tolist()), strict=True):
        assert float(iou_with(np.array(theirs), np.array([mine]))[0]) > 0.5


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_an_scrfd_without_an_axis_of_the_batch_answers_on_every_backend(small_scrfd, backend):
    if not select.installed(backend):
        pytest.skip(f"needs the extra {backend}")
    scrfd = load_detector(small_scrfd(), backend=backend, device="cpu")
    white = np.full((128, 128, 3), 255, np.uint8)
    for found in scrfd.detect([white, white]):
        assert found.xyxy == pytest.approx(np.array([[32, 32, 96, 96]]), abs=0.5)
        assert found.confidence == pytest.approx([0.9], abs=0.01)


def test_what_only_counts_like_an_scrfd_is_refused_at_loading_or_where_its_file_says_nothing_at_the_first_picture(small_scrfd):
    with pytest.raises(ModelError, match="expected scores"):
        load_detector(small_scrfd((2, 4)))
    if select.installed("torch"):  # the others work the shapes out themselves
        silent = load_detector(small_scrfd((2, 4), stated=False), backend="torch", device="cpu")
        with pytest.raises(ModelError, match="expected scores"):
            silent.detect(np.zeros((64, 64, 3), np.uint8))
