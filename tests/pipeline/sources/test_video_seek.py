"""Parts of video files: from a second on, up to another, so many frames; the same frames as a full decode gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reading import greys, read

from pipeline.errors import SourceError
from pipeline.sources.uri import open_source

CLIPS = [
    "d01_walkers_crossing_1080p.mp4",
    "d02_sad_to_laugh.mp4",
    "d04_face_then_none_hevc_vfr.mov",
    "d11_vfr_frown_to_surprise.mp4",
]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (2.5, 3.5), (3.0, None), (3.96, 4.0)])
def test_start_and_end_give_the_same_frames_as_a_full_decode(media: Path, clip: str, start: float, end: float | None) -> None:
    full, _ = read(media / clip)
    tick = float(full[0].time_base)
    wanted = [f for f in full if f.pts_s >= start - tick / 2 and (end is None or f.pts_s < end - tick / 2)]
    frames, ended = read(media / clip, start_s=start, end_s=end)
    assert [frame.pts for frame in frames] == [frame.pts for frame in wanted]
    assert [frame.index for frame in frames] == list(range(len(wanted)))
    assert ended.reason == ("end of file" if end is None else "end of the part that was asked for")
    for ours, theirs in zip(frames[:3], wanted[:3], strict=True):
        assert np.array_equal(ours.image.to_ndarray(), theirs.image.to_ndarray())
    assert (frames[0].info.start_s, frames[0].info.end_s) == (start, end)
    assert frames[0].info.frames == pytest.approx(len(wanted), abs=12), "for progress only"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.h264", "a.mov"])
@pytest.mark.parametrize(("start", "end"), [(None, None), (1.0, 2.0), (6.0, None)])
def test_containers_give_each_frame_at_its_own_time(
    make_video: Callable[..., Path], name: str, start: float | None, end: float | None
) -> None:
    path = make_video(name, frames=200)
    frames, _ = read(path, start_s=start, end_s=end)
    first, last = round((start or 0) * 25), 200 if end is None else round(end * 25)
    zero = read(path, max_frames=1)[0][0].pts_s
    assert greys(frames) == [k % 32 for k in range(first, last)]
    assert [frame.pts_s - zero for frame in frames] == pytest.approx([k / 25 for k in range(first, last)], abs=0.001)


def test_numbers_that_do_not_begin_at_zero_are_kept_and_start_counts_from_the_first_frame(make_video: Callable[..., Path]) -> None:
    path = make_video(first_pts=250, frames=100)
    frames, _ = read(path)
    assert (frames[0].pts_s, frames[-1].pts_s) == (10.0, 13.96)
    frames, _ = read(path, start_s=3.0)
    assert (frames[0].pts_s, len(frames), greys(frames[:1])) == (13.0, 25, [75 % 32])


@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_where_a_tick_is_a_frame_a_part_begins_and_ends_at_the_same_ones(make_video: Callable[..., Path], name: str) -> None:
    frames, _ = read(make_video(name, frames=50), start_s=1.05, end_s=1.45)
    assert greys(frames) == [k % 32 for k in range(27, 37)]


def test_max_frames_ends_the_source(make_video: Callable[..., Path]) -> None:
    frames, ended = read(make_video(), max_frames=7)
    assert (len(frames), ended.reason, ended.failed) == (7, "end of the part that was asked for", False)
    assert frames[0].info.frames == 7


def test_a_start_behind_the_end_says_how_long_the_video_is(make_video: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match=r"of 1.20 s has no frame from 9.0 s on"):
        list(open_source(str(make_video()), start_s=9.0).frames())


def test_reading_many_times_and_leaving_early_never_hangs(media: Path) -> None:
    """With any FFmpeg log level set, PyAV deadlocked here (see quiet.py)."""
    for start in (3.0, 5.5, 7.2, 9.1) * 3:
        frames, _ = read(media / "d02_sad_to_laugh.mp4", start_s=start, end_s=start + 1)
        assert len(frames) == 24
