"""Video files: every frame once, upright, at the container's own time."""

import json
import os
import threading
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from reading import read

from pipeline.errors import SourceError
from pipeline.flow.batch import Ended
from pipeline.sources.pacing import Pacer
from pipeline.sources.upright import Upright
from pipeline.sources.uri import open_source
from pipeline.sources.video import VideoSource
from pipeline.types import Frame

CLIPS = [
    "d01_walkers_crossing_1080p.mp4",
    "d02_sad_to_laugh.mp4",
    "d03_neutral_to_smile.mp4",
    "d04_face_then_none_hevc_vfr.mov",
    "d05_no_face_bottles.mp4",
    "d06_classroom_occluder.mp4",
    "d07_street_crowd.mp4",
    "d08_three_people_walk_and_pause.mp4",
    "d09_two_people_head_tilt.mp4",
    "d10_portrait_rotation_matrix.mp4",
    "d11_vfr_frown_to_surprise.mp4",
    "d12_leaves_and_reenters.mp4",
    "d13_dark_noisy_turning.mp4",
]


@pytest.mark.parametrize("clip", CLIPS)
def test_real_clips_have_the_frames_and_times_of_the_truth_and_of_a_plain_decode(
    media: Path, clip: str, plain_pts: Callable[[Path], list[tuple[int, Fraction]]]
) -> None:
    truth = json.loads((media / "truth.json").read_text())[clip]
    frames, ended = read(media / clip)
    assert (len(frames), ended.reason, ended.failed) == (truth["frames"], "end of file", False)
    assert frames[0].pts_s == pytest.approx(truth["first_pts"], abs=0.001)
    assert frames[-1].pts_s == pytest.approx(truth["last_pts"], abs=0.006)
    assert [(frame.pts, frame.time_base) for frame in frames] == plain_pts(media / clip)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(frame.image.pts == frame.pts and frame.image.time_base == frame.time_base for frame in frames)
    info = frames[0].info
    assert (info.kind, info.path, info.name, info.frames) == ("video", str(media / clip), str(media / clip), truth["frames"])
    assert info.has_audio == (truth["audio"] is not None)
    assert info.duration_s == pytest.approx(truth["duration"], abs=0.1)
    size = (truth["h"], truth["w"]) if truth["rotation"] else (truth["w"], truth["h"])
    assert (info.width, info.height) == (frames[0].width, frames[0].height) == size
    assert frames[0].image.format.name == "yuv420p"


def test_a_phone_clip_stands_upright_and_keeps_no_matrix(media: Path) -> None:
    frames, _ = read(media / "d10_portrait_rotation_matrix.mp4", max_frames=3)
    reader = cv2.VideoCapture(str(media / "d10_portrait_rotation_matrix.mp4"))
    for frame in frames:
        assert frame.image.rotation == 0
        difference = cv2.absdiff(frame.bgr, reader.read()[1]).mean()
        assert difference < 2.0, "OpenCV turns it by itself"
    reader.release()


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
        ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
        ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
        ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
        ((1, 0, 0, -1), lambda a: a[::-1]),
        ((0, 1, 1, 0), lambda a: a.T),
        ((0, -1, -1, 0), lambda a: np.rot90(a, 2).T),
        ((1, 0, 0, 1), lambda a: a),
    ],
)
def test_all_eight_orientations_are_turned(
    make_video: Callable[..., Path], tmp_path: Path, matrix: tuple[int, ...], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    """The display matrix of the track header is patched in the file: PyAV can set rotations, but no flips."""
    path = make_video(frames=2, rotation=90)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (value * 65536 for value in matrix)
    data[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    path.write_bytes(data)
    with av.open(str(path)) as container:
        plain = next(container.decode(video=0))
        pattern = np.arange(48 * 64, dtype=np.uint32).reshape(48, 64)
        luma = (pattern % 251).astype(np.uint8)
        plain.make_writable()
        rows = np.zeros((48, plain.planes[0].line_size), np.uint8)
        rows[:, :64] = luma
        plain.planes[0].update(rows.tobytes())
        turned = Upright()(plain)
    wanted = expected(luma)
    plane = np.frombuffer(memoryview(turned.planes[0]), np.uint8).reshape(turned.height, -1)[:, : turned.width]  # type: ignore[arg-type]
    assert (turned.height, turned.width) == wanted.shape
    assert np.array_equal(plane, wanted)
    assert (turned.pts, turned.time_base, turned.format.name) == (plain.pts, plain.time_base, "yuv420p")


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (1, 1)])
def test_odd_sizes_come_as_they_are(make_video: Callable[..., Path], size: tuple[int, int]) -> None:
    frames, _ = read(make_video("a.mkv", codec="ffv1", size=size, frames=3))
    assert [(frame.width, frame.height) for frame in frames] == [size] * 3


def test_a_size_that_changes_midway_passes_through(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    first, second = make_video("a.h264", frames=10), make_video("b.h264", frames=10, size=(96, 80))
    joined = tmp_path / "joined.h264"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    frames, _ = read(joined)
    assert {(frame.width, frame.height) for frame in frames} == {(64, 48), (96, 80)}
    assert all(a.pts < b.pts for a, b in pairwise(frames))


def test_joined_transport_streams_go_on_in_time(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    one = make_video("a.ts", frames=100)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() * 2)
    frames, _ = read(joined)
    steps = [b.pts - a.pts for a, b in pairwise(frames)]
    assert len(frames) == 200
    assert set(steps) == {3600}


def test_short_recordings_joined_have_their_time_each(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(make_video("a.ts", frames=10).read_bytes() * 3)
    frames, _ = read(joined)
    assert [b.pts - a.pts for a, b in pairwise(frames)] == [3600] * 29


@pytest.mark.parametrize(("rotation", "shape"), [(0, Fraction(4, 3)), (90, Fraction(3, 4)), (180, Fraction(4, 3))])
def test_pixels_of_a_square_picture_are_turned_with_it(make_video: Callable[..., Path], rotation: int, shape: Fraction) -> None:
    frames, _ = read(make_video(size=(64, 64), frames=2, shape=Fraction(4, 3), rotation=rotation))
    assert frames[0].info.pixel_shape == shape


def test_the_largest_real_video_stream_is_read_not_the_cover(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as out:
        streams = []
        for size in ((320, 240), (32, 24), (64, 48)):
            stream = out.add_stream("mjpeg" if size[0] == 320 else "libx264", rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p" if size[0] == 320 else "yuv420p"
            if size[0] == 320:
                stream.disposition = av.stream.Disposition.attached_pic
            streams.append(stream)
        for k in range(5):
            for stream in streams:
                frame = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    frames, _ = read(path)
    assert (frames[0].width, len(frames)) == (64, 5)


def test_without_audio_the_info_says_so(make_video: Callable[..., Path]) -> None:
    assert not read(make_video("silent.mp4"))[0][0].info.has_audio
    assert read(make_video("sound.mp4", audio=True))[0][0].info.has_audio


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.mp4", b"", "is empty (0 bytes)"),
        ("text.mp4", b"hello world\n" * 200, "cannot be read as a video"),
        ("text.txt", b"hello world\n" * 200, "is a text"),
        ("noise.mkv", bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8)), "cannot be read as a video"),
    ],
)
def test_what_is_no_video_is_one_sentence(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    source = open_source(str(path))
    with pytest.raises(SourceError) as caught:
        list(source.frames())
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (source.state, caught.value.exit_code) == ("FAILED", 1)


def test_sound_alone_has_no_video_stream(make_video: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match="has no video stream; expected a video, got audio"):
        list(open_source(str(make_video("sound.m4a", audio=True, video=False))).frames())


def test_a_recording_without_its_index_says_so(media: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes((media / "d03_neutral_to_smile.mp4").read_bytes()[:150_000])
    with pytest.raises(SourceError, match=r"without its index \(moov\)"):
        list(open_source(str(path)).frames())


def test_a_cut_download_gives_its_frames_and_ends_failed(media: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (media / "d02_sad_to_laugh.mp4").read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    frames, ended = read(path)
    assert 100 < len(frames) < 200
    assert ended.failed
    assert ended.reason == f"failed: the file is cut off (a broken download or recording) after {len(frames)} frames"
    assert len(caplog.records) == 1


def test_damaged_packets_are_left_out_and_counted(media: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = bytearray((media / "d02_sad_to_laugh.mp4").read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 60_000] = np.random.default_rng(0).integers(0, 256, 60_000, np.uint8).tobytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(damaged)
    frames, ended = read(path)
    assert 200 < len(frames) <= 288
    assert not ended.failed
    assert "packets of it are damaged" in ended.reason
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert len(caplog.records) == 1


def test_closing_the_generator_closes_the_file(make_video: Callable[..., Path]) -> None:
    path = make_video()
    source = open_source(str(path))
    frames = source.frames()
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    if Path("/proc/self/fd").exists():
        assert str(path) not in [os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.exists()]


def test_an_interrupt_ends_it_with_stopped(make_video: Callable[..., Path]) -> None:
    source = open_source(str(make_video()))
    frames = source.frames()
    next(frames)
    source.interrupt()
    source.interrupt()
    *rest, ended = frames
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.failed, len(rest) <= 1, source.state) == ("stopped", False, True, "ENDED")


class Hand:
    """A clock that moves when somebody waits on it."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def test_realtime_lets_frames_out_at_the_distance_of_their_pts(media: Path) -> None:
    hand = Hand()
    source = VideoSource(media / "d11_vfr_frown_to_surprise.mp4", realtime=True, max_frames=60, clock=hand, wait=hand.wait)
    assert not source.live  # a file still: nothing of it is dropped
    frames = [frame for frame in source.frames() if isinstance(frame, Frame)]
    assert [frame.captured_at - 100.0 for frame in frames] == pytest.approx([frame.pts_s for frame in frames])
    assert len(hand.waits) == len(frames) - 1, "one pause a frame: no busy loop"


def test_realtime_catches_up_after_being_held_up(make_video: Callable[..., Path]) -> None:
    hand = Hand()
    source = VideoSource(make_video(), realtime=True, clock=hand, wait=hand.wait)
    times = []
    for number, frame in enumerate(source.frames()):
        if isinstance(frame, Frame):
            times.append(frame.captured_at - 100.0)
        if number == 4:
            hand.now += 0.2
    assert times[:5] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert times[5:10] == pytest.approx([0.36, 0.36, 0.36, 0.36, 0.36])
    assert times[10:12] == pytest.approx([0.4, 0.44])


def test_an_interrupt_ends_a_pause_at_once(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(frames=3, rate=1)
    waiting = threading.Event()
    source: VideoSource

    def wait(seconds: float) -> bool:
        waiting.set()
        return source._stop.wait(60)

    source = VideoSource(path, realtime=True, wait=wait)
    got: list[Frame | Ended] = []
    thread = threading.Thread(target=lambda: got.extend(source.frames()))
    thread.start()
    assert waiting.wait(10)
    source.interrupt()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(got[-1], Ended)
    assert got[-1].reason == "stopped"


def test_a_pacer_begins_anew_where_numbers_jump_further_than_it_is_told() -> None:
    hand = Hand()
    pacer = Pacer(hand, hand.wait, rebase_s=10.0)
    for pts_s in (0.0, 1.0, 3601.0, 3602.0, 2.0, 3.0):
        assert pacer.due(pts_s)
    assert hand.waits == [1.0, 1.0, 1.0]
