"""`--privacy blur`: no face leaves the process, by two detectors' judgement; and the stage's rules, one by one."""

from __future__ import annotations

import base64
import json
import re
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import supervision as sv

from engines import load_detector
from pipeline.api import run, stream
from pipeline.build import Options, build
from pipeline.config import load_config
from pipeline.flow.batch import Batch, Ended
from pipeline.stages.privacy import Privacy, with_mosaics
from pipeline.types import Frame, SourceInfo

BLUR = load_config(changes={"privacy": "blur"})


@pytest.fixture(scope="module")
def found(weights: Path):
    """(H, W, 3) BGR -> boxes of our detector at .45 and of YuNet at .6, at the picture's size and at 640 pixels."""
    ours = load_detector(conf=0.45)
    yunet = cv2.FaceDetectorYN.create(str(weights / "face_detection_yunet_2023mar.onnx"), "", (320, 320), 0.6, 0.3, 5000)

    def others(image: np.ndarray) -> list[list[float]]:
        yunet.setInputSize((image.shape[1], image.shape[0]))
        faces = yunet.detect(image)[1]
        return [] if faces is None else faces[:, :4].tolist()

    def find(image: np.ndarray) -> list[list[float]]:
        scale = 640 / max(image.shape[:2])
        small = others(cv2.resize(image, None, fx=scale, fy=scale)) if scale < 1 else []
        return [*ours.detect(image).xyxy.tolist(), *others(image), *small]

    return find


def pictures(path: Path, every: int):
    with av.open(str(path)) as container:
        for i, image in enumerate(container.decode(video=0)):
            if i % every == 0:
                yield i, image.to_ndarray(format="bgr24")


@pytest.mark.parametrize(("prefix", "start", "frames", "every"), [
    ("d01", 0, 15, 7), ("d06", 4.8, 24, 6), ("d07", 1.3, 24, 4), ("d08", 0, 20, 5), ("d12", 1.5, 50, 7)])  # fmt: skip
def test_no_face_is_found_in_the_annotated_video(
    media: Path, tmp_path: Path, found, prefix: str, start: float, frames: int, every: int
) -> None:
    """Crowds, profiles, people who cross, leave and come back. All frames of all clips by hand: see the stage."""
    source = next(media.glob(f"{prefix}_*"))
    summary = run(source, config=BLUR, output=tmp_path / "out.mp4", report=tmp_path / "out.html", start=start, max_frames=frames)
    assert summary["faces"] > 0  # the stages before saw them
    seen = {i: boxes for i, image in pictures(tmp_path / "out.mp4", every) if (boxes := found(image))}
    assert not seen
    thumbnails = re.findall(r"base64,([^\"]+)", (tmp_path / "out.html").read_text())
    assert thumbnails
    assert not [data for data in thumbnails if found(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR))]


def test_no_face_is_found_in_the_demo(tmp_path: Path, found) -> None:
    pytest.importorskip("skimage", reason="the demo's portraits are scikit-image's")
    summary = run("demo", config=BLUR, output=tmp_path / "out.mp4", max_frames=30)
    assert summary["faces"] > 60
    assert not [i for i, image in pictures(tmp_path / "out.mp4", 6) if found(image)]


def test_no_face_is_found_in_pictures(media: Path, tmp_path: Path, found) -> None:
    summary = run(media / "photos", config=BLUR, output=tmp_path / "out")
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) == 8
    assert summary["faces"] > 15
    seen = {path.name: boxes for path in written if "dog" not in path.name and (boxes := found(cv2.imread(str(path))))}
    assert not seen  # YuNet takes the dog's face for one; it is not a person's


def test_faces_beyond_the_most_of_a_frame_are_hidden_too(media: Path, tmp_path: Path, found) -> None:
    config = load_config(changes={"privacy": "blur", "detect.max_faces": 1})
    summary = run(next(media.glob("d06_*")), config=config, output=tmp_path / "out.mp4", max_frames=6)
    assert summary["faces"] == 6
    assert not [i for i, image in pictures(tmp_path / "out.mp4", 3) if found(image)]


def test_what_python_gets_has_no_face_either(media: Path, found) -> None:
    for frame in stream(next(media.glob("d03_*")), config=BLUR, max_frames=10):
        assert len(frame.faces) == 1
        assert not found(frame.bgr)
        assert not found(frame.image.to_ndarray(format="bgr24"))


def test_rows_are_the_same_with_and_without(media: Path, tmp_path: Path) -> None:
    source = next(media.glob("d03_*"))
    kept = []
    for name, config in (("plain.csv", None), ("blurred.csv", BLUR)):
        run(source, config=config, events=tmp_path / name, max_frames=12)
        kept.append([line for line in (tmp_path / name).read_text().splitlines() if ",run," not in line])
    assert len(kept[0]) > 12
    assert kept[0] == kept[1]


def test_every_frame_is_looked_at_whatever_the_interval(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    config = load_config(changes={"privacy": "blur", "detect.interval": 5, "backend": "fake"})
    looked = []
    frames = build(config, ["demo"], Options(max_frames=6, events=str(tmp_path / "rows.jsonl"), sinks=(_Seen(looked),)))
    frames.run()
    assert [frame.hidden is not None for frame in looked] == [True] * 6
    assert "interval of 5 is left aside" in caplog.text
    info = json.loads(json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["info"])
    assert info["settings"]["detect"]["interval"] == 1


class _Seen:
    name, best_effort = "seen", False

    def __init__(self, frames: list[Frame]) -> None:
        self._frames = frames

    def write(self, batch: Batch) -> None:
        self._frames += batch.frames

    def close(self) -> None:
        pass


# The stage alone: 100 × 80 pixels, a face of 20 × 20 in the middle, stripes that any mosaic destroys.

FACE = [40.0, 30.0, 60.0, 50.0]


def stripes(format: str = "yuv420p", width: int = 100, height: int = 80) -> av.VideoFrame:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, ::2] = (250, 200, 40)
    return av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=format)


def frame(
    index: int, boxes=(), *, track: int | None = None, kind: str = "video", image: av.VideoFrame | None = None, rate: int = 20
) -> Frame:
    image = image or stripes()
    xyxy = np.asarray(boxes, np.float32).reshape(-1, 4)
    tracked = xyxy[:0] if track is None else xyxy
    faces = sv.Detections(tracked, tracker_id=np.full(len(tracked), track or 0), data={"observed": np.ones(len(tracked), bool)})
    info = SourceInfo("s", kind, image.width, image.height)
    return Frame("s", 0, index, index, Fraction(1, rate), 0.0, image, info, faces=faces, hidden=xyxy)


def through(frames: list[Frame], **settings) -> list[bool]:
    """Is the face's place hidden, per frame, in order."""
    stage = Privacy(**settings)
    out = [stage.process(Batch([one])).frames for one in frames]
    out.append(stage.process(Batch([], [Ended("s", 0, "end of file", True)])).frames)
    flat = [one for part in out for one in part]
    assert all(a is b for a, b in zip(flat, frames, strict=True))
    return [hidden(one.image) for one in flat]


def hidden(image: av.VideoFrame, box=FACE) -> bool:
    x1, y1, x2, y2 = (int(value) for value in box)
    part = image.to_ndarray(format="gray")[y1:y2, x1:x2]
    return len(np.unique(part)) <= 16 and np.abs(np.diff(part.astype(int), axis=1)).mean() < 20


def test_before_the_first_and_after_the_last_sight_it_is_hidden_too() -> None:
    seen = [frame(i, [FACE] if 10 <= i <= 12 else []) for i in range(25)]
    assert [i for i, yes in enumerate(through(seen, hold_s=0.21, lookahead=8)) if yes] == list(range(6, 17))


def test_missed_frames_in_between_are_hidden() -> None:
    seen = [frame(i, [FACE] if i % 8 == 0 else []) for i in range(17)]
    assert all(through(seen, hold_s=0.21, lookahead=8))


def test_the_last_place_of_a_followed_face_stays_hidden_for_longer() -> None:
    seen = [frame(i, [FACE] if i < 3 else [], track=7) for i in range(40)]
    assert [i for i, yes in enumerate(through(seen, hold_s=0.21, lost_s=1.0)) if yes] == list(range(23))


def test_neighbours_count_however_slow_the_source() -> None:
    seen = [frame(i, [FACE] if i == 2 else [], rate=1) for i in range(5)]
    assert through(seen, hold_s=0.21) == [False, True, True, True, False]


def test_a_live_frame_leaves_at_once_and_is_hidden_from_the_first_sight_on() -> None:
    stage = Privacy(hold_s=0.21)
    out = [stage.process(Batch([frame(i, [FACE] if i == 3 else [], kind="live")])).frames for i in range(10)]
    assert [len(part) for part in out] == [1] * 10
    assert [i for i, part in enumerate(out) if hidden(part[0].image)] == [3, 4, 5, 6, 7]


def test_a_stream_that_changes_its_size_keeps_its_faces_hidden() -> None:
    seen = [frame(0, [FACE]), frame(1, [], image=stripes(width=200, height=160))]
    assert through(seen)[0]
    assert hidden(seen[1].image, [value * 2 for value in FACE])


def test_no_suspect_no_copy() -> None:
    one = frame(0)
    before = one.image
    assert Privacy().process(Batch([one, *(frame(i) for i in range(1, 9))])).frames[0].image is before


def test_memory_of_a_long_run_stays_small() -> None:
    stage = Privacy()
    for i in range(2000):
        stage.process(Batch([frame(i, [FACE], track=i // 10, image=_BLANK)]))
    (epoch,) = stage._epochs.values()
    assert len(epoch._moments) < 20
    assert len(epoch._last) < 20


_BLANK = av.VideoFrame(16, 16, "gray")


@pytest.mark.parametrize("format", ["yuv420p", "yuvj422p", "yuv444p", "nv12", "gray", "rgb24", "bgra", "yuv420p10le", "p010le", "gray16le",
                                    "yuva420p", "gbrp"])  # fmt: skip
def test_every_stored_format_keeps_its_format_and_what_lies_outside(format: str) -> None:
    image = stripes(format)
    before = [bytes(plane) for plane in image.planes]
    out = with_mosaics(image, np.array([FACE]))
    assert (out.format.name, out.width, out.height) == (format, 100, 80)
    assert hidden(out)
    assert [bytes(plane) for plane in image.planes] == before
    grey, plain = out.to_ndarray(format="gray"), image.to_ndarray(format="gray")
    assert (grey[:18] == plain[:18]).all()
    assert (grey[:, :28] == plain[:, :28]).all()


@pytest.mark.parametrize(
    ("format", "becomes"), [("yuyv422", "yuv422p"), ("yuv420p10be", "yuv422p"), ("rgb8", "bgr24"), ("monow", "yuv422p")]
)
def test_formats_without_whole_samples_are_converted(format: str, becomes: str) -> None:
    out = with_mosaics(stripes(format), np.array([FACE]))
    assert out.format.name == becomes
    assert hidden(out)


def test_palettes_are_converted() -> None:
    image = av.VideoFrame(100, 80, "pal8")
    np.frombuffer(image.planes[0], np.uint8)[:] = np.arange(image.planes[0].buffer_size) % 256
    np.frombuffer(image.planes[1], np.uint8)[:] = np.repeat(np.arange(256, dtype=np.uint8), 4)
    assert with_mosaics(image, np.array([FACE])).format.name == "bgr24"


def test_time_and_colour_tags_stay() -> None:
    image = stripes()
    image.pts, image.time_base, image.duration, image.colorspace, image.color_range = 17, Fraction(1, 90), 3, 1, 1
    out = with_mosaics(image, np.array([FACE]))
    assert (out.pts, out.time_base, out.duration, out.colorspace, out.color_range) == (17, Fraction(1, 90), 3, 1, 1)


def test_boxes_at_the_edge_and_beyond_it_are_cut() -> None:
    out = with_mosaics(stripes(), np.array([[-20.0, -10, 12, 12], [95, 75, 130, 120], [200, 200, 220, 220]]))
    assert hidden(out, [0, 0, 12, 12])
    assert hidden(out, [96, 76, 100, 80])
    assert not hidden(out)
