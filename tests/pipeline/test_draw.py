"""The overlay: what it marks, what it leaves alone."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
import supervision as sv

from engines.contract import LABELS
from pipeline import canvas as canvas_module
from pipeline.canvas import BgrCanvas, YuvCanvas, beside, stamp, text_width
from pipeline.draw import HOLD_S, draw_faces, text_size
from pipeline.labels import COLOURS


def faces(boxes, emotion="happy", ids=None, observed=True):
    count = len(boxes)
    smoothed = np.tile(np.float32([0.05, 0.05, 0.05, 0.6, 0.1, 0.05, 0.1]), (count, 1))
    return sv.Detections(
        xyxy=np.asarray(boxes, np.float32).reshape(-1, 4), confidence=np.ones(count, np.float32),
        tracker_id=np.asarray(ids if ids is not None else range(count)),
        data={"smoothed": smoothed, "emotion": np.asarray([emotion] * count, object), "observed": np.full(count, observed)},
    )  # fmt: skip


def yuv(width=640, height=360, shade=90):
    half = (height + 1) // 2, (width + 1) // 2
    return [np.full((height, width), shade, np.uint8), np.full(half, 110, np.uint8), np.full(half, 140, np.uint8)]


def marked(planes, before):
    return [plane != old for plane, old in zip(planes, before, strict=True)]


def test_unmarked_pixels_stay_bit_for_bit():
    noise = np.random.default_rng(0)
    planes = [noise.integers(0, 256, plane.shape, dtype=np.uint8) for plane in yuv()]
    before = [plane.copy() for plane in planes]
    draw_faces(YuvCanvas(*planes, bt709=True), faces([[200, 100, 280, 200]]))
    y, u, v = marked(planes, before)
    assert y.any()
    rows, columns = np.nonzero(y)
    assert (rows.min(), columns.min()) >= (60, 190)
    assert rows.max() < 260
    assert columns.max() < 480
    inside = y[110:190, 210:270]
    assert not inside.any()  # the face itself
    allowed = np.maximum.reduce([y[0::2, 0::2], y[1::2, 0::2], y[0::2, 1::2], y[1::2, 1::2]])
    assert (u & ~allowed).sum() < 0.02 * u.sum()  # chroma changes where luma does (a mixed luma may come out equal)
    assert v.any()


def test_nothing_to_mark_changes_nothing():
    planes = yuv()
    before = [plane.copy() for plane in planes]
    for nothing in (None, sv.Detections.empty()):
        draw_faces(YuvCanvas(*planes, bt709=False), nothing)
    assert not any(mask.any() for mask in marked(planes, before))


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (480, 270), (1920, 1080), (8, 8), (2, 2), (1, 1)])
@pytest.mark.parametrize(
    "box",
    [[-50, -50, 20, 20], [0, 0, 5000, 5000], [40, 30, 41, 31], [-9, -9, -1, -1], [10, 10, 5, 5], [3.7, 3.2, 33.3, 41.9]],
)
def test_any_box_on_any_size_stays_inside(size, box):
    (width, height), (x1, y1, x2, y2) = size, box
    seen = max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height)
    far = (slice(-20, None), slice(-20, None)) if width >= 480 and x2 < width else (slice(0), slice(0))
    for observed, emotion in ((True, "sad"), (False, "uncertain"), (True, "no such label")):
        planes, image = yuv(*size), np.zeros((height, width, 3), np.uint8)
        before = [plane.copy() for plane in planes]
        draw_faces(YuvCanvas(*planes, bt709=False), faces([box, [1, 1, 20, 20]], emotion, ids=[-1, 12345], observed=observed))
        draw_faces(BgrCanvas(image), faces([box], emotion, observed=observed), top_k=7)
        drawn = marked(planes, before)
        assert drawn[0].any()
        assert image.any() == seen
        assert not any(plane[far].any() for plane in (*drawn, image))  # what reaches over one edge does not come back over the other


def test_both_canvases_show_the_same_colours():
    image = np.full((360, 640, 3), 96, np.uint8)
    start = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    planes = [start[:360].copy(), start[360:450].reshape(180, 320).copy(), start[450:].reshape(180, 320).copy()]
    who = faces([[200, 100, 300, 220], [400, 50, 450, 120]])
    draw_faces(BgrCanvas(image), who)
    draw_faces(YuvCanvas(*planes, bt709=False), who)
    flat = np.concatenate([plane.reshape(-1, 640) for plane in planes])
    back = cv2.cvtColor(flat, cv2.COLOR_YUV2BGR_I420).astype(int)
    assert abs(back - image).mean() < 1.5
    assert tuple(image[150, 200]) == COLOURS["happy"][::-1]


@pytest.mark.parametrize("bt709", [None, False, True])
@pytest.mark.parametrize("corner", [(0, 0), (40, 22), (74, 50)])
def test_a_stamp_pasted_is_what_was_drawn(bt709, corner):
    ground = np.random.default_rng(3).integers(16, 236, (60, 90, 3), np.uint8)
    y, u, v = (np.ascontiguousarray(plane) for plane in (ground[..., 0], ground[::2, ::2, 1], ground[::2, ::2, 2]))

    def canvas():
        planes = [ground.copy()] if bt709 is None else [y.copy(), u.copy(), v.copy()]
        return (BgrCanvas(*planes) if bt709 is None else YuvCanvas(*planes, bt709=bt709)), planes

    def word(on, left, top):
        on.fill(left, top, left + 30, top + 16, (200, 40, 90), 0.6)
        on.text(left + 4, top + 2, "ab", 12, (250, 240, 30))

    (direct, drawn), (other, pasted) = canvas(), canvas()
    word(direct, *corner)
    word(direct, corner[0] + 30, corner[1])
    once = stamp(other.kind, 30, 16, lambda on: word(on, 0, 0))
    other.paste(*corner, beside([once, once]))
    for one, another in zip(drawn, pasted, strict=True):
        assert np.abs(one.astype(int) - another).max() <= 2
    assert not np.array_equal(pasted[0], ground if bt709 is None else y)


def test_where_nothing_is_known_there_is_no_bar_rather_than_an_empty_one():
    def bar(probability):
        image, who = np.zeros((360, 640, 3), np.uint8), faces([[200, 150, 300, 270]])
        who.data["smoothed"][:] = probability
        draw_faces(BgrCanvas(image), who, top_k=0)
        blue, red = image[..., 0].astype(int), image[..., 2].astype(int)
        return ((abs(blue - 80) < 5) & (blue - red > 6)).sum()  # the bar's own bluish grey over the ground

    assert bar(0.1) > 40
    assert bar(np.nan) == 0


def test_uncertain_is_grey_and_labels_have_colours_of_their_own():
    assert len(set(COLOURS.values())) == 8
    assert set(COLOURS) == {*LABELS, "uncertain"}
    assert len(set(COLOURS["uncertain"])) == 1


def test_a_carried_box_is_dashed():
    image = np.full((360, 640, 3), 96, np.uint8)
    draw_faces(BgrCanvas(image), faces([[200, 100, 300, 220]], observed=False), labels=False)
    top = (image[100, 200:300] == COLOURS["happy"][::-1]).all(-1)
    assert 0.3 < top.mean() < 0.7
    assert not image[150:200, 210:290].any(where=image[150:200, 210:290] != 96)


def test_a_face_without_an_id_is_thinner():
    images = []
    for tracker_id in (7, -1):
        image = np.full((1080, 1920, 3), 96, np.uint8)
        draw_faces(BgrCanvas(image), faces([[500, 400, 800, 800]], ids=[tracker_id]), labels=False)
        images.append((image == COLOURS["happy"][::-1]).all(-1).sum())
    assert images[1] < 0.7 * images[0]


def test_top_k_is_how_many_probabilities_are_shown():
    changed = []
    for top_k in (0, 3, 7):
        image = np.full((720, 1280, 3), 96, np.uint8)
        draw_faces(BgrCanvas(image), faces([[300, 200, 420, 360]]), top_k=top_k)
        changed.append((image != 96).any(-1).sum())
    assert changed[0] < changed[1] < changed[2]


def test_in_a_crowd_no_label_covers_a_face():
    boxes = [[20 + 40 * (i % 15), 20 + 44 * (i // 15), 44 + 40 * (i % 15), 50 + 44 * (i // 15)] for i in range(105)]
    image = np.full((360, 640, 3), 96, np.uint8)
    draw_faces(BgrCanvas(image), faces(boxes))
    covered = [(image[int(y1) + 6 : int(y2) - 6, int(x1) + 4 : int(x2) - 4] != 96).any(-1).mean() for x1, y1, x2, y2 in boxes]
    assert max(covered) < 0.25


def test_a_label_goes_a_line_further_rather_than_over_another():
    left, middle, right = [1000, 700, 1090, 810], [1226, 684, 1284, 760], [1322, 706, 1390, 786]
    alone, all_three = (np.full((1080, 1920, 3), 96, np.uint8) for _ in range(2))
    draw_faces(BgrCanvas(alone), faces([left], "neutral", ids=[5]))
    draw_faces(BgrCanvas(all_three), faces([left, middle, right], "neutral", ids=[5, 10, 1]))
    words = (slice(662, 698), slice(998, 1200))
    assert (alone[words] != 96).mean() > 0.5
    assert (all_three[words] == alone[words]).all()
    assert (all_three[712:800, 1012:1080] == 96).all()  # nor over a face
    assert (all_three[640:664, 1230:1284] != 96).any()


def drawn_in_turn(*pictures):
    """What each (faces, time_s) leaves on its own grey picture, with one memory for all."""
    told, images = {}, []
    for who, time_s in pictures:
        image = np.full((720, 1280, 3), 96, np.uint8)
        draw_faces(BgrCanvas(image), who, told=told, time_s=time_s)
        images.append(image)
    return images


def surer(who, probability):
    who.data["smoothed"] = np.tile(np.float32([0.05, 0.05, 0.05, probability, 0.1, 0.05, 0.1]), (len(who), 1))
    return who


def test_words_stay_for_a_while_then_follow_what_is_known():
    box = [[300, 200, 420, 360]]
    sure = surer(faces(box), 0.9)
    early, held, later = drawn_in_turn((faces(box), 1.0), (sure, 1.0 + 0.9 * HOLD_S), (sure, 1.0 + 1.01 * HOLD_S))
    assert (held == early).all()
    assert (later != early).any()
    assert (later == drawn_in_turn((sure, 0.0))[0]).all()


def test_another_label_is_written_at_once():
    box = [[300, 200, 420, 360]]
    for other in (faces(box, "sad"), faces(box, ids=[7]), faces([[300, 200, 520, 560]])):
        assert (drawn_in_turn((faces(box), 1.0), (other, 1.01))[1] == drawn_in_turn((other, 1.01))[0]).all()


def test_words_move_with_their_face():
    first, second = drawn_in_turn((faces([[300, 200, 420, 360]]), 1.0), (faces([[340, 230, 460, 390]]), 1.03))
    assert (second[30:, 40:] == first[:-30, :-40]).all()


def test_what_is_remembered_is_of_the_faces_in_the_picture():
    told, left, right = {}, [300, 200, 420, 360], [700, 200, 820, 360]
    for time_s, boxes, ids in ((0.0, [left, right], [1, 2]), (0.03, [left], [2]), (0.06, [left], [-1])):
        draw_faces(BgrCanvas(np.zeros((720, 1280, 3), np.uint8)), faces(boxes, ids=ids), told=told, time_s=time_s)
        assert set(told) == {i for i in ids if i >= 0}


def test_text_grows_with_the_picture():
    assert [text_size(height) for height in (48, 270, 720, 1080, 4320)] == [12, 12, 18, 28, 56]
    assert text_width("surprise", 28) > 2 * text_width("surprise", 12)


def test_older_opencv_draws_with_its_stroke_font():
    ink = canvas_module._hershey("#3 happy 83%", 18)
    assert ink.shape[0] == 18
    assert ink.shape[1] % 2 == 0
    assert (ink.min(), ink.max()) == (0, 128)


def test_two_faces_of_a_720p_frame_cost_little():
    planes, who = yuv(1280, 720), faces([[300, 200, 420, 360], [700, 200, 820, 360]])
    draw_faces(YuvCanvas(*planes, bt709=True), who)  # renders the text, once
    spent = []
    for _ in range(30):
        begun = time.thread_time()
        draw_faces(YuvCanvas(*planes, bt709=True), who)
        spent.append(time.thread_time() - begun)
    assert min(spent) < 0.003  # 0.65 ms measured; room for slower machines
