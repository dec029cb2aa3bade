"""Letterbox, crops, NMS: cases computed by hand, and what must hold for all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import UsageError
from engines.preprocess import crop_faces, crop_square, fuse, iou_with, letterbox, letterbox_geometry, nms, pair, unletterbox, vote


def test_a_wide_frame_is_padded_to_the_next_multiple_of_the_stride():
    g = letterbox_geometry(1920, 1080, 640)
    assert (g.resized_width, g.resized_height, g.left, g.top, g.input_width, g.input_height) == (640, 360, 0, 12, 640, 384)
    assert g.scale == pytest.approx(1 / 3)


def test_a_tall_frame_is_padded_at_the_sides():
    g = letterbox_geometry(480, 720, 640)
    assert (g.resized_width, g.resized_height, g.left, g.top, g.input_width, g.input_height) == (427, 640, 10, 0, 448, 640)


def test_small_pictures_are_doubled_and_no_more():
    g = letterbox_geometry(48, 40, 640)
    assert (g.scale, g.resized_width, g.resized_height, g.input_width, g.input_height) == (2, 96, 80, 96, 96)


def test_a_fixed_input_is_filled_as_far_as_the_shape_allows():
    g = letterbox_geometry(100, 50, 640, size=(320, 320))
    assert (g.resized_width, g.resized_height, g.top, g.input_width, g.input_height) == (320, 160, 80, 320, 320)


@pytest.mark.parametrize("imgsz", [0, 16, 100, 650])
def test_an_imgsz_off_the_stride_is_refused_with_a_right_one(imgsz):
    with pytest.raises(UsageError, match="multiple of 32"):
        letterbox_geometry(640, 480, imgsz)


def test_letterbox_turns_bgr_to_rgb_and_fills_with_grey():
    image = np.zeros((180, 320, 3), np.uint8)
    image[:] = (1, 2, 3)
    out = letterbox(image, letterbox_geometry(320, 180, 320))
    assert out.shape == (192, 320, 3)
    assert out.flags.c_contiguous
    assert (out[6:186] == (3, 2, 1)).all()
    assert (out[:6] == 114).all()
    assert (out[186:] == 114).all()


def test_unletterbox_by_hand():
    g = letterbox_geometry(1920, 1080, 640)
    boxes = unletterbox(np.array([[100, 112, 200, 212], [-5, 0, 700, 384]]), g, 1920, 1080)
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[300, 300, 600, 600], [0, 0, 1920, 1080]]
    assert unletterbox(np.zeros((0, 4)), g, 1920, 1080).shape == (0, 4)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([64, 320, 640, 1280]))
def test_every_image_fits_its_letterbox_and_boxes_come_back(width, height, imgsz):
    g = letterbox_geometry(width, height, imgsz)
    assert g.input_width % 32 == 0
    assert g.input_height % 32 == 0
    assert max(g.resized_width, g.resized_height) <= imgsz
    assert 0 <= g.left <= g.input_width - g.resized_width < 32
    assert 0 <= g.top <= g.input_height - g.resized_height < 32
    inside = [[g.left, g.top, g.left + g.resized_width, g.top + g.resized_height]]
    assert unletterbox(np.array(inside), g, width, height)[0] == pytest.approx([0, 0, width, height], rel=1e-5, abs=1e-3)


def test_iou_by_hand():
    ious = iou_with(np.array([0, 0, 10, 10.0]), np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 0, 0.0]]))
    assert ious == pytest.approx([1, 1 / 3, 0, 0])


def test_nms_keeps_the_best_of_those_that_overlap():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [5, 0, 15, 10]], np.float32)
    scores = np.array([0.5, 0.9, 0.4, 0.6], np.float32)
    assert nms(boxes, scores, 0.5).tolist() == [1, 3, 2]  # 0 overlaps 1 by 9/11, 3 overlaps 1 by 6/14
    assert nms(boxes, scores, 0.4).tolist() == [1, 2]
    assert nms(boxes, scores, 0.5, limit=1).tolist() == [1]
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_of_equal_boxes_the_first_stays():
    assert nms(np.array([[0, 0, 5, 5.0]] * 3), np.array([0.5, 0.5, 0.5]), 0.5).tolist() == [0]


corner, length = st.integers(0, 60), st.integers(1, 40)
box = st.tuples(corner, corner, length, length).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@given(st.lists(st.tuples(box, st.floats(0.01, 1)), max_size=30), st.floats(0.1, 0.9))
def test_nms_keeps_no_two_that_overlap_and_drops_none_without_reason(found, iou):
    boxes = np.array([b for b, _ in found], np.float32).reshape(-1, 4)
    scores = np.array([s for _, s in found], np.float32)
    kept = nms(boxes, scores, iou)
    for i, k in enumerate(kept):
        assert (iou_with(boxes[k], boxes[kept[i + 1 :]]) <= iou).all()
    for d in set(range(len(boxes))) - set(kept.tolist()):
        better = [k for k in kept if scores[k] >= scores[d]]
        assert (iou_with(boxes[d], boxes[better]) > iou - 1e-6).any()


def test_neighbours_shift_the_edges_of_a_kept_box_by_score_and_overlap():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [50, 50, 60, 60], [70, 70, 70, 90]], np.float32)
    scores = np.array([0.8, 0.5, 0.9, 0.3, 0.2], np.float32)
    voted = vote(boxes[[0, 3, 4]], boxes, scores, 0.7)
    assert voted[0] == pytest.approx([0, 0, 10, (0.8 * 10 + 0.5 * 0.8 * 8) / (0.8 + 0.5 * 0.8)])  # the third overlaps it by half
    assert voted[1:].tolist() == boxes[3:].tolist()  # nobody near, no area: as they were
    assert vote(boxes[:1], boxes[:0], scores[:0], 0.7).tolist() == boxes[:1].tolist()
    assert vote(boxes[:0], boxes, scores, 0.7).shape == (0, 4)


def test_each_box_is_paired_once():
    one = np.array([[0, 0, 10, 10]], np.float32)
    assert pair(np.repeat(one, 2, 0), one) == [(0, 0)]
    assert pair(one, np.zeros((0, 4), np.float32)) == []


def test_what_two_looks_found_is_averaged_and_what_one_found_counts_half():
    one = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32), np.array([0.9, 0.4], np.float32)
    other = np.array([[20, 20, 30, 30], [0, 0, 10, 9], [0, 0, 10, 7]], np.float32), np.array([0.8, 0.6, 0.5], np.float32)
    boxes, scores = fuse(one, other, 0.6)
    assert boxes.tolist() == [pytest.approx([0, 0, 10, (0.9 * 10 + 0.6 * 9) / 1.5]), [20, 20, 30, 30], [50, 50, 60, 60]]
    assert scores == pytest.approx([0.75, 0.4, 0.2])  # the other's third lies on the first, and goes
    assert one[0].tolist() == [[0, 0, 10, 10], [50, 50, 60, 60]]  # the caller's are as they were
    assert one[1] == pytest.approx([0.9, 0.4])
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    assert [part.tolist() for part in fuse(none, none, 0.6)] == [[], []]
    for found in (fuse(one, none, 0.6), fuse(none, one, 0.6)):
        assert found[0].tolist() == one[0].tolist()
        assert found[1] == pytest.approx([0.45, 0.2])


@given(st.lists(st.tuples(box, st.floats(0.01, 1)), max_size=20), st.floats(0.1, 0.9))
def test_two_looks_that_agree_are_one(found, iou):
    boxes = np.array([b for b, _ in found], np.float32).reshape(-1, 4)
    scores = np.array([s for _, s in found], np.float32)
    kept = nms(boxes, scores, iou)
    once = boxes[kept], scores[kept]
    both, confidence = fuse(once, once, iou)
    assert both == pytest.approx(once[0], abs=1e-3)
    assert confidence == pytest.approx(once[1], abs=1e-6)


def test_a_thousand_faces_survive_nms():
    x, y = np.meshgrid(np.arange(40) * 10, np.arange(25) * 10)
    boxes = np.stack([x.ravel(), y.ravel(), x.ravel() + 8, y.ravel() + 8], 1).astype(np.float32)
    assert len(nms(boxes, np.full(1000, 0.5, np.float32), 0.5)) == 1000


def test_a_crop_is_square_around_the_box():
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)
    assert crop_square(image, (2, 3, 4, 7)).tolist() == image[3:7, 1:5].tolist()
    assert crop_square(image, (4, 4, 6, 6), margin=2).tolist() == image[3:7, 3:7].tolist()


def test_what_lies_outside_is_replicated():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert crop_square(image, (-2, -2, 2, 2)).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [4, 4, 4, 5]]


size, place, extent = st.integers(1, 30), st.floats(-20, 40), st.floats(0, 40)


@given(size, size, place, place, extent, extent, st.floats(0.5, 2))
@settings(max_examples=150)
def test_a_crop_equals_the_same_cut_from_a_padded_image(width, height, x, y, w, h, margin):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    crop = crop_square(image, (x, y, x + w, y + h), margin)
    side = max(1, round(margin * max(x + w - x, y + h - y)))
    padded = np.pad(image, ((200, 200), (200, 200), (0, 0)), mode="edge")
    left, top = round((x + x + w - side) / 2) + 200, round((y + y + h - side) / 2) + 200
    assert (crop == padded[top : top + side, left : left + side]).all()


def test_crops_follow_detections_in_order_with_the_shipped_margin():
    image = np.zeros((100, 100, 3), np.uint8)
    detections = SimpleNamespace(xyxy=np.array([[10, 10, 30, 20], [50, 50, 90, 90]], np.float32))
    from engines.manifest import shipped

    margin = shipped()["emotion_cnn"].contract.crop_margin
    assert [c.shape[0] for c in crop_faces(image, detections)] == [round(20 * margin), round(40 * margin)]
    assert [c.shape for c in crop_faces(image, detections.xyxy, margin=1)] == [(20, 20, 3), (40, 40, 3)]
    assert crop_faces(image, np.zeros((0, 4))) == []


@pytest.mark.parametrize("bad", [(0, 0, float("nan"), 5), (0, 0, 1e9, 5), (float("-inf"), 0, 5, 5), (1e30, 1e30, 1e30, 1e30)])
def test_boxes_that_cannot_be_cut_are_refused(bad):
    with pytest.raises(UsageError, match="cannot crop"):
        crop_faces(np.zeros((50, 50, 3), np.uint8), [bad], margin=1)


def test_wrong_margins_and_detections_are_refused():
    image = np.zeros((50, 50, 3), np.uint8)
    with pytest.raises(UsageError, match="margin above 0"):
        crop_faces(image, [], margin=0)
    with pytest.raises(UsageError, match="once per image"):
        crop_faces(image, [object()])
    with pytest.raises(UsageError, match=r"\(N, 4\) xyxy boxes"):
        crop_faces(image, [[1, 2, 30, 40, 5, 6, 20, 20]])
    assert len(crop_faces(image, [[1, 2, 30, 40]], np.float32(1.2))) == 1


WRONG = [
    (None, "cv2.imread returns None"),
    ("face.jpg", "got a str"),
    (np.zeros((0, 0, 3), np.uint8), "without pixels"),
    (np.zeros((5, 0, 3), np.uint8), "without pixels"),
    (np.zeros((5, 5, 3), np.float32), "got float32"),
    (np.zeros((5, 5), np.uint8), "COLOR_GRAY2BGR"),
    (np.zeros((5, 5, 4), np.uint8), "COLOR_BGRA2BGR"),
    (np.zeros((5, 5, 2), np.uint8), r"\(5, 5, 2\)"),
    (np.zeros((2, 5, 5, 3), np.uint8), "a list of images"),
]


@pytest.mark.parametrize(("image", "said"), WRONG)
def test_what_is_no_image_is_a_sentence(image, said):
    with pytest.raises(UsageError, match=said) as caught:
        crop_faces(image, [])
    assert isinstance(caught.value, ValueError)
    assert "expected a BGR image, (H, W, 3) uint8" in str(caught.value)
