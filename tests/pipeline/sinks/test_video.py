"""The annotated video: time, sound, sizes, kills, faults."""

from __future__ import annotations

import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import SinkError, UsageError
from pipeline.flow.batch import Batch
from pipeline.planes import planes
from pipeline.sinks.video import VideoSink
from pipeline.types import Frame, SourceInfo

VFR = ["d04_face_then_none_hevc_vfr.mov", "d11_vfr_frown_to_surprise.mp4"]
SOUND = ["d01_walkers_crossing_1080p.mp4", "d03_neutral_to_smile.mp4", "d04_face_then_none_hevc_vfr.mov", "d12_leaves_and_reenters.mp4"]


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
@pytest.mark.parametrize("clip", VFR)
def test_a_variable_rate_is_kept_exactly(media, tmp_path, make, clip, preset):
    out = tmp_path / "out.mp4"
    frames = make.drive(VideoSink(out, preset=preset), make.frames_of(media / clip))
    first = frames[0].pts
    assert make.video_times(out) == [(frame.pts - first) * frame.time_base for frame in frames]
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.time_base == frames[0].time_base


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("clip", SOUND)
def test_sound_is_the_same_packets_at_the_same_time(media, tmp_path, make, clip, suffix):
    out = tmp_path / f"out{suffix}"
    make.drive(VideoSink(out), make.frames_of(media / clip, with_faces=False))
    assert make.audio_packets(out) == make.audio_packets(media / clip)


def test_matroska_holds_picture_and_sound_from_zero_on(media, tmp_path, make):
    out = tmp_path / "out.mkv"
    frames = make.drive(VideoSink(out), make.frames_of(media / "d12_leaves_and_reenters.mp4"))
    times = make.video_times(out)
    assert times[0] == 0
    assert np.allclose([float(time) for time in times], [frame.pts_s - frames[0].pts_s for frame in frames], atol=0.001)
    got, want = make.audio_packets(out), make.audio_packets(media / "d12_leaves_and_reenters.mp4")
    assert [data for _, data in got] == [data for time, data in want if time >= 0]  # it has no edit lists for priming packets


@pytest.mark.parametrize(
    ("clip", "suffix", "preset"),
    [("d04_face_then_none_hevc_vfr.mov", ".mp4", "ultrafast"), ("d04_face_then_none_hevc_vfr.mov", ".mkv", "ultrafast"),
     ("d08_three_people_walk_and_pause.mp4", ".mp4", "medium"), ("d12_leaves_and_reenters.mp4", ".mov", "medium")],
)  # fmt: skip
def test_a_killed_run_plays_from_its_second_second_on(media, tmp_path, make, clip, suffix, preset):
    # d04: its sound begins at 2.4 s, which would hold the header back; d08: 12 frames per second and no sound.
    out = tmp_path / f"out{suffix}"
    code = f"""
import os, signal, sys
sys.path[:0] = [{str(Path.cwd())!r}, {str(Path(__file__).parent)!r}]
from conftest import frames_of
from pathlib import Path
from pipeline.flow.batch import Batch
from pipeline.sinks.video import VideoSink
sink = VideoSink({str(out)!r}, preset={preset!r})
for frame in frames_of(Path({str(media / clip)!r})):
    sink.write(Batch([frame]))
    if frame.pts_s >= 2:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    times = make.video_times(out)
    assert times[0] == 0
    assert times[-1] >= 1.0


def test_a_cut_run_takes_the_sound_of_its_range(media, tmp_path, make):
    out, clip = tmp_path / "out.mp4", media / "d12_leaves_and_reenters.mp4"
    frames = make.drive(VideoSink(out), make.frames_of(clip, start_s=2.0, end_s=5.0))
    times = make.video_times(out)
    assert (times[0], len(times)) == (0, len(frames))
    got, zero = make.audio_packets(out), frames[0].pts * frames[0].time_base
    want = dict(make.audio_packets(clip))
    assert all(want[time + zero] == data for time, data in got)
    assert -0.03 < got[0][0] <= 0
    assert 2.9 < got[-1][0] <= 3.0


def test_a_stopped_run_has_no_sound_after_its_last_frame(media, tmp_path, make):
    out = tmp_path / "out.mp4"
    sink = VideoSink(out)
    make.drive(sink, make.frames_of(media / "d12_leaves_and_reenters.mp4", limit=60), ended=False)
    assert len(make.video_times(out)) == 60
    assert 1.9 < make.audio_packets(out)[-1][0] <= 2.0


def test_the_second_sink_of_a_fault_still_leaves_a_whole_file(media, tmp_path, make):
    out = tmp_path / "out.mp4"
    sink = VideoSink(out)
    make.drive(sink, make.frames_of(media / "d05_no_face_bottles.mp4", limit=20), ended=False)
    sink.close()
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames == 20  # an ordinary index, not fragments
        assert container.metadata["comment"].endswith("Purpose: not declared")


def test_odd_sides_are_padded_by_one_pixel(tmp_path, make):
    out = tmp_path / "out.mp4"
    make.drive(VideoSink(out, crf=1), [make.frame(i, image=make.picture(63, 47)) for i in range(5)])
    with av.open(str(out)) as container:
        image = next(container.decode(video=0))
    assert (image.width, image.height) == (64, 48)
    y = planes(image)[0].astype(int)
    assert abs(y[:, 63] - y[:, 62]).max() < 12  # the edge repeated, no black line
    assert abs(y[47] - y[46]).max() < 12


def test_later_sizes_are_letterboxed_into_the_first(tmp_path, make):
    out = tmp_path / "out.mp4"
    sizes = [(64, 48)] * 3 + [(48, 96)] * 3 + [(63, 47)] * 2
    frames = [make.frame(i, image=make.picture(*size, shade=120), faces=make.faces([[5, 5, 20, 20]])) for i, size in enumerate(sizes)]
    make.drive(VideoSink(out, crf=1, draw=False), frames)
    with av.open(str(out)) as container:
        images = list(container.decode(video=0))
    assert {(image.width, image.height) for image in images} == {(64, 48)}
    assert len(images) == 8
    y = planes(images[4])[0]
    assert y[:, :16].max() < 30  # 48 × 96 fits as 24 × 48, black beside
    assert y[:, 24:40].min() > 90


@pytest.mark.parametrize("format", ["yuv444p", "yuv420p10le", "gray", "yuvj420p", "rgb24", "nv12", "yuv422p"])
def test_other_pixel_formats_become_limited_yuv420p_of_the_same_brightness(tmp_path, make, format):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)  # from black to white
    out, image = tmp_path / "out.mp4", av.VideoFrame.from_ndarray(ramp, "rgb24").reformat(format=format)
    make.drive(VideoSink(out, crf=1), [make.frame(i, image=image) for i in range(3)])
    with av.open(str(out)) as container:
        decoded = next(container.decode(video=0))
    assert decoded.format.name == "yuv420p"
    assert abs(ramp.astype(int) - decoded.to_ndarray(format="rgb24")).max() < 8


def test_full_range_is_never_tagged_on_limited_pixels(tmp_path, make):
    image = make.picture(64, 48)
    image.color_range = 2  # yuv420p, tagged full range, as phones do
    out = tmp_path / "out.mp4"
    make.drive(VideoSink(out), [make.frame(image=image)])
    with av.open(str(out)) as container:
        decoded = next(container.decode(video=0))
    assert decoded.color_range != 2
    assert planes(decoded)[0].min() == pytest.approx(16 + int(planes(image)[0].min()) * 219 / 255, abs=4)


def test_a_live_source_gets_a_clock_of_90_khz_and_begins_at_zero(tmp_path, make):
    out = tmp_path / "out.mp4"
    info = SourceInfo("cam", "live", 64, 48)
    frames = [Frame("cam", 0, i, pts, Fraction(1, 1000), 0.0, make.picture(), info) for i, pts in enumerate((5000, 5033, 5100, 9000, 9001))]
    make.drive(VideoSink(out), frames)
    assert make.video_times(out) == [Fraction(pts - 5000, 1000) for pts in (5000, 5033, 5100, 9000, 9001)]
    with av.open(str(out)) as container:
        assert container.streams.video[0].time_base == Fraction(1, 90000)


def test_pixels_that_are_not_square_stay_so(tmp_path, make):
    clip, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with av.open(str(clip), "w") as container:
        video = container.add_stream("libx264", 25)
        video.width, video.height = 64, 48
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)
        image = make.picture()
        image.pts, image.time_base = 0, Fraction(1, 25)
        container.mux(video.encode(image))
        container.mux(video.encode(None))
    make.drive(VideoSink(out), make.frames_of(clip))
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio == Fraction(4, 3)


def test_a_shared_frame_is_not_written_into(tmp_path, make):
    image = make.picture()
    before = [plane.copy() for plane in planes(image)]
    make.drive(VideoSink(tmp_path / "out.mp4"), [make.frame(image=image, faces=make.faces([[5, 5, 40, 40]]))])
    assert all((plane == old).all() for plane, old in zip(planes(image), before, strict=True))


def test_only_its_source_is_written_and_nothing_before_a_frame(tmp_path, make):
    out = tmp_path / "out.mp4"
    sink = VideoSink(out, "a")
    sink.write(Batch([make.frame(source="b")], [make.end_of("b")]))
    assert not out.exists()
    sink.write(Batch([make.frame(source="a"), make.frame(source="b")]))
    sink.close()
    sink.close()
    assert len(make.video_times(out)) == 1


def test_without_a_frame_close_makes_nothing(tmp_path):
    VideoSink(tmp_path / "out.mp4").close()
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_not_replaced_unless_asked(tmp_path, make):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    with pytest.raises(SinkError, match="exists; --overwrite"):
        VideoSink(out).write(Batch([make.frame()]))
    assert out.read_bytes() == b"precious"
    make.drive(VideoSink(out, overwrite=True, purpose="a test", title="clip"), [make.frame()])
    with av.open(str(out)) as container:
        assert (container.metadata["title"], container.metadata["comment"]) == ("clip", "Faces analysed by fer-stream. Purpose: a test")


def test_an_unknown_suffix_is_refused_at_once():
    with pytest.raises(UsageError, match=r"\.mp4, \.mov or \.mkv, got \.avi"):
        VideoSink("out.avi")


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path, make):
    with pytest.raises(SinkError, match=r"cannot write the video .*No such file"):
        VideoSink(tmp_path / "no" / "out.mp4").write(Batch([make.frame()]))


def test_a_full_disk_is_one_sentence_and_leaves_what_was_written_readable(media, tmp_path, make):
    # RLIMIT_FSIZE stands in for the disk: write() fails with EFBIG.
    out = tmp_path / "out.mp4"
    code = f"""
import resource, signal, sys
sys.path[:0] = [{str(Path.cwd())!r}, {str(Path(__file__).parent)!r}]
from conftest import drive, frames_of
from pathlib import Path
from pipeline.errors import SinkError
from pipeline.sinks.video import VideoSink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
sink = VideoSink({str(out)!r})
try:
    drive(sink, frames_of(Path({str(media / "d12_leaves_and_reenters.mp4")!r})))
except SinkError as error:
    sink.close()
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"cannot write the video {out}: File too large"
    assert len(make.video_times(out)) > 15
