"""Some hundred kinds of video, made here by ffmpeg: as many rows and frames out as frames in, right in time, a face where one is.

Each runs through the whole pipeline in this process. The truth is what the clip was made of (`times`) and what PyAV alone decodes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import FRAMES, RATE, SIZE, combing, ffmpeg, film, needs_ffmpeg, plain_decode, portrait, torn
from command import faces, rows

from engines.classifier import Classifier
from engines.detector import Detector
from pipeline.api import run
from pipeline.errors import SourceError
from pipeline.sources.uri import open_source
from pipeline.types import Frame

pytestmark = needs_ffmpeg
Models = tuple[Detector, Classifier]
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0")
COVER = ("-f", "lavfi", "-i", "color=red:size=640x480:duration=0.04")
TITLES = ("-f", "srt", "-i", "data:text/plain,1%0A00:00:00,000 --> 00:00:00,400%0AHello%0A")
STEADY = tuple(k / RATE for k in range(FRAMES))


@dataclass(frozen=True)
class Case:
    """An input and what must come of it."""

    name: str
    """File name."""
    make: Callable[[Path], Any]
    """Writes the file."""
    times: tuple[float, ...] | None = STEADY
    """Seconds of the frames, counted from the first; None: only what PyAV decodes is known."""
    face: bool = True
    """In every frame."""
    size: tuple[int, int] | None = None
    """Of the annotated video; None: even up from SIZE, not looked at where the clip has its own."""
    why: str = ""
    own: bool = True
    """PyAV alone gives the container's frames and times. AVI has no times, and PyAV starts one frame late; it reads no animated WebP."""

    def __str__(self) -> str:
        return f"{self.why or 'plain'} ({self.name})"


def case(name: str, arguments: str, why: str = "", *, face: bool = True, out: tuple[int, int] | None = None,
         times: tuple[float, ...] | None = (), **film_options: Any) -> Case:  # fmt: skip
    """A clip that one call of ffmpeg makes; `times` (): those of its frames and rate."""
    made = film_options.get("size", SIZE)
    rate, frames = film_options.get("rate", RATE), film_options.get("frames", FRAMES)
    if times == ():
        times = tuple(k / rate for k in range(frames))
    out = out or (made[0] + made[0] % 2, made[1] + made[1] % 2)
    own = not name.endswith((".avi", ".webp"))
    return Case(name, lambda path: film(path, *arguments.split(), **film_options), times, face, out, why, own)


CODECS = [
    case("a.mp4", "-c:v libx264 -c:a aac -bf 2", "H.264 with B-frames, AAC", sound=True),
    case("a.mov", "-c:v libx264 -c:a pcm_s16le", "QuickTime, PCM", sound=True),
    case("a.mkv", "-c:v libx264 -c:a flac", "Matroska, FLAC", sound=True),
    case("a.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus", "VP9, Opus", sound=True),
    case("b.webm", "-c:v libvpx -deadline realtime -cpu-used 8 -c:a libvorbis", "VP8, Vorbis", sound=True),
    case("a.avi", "-c:v mpeg4 -bf 2 -q:v 3 -c:a libmp3lame", "MPEG-4 with B-frames in AVI, MP3", sound=True),
    case("b.avi", "-c:v mjpeg -q:v 3", "MJPEG in AVI"),
    case("a.ts", "-c:v libx264 -c:a mp2", "transport stream, MP2", sound=True),
    case("b.ts", "-c:v mpeg2video -q:v 3", "MPEG-2 in a transport stream"),
    case("a.mpg", "-c:v mpeg2video -q:v 3 -c:a mp2", "programme stream", sound=True),
    case("b.mpg", "-c:v mpeg1video -q:v 3", "MPEG-1"),
    case("a.vob", "-c:v mpeg2video -q:v 3 -c:a ac3", "DVD", sound=True),
    case("a.flv", "-c:v libx264 -c:a aac", "Flash, H.264", sound=True),
    case("b.flv", "-c:v flv -q:v 3", "Sorenson H.263"),
    case("a.ogv", "-c:v libtheora -q:v 7 -c:a libvorbis", "Theora", sound=True),
    case("b.mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=none", "HEVC"),
    case("c.mp4", "-c:v libaom-av1 -cpu-used 8 -usage realtime", "AV1"),
    case("b.mov", "-c:v prores_ks -c:a pcm_s24le", "ProRes", sound=True),
    case("b.mkv", "-c:v ffv1", "FFV1"),

    case("c.mov", "-s 256x120 -c:v dnxhd -profile:v dnxhr_lb -pix_fmt yuv422p", "DNxHR", out=(256, 120)),
    case("a.mxf", "-c:v mpeg2video -q:v 3 -c:a pcm_s16le -ar 48000", "MXF", sound=True),
    case("a.wmv", "-c:v wmv2 -q:v 3 -c:a wmav2", "Windows Media", sound=True),
    case("a.3gp", "-s 176x144 -c:v h263 -q:v 3", "H.263 of old phones", out=(176, 144)),
    case("c.mkv", "-c:v huffyuv", "HuffYUV"),
    case("d.mkv", "-c:v png", "PNG in Matroska"),
    case("c.avi", "-c:v rawvideo -pix_fmt yuv420p", "uncompressed"),
    case("d.mov", "-c:v jpeg2000", "JPEG 2000"),
    case("a.gif", "-c:v gif", "GIF, palette"),
    case("a.webp", "-c:v libwebp_anim -loop 0 -q:v 80", "animated WebP"),
    case("a.apng", "-c:v apng -f apng", "animated PNG"),
]  # fmt: skip

PIXELS = [
    case("odd.mkv", "-c:v ffv1", "odd sizes", size=(161, 121)),
    case("odd.mp4", "-c:v libx264 -pix_fmt yuv444p", "odd sizes, 4:4:4", size=(161, 121)),
    case("ten.mp4", "-c:v libx264 -pix_fmt yuv420p10le", "10 bits"),
    case("ten.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv422p10le", "HEVC, 10 bits, 4:2:2"),
    case("twelve.mkv", "-c:v ffv1 -pix_fmt yuv444p12le", "12 bits, 4:4:4"),
    case("sixteen.mkv", "-c:v ffv1 -pix_fmt gray16le", "16 bits, grey"),
    case("grey.mp4", "-c:v libx264 -pix_fmt gray", "grey"),
    case("alpha.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuva420p", "alpha in VP9"),
    case("alpha.mov", "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le", "alpha in ProRes 4444"),
    case("argb.mov", "-c:v qtrle -pix_fmt argb", "alpha in QuickTime RLE"),
    case("422.mov", "-c:v libx264 -pix_fmt yuv422p", "4:2:2"),
    case("444.mkv", "-c:v libx264 -pix_fmt yuv444p", "4:4:4"),
    case("410.avi", "-c:v cinepak", "Cinepak"),
    case("rgb.mkv", "-c:v libx264rgb -preset ultrafast", "RGB in H.264"),
    case("bgr16.avi", "-c:v rawvideo -pix_fmt rgb555le", "15 bits a pixel"),
    case("full.mp4", "-c:v libx264 -pix_fmt yuvj420p", "full range"),
    case("hdr.mp4", "-c:v libx264 -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc", "HDR tags"),
    case("wide.mp4", "-c:v libx264 -vf setsar=4/3", "anamorphic"),
    case("fields.ts", "-vf tinterlace=4 -c:v mpeg2video -q:v 3 -flags +ilme+ildct -top 1", "interlaced MPEG-2",
         frames=2 * FRAMES, rate=2 * RATE, times=STEADY),
    case("fields.mp4", "-vf tinterlace=4 -c:v libx264 -preset ultrafast -flags +ilme+ildct -x264opts tff=1", "interlaced H.264",
         frames=2 * FRAMES, rate=2 * RATE, times=STEADY),
    case("strip.mp4", "-c:v libx264 -preset ultrafast", "very wide", size=(2048, 64), frames=4, face=False),
    case("tower.mp4", "-c:v libx264 -preset ultrafast", "very tall", size=(64, 2048), frames=4, face=False),
    case("tiny.mp4", "-c:v libx264", "tiny", size=(16, 16), frames=4, face=False),
    case("speck.mkv", "-c:v ffv1", "one pixel", size=(1, 1), frames=4, face=False, times=tuple(k / RATE for k in range(4))),
    case("4k.mp4", "-c:v libx264 -preset ultrafast", "4K", size=(3840, 2160), frames=3, face=False),
]  # fmt: skip

TIMES = [
    case("one.mp4", "-c:v libx264", "one frame only", frames=1),
    case("fast.mp4", "-c:v libx264 -preset ultrafast", "240 fps", frames=48, rate=240),
    case("ntsc.mkv", "-c:v libx264", "29.97 fps", rate=Fraction(30000, 1001)),
    case("gaps.mp4", "-c:v libx264 -vf select=lt(n\\,5)+gt(n\\,9),setpts=PTS -vsync vfr", "a hole of 0.2 s",
         times=tuple(k / RATE for k in range(FRAMES) if not 5 <= k <= 9)),
    case("late.mkv", "-c:v libx264 -output_ts_offset 1000", "starts at 1000 s"),
    case("late.mp4", "-c:v libx264 -c:a aac -output_ts_offset 3", "starts at 3 s by an edit list", sound=True),
    case("wrap.ts", "-c:v libx264 -muxdelay 0 -muxpreload 0 -output_ts_offset 95443.4", "PTS that wrap"),
    case("wrap.mpg", "-c:v mpeg2video -q:v 3 -muxdelay 0 -muxpreload 0 -output_ts_offset 95443.4", "PTS that wrap, programme stream"),
    case("raw.h264", "-c:v libx264 -bf 0 -f h264", "raw H.264"),
    case("raw.hevc", "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=0 -f hevc", "raw HEVC"),
    case("raw.m4v", "-c:v mpeg4 -q:v 3 -f m4v", "raw MPEG-4"),
    case("raw.m2v", "-c:v mpeg2video -q:v 3 -f mpeg2video", "raw MPEG-2"),
    case("raw.mjpeg", "-c:v mjpeg -q:v 3 -f mjpeg", "raw MJPEG"),
    case("raw.ivf", "-c:v libvpx -deadline realtime -cpu-used 8 -f ivf", "IVF"),
    case("raw.y4m", "-pix_fmt yuv420p -f yuv4mpegpipe", "YUV4MPEG"),
    case("fragments.mp4", "-c:v libx264 -movflags frag_keyframe+empty_moov -g 5", "fragmented MP4"),
    Case("edit.mp4", lambda path: edited(path), None, why="an edit list that begins between key frames"),
    Case("size.ts", lambda path: two_sizes(path), tuple(k / RATE for k in range(2 * FRAMES)), why="another size midway"),
    Case("size.mjpeg", lambda path: two_sizes(path), tuple(k / RATE for k in range(2 * FRAMES)), why="another size midway, raw MJPEG"),
]  # fmt: skip

STREAMS = [
    case("cover.mp4", "-map 2 -map 0 -map 1 -c:v:0 mjpeg -disposition:v:0 attached_pic -c:v:1 libx264 -c:a aac",
         "cover art before the video", sound=True, extra=COVER),
    Case("cover.mkv", lambda path: covered(path), STEADY, why="cover art in Matroska"),
    case("two.mkv", "-map 0 -map 0 -s:v:0 80x60 -c:v libx264", "a small video stream before the large one"),
    case("sounds.mp4", "-map 1 -map 1 -map 0 -c:v libx264 -c:a:0 aac -b:a:0 32k -c:a:1 aac -b:a:1 128k",
         "two sound streams before the picture", sound=True),
    case("titles.mkv", "-map 1 -map 0 -c:v libx264 -c:s srt", "subtitles first", extra=TITLES),
]  # fmt: skip

NAMES = [
    case(name, "-c:v libx264 -preset ultrafast -f mp4", f"the name {name!r}", frames=3)
    for name in (
        "with space.mp4", "100%.mp4", "%03d.mp4", "a#b.mp4", "a:b.mp4", "file:a.mp4", "what?.mp4", "[x].mp4", "*.mp4", "😀 é.mp4", "none",
        "-v.mp4", "a'b\"c.mp4", "a\nb.mp4", "rtsp:.mp4", "{source}.mp4", "photo.jpg", "UPPER.MP4",
    )
]  # fmt: skip

DAMAGED = [
    Case("cut.mp4", lambda path: cut(path, "-movflags", "+faststart"), None, why="cut off behind its index"),
    Case("cut.mkv", lambda path: cut(path), None, why="cut off"),
    Case("cut.ts", lambda path: cut(path), None, why="cut off"),
    Case("cut.avi", lambda path: cut(path), None, why="cut off", own=False),
    Case("flipped.mp4", lambda path: flipped(path), None, face=False, why="bits flipped"),
    Case("flipped.mkv", lambda path: flipped(path), None, face=False, why="bits flipped"),
    Case("flipped.ts", lambda path: flipped(path), None, face=False, why="bits flipped"),
    Case("flipped.mjpeg", lambda path: flipped(path, "-c:v", "mjpeg"), None, face=False, why="bits flipped"),
]


@pytest.mark.parametrize("case", [*CODECS, *PIXELS, *TIMES, *STREAMS, *NAMES], ids=str)
def test_frames_in_are_rows_and_frames_out(case: Case, tmp_path: Path, models: Models) -> None:
    check(case, tmp_path, models)


@pytest.mark.parametrize("case", DAMAGED, ids=str)
def test_a_damaged_file_gives_what_can_be_decoded(case: Case, tmp_path: Path, models: Models) -> None:
    check(case, tmp_path, models, damaged=True)


def edited(path: Path) -> Path:
    """Copied from the 7th frame on: the frames between the key frame and it are in the file, and not to be shown."""
    whole = film(path.with_name("whole.mp4"), *X264, "-g", "5")
    return ffmpeg(path, "-ss", "0.28", "-i", f"file:{whole}", "-c", "copy")


def covered(path: Path) -> Path:
    cover = path.with_name("cover.jpg")
    cv2.imwrite(str(cover), portrait((640, 480)))
    return film(path, *X264, "-attach", str(cover), "-metadata:s:t", "mimetype=image/jpeg")


def two_sizes(path: Path) -> Path:
    """Two streams one behind the other, the second larger."""
    codec = ("-c:v", "mjpeg", "-q:v", "3") if path.suffix == ".mjpeg" else X264
    offset = ("-muxdelay", "0", "-muxpreload", "0") if path.suffix == ".ts" else ()
    first = film(path.with_name(f"first{path.suffix}"), *codec, *offset)
    late = ("-output_ts_offset", str(FRAMES / RATE)) if path.suffix == ".ts" else ()
    second = film(path.with_name(f"second{path.suffix}"), *codec, *offset, *late, size=(240, 160))
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def cut(path: Path, *arguments: str) -> Path:
    """The first 60 %."""
    film(path, *X264, "-g", "5", *arguments)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    return path


def flipped(path: Path, *arguments: str) -> Path:
    """Thirty bits between 30 and 70 % of the file flipped."""
    film(path, *(arguments or (*X264, "-g", "5")))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(7)
    for at in rng.integers(len(data) * 3 // 10, len(data) * 7 // 10, 30):
        data[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


def check(case: Case, folder: Path, models: Models, damaged: bool = False) -> None:
    """Frames in = rows = frames out; times to 1.5 ms; faces."""
    path = folder / case.name
    case.make(path)
    output, events = folder / "seen.mp4", folder / "seen.jsonl"
    with suppress(SourceError) if damaged else nullcontext():
        run(path, output=output, events=events, models=models)
    found = rows(events)
    said = sorted({(row["frame"], row["pts_s"]) for row in found if row["kind"] in ("face", "frame")})
    plain = plain_decode(path) if case.own or not case.times else [*case.times]
    assert [index for index, _ in said] == list(range(len(plain)))
    (account,) = json.loads(found[-1]["info"])["ledger"].values()
    assert account == {"decoded": len(plain), "shown": len(plain), "dropped": {}, "carried": 0}
    times = [t - said[0][1] for _, t in said]
    assert all(a < b for a, b in itertools.pairwise(times))
    if case.times is not None:
        assert len(plain) == len(case.times)
        assert worst(times, case.times) < 0.0015
    if case.own and None not in plain and all(a < b for a, b in itertools.pairwise(plain)):
        assert worst([t for _, t in said], plain) < 0.0015
    with av.open(str(output)) as container, av.open(f"file:{path}") as source:
        assert len(container.streams.audio) == min(1, len(source.streams.audio))
        written = list(container.decode(video=0))
    assert worst([float(image.pts * image.time_base) for image in written], times) < 0.0015
    if case.size:
        assert {(image.width, image.height) for image in written} == {case.size}
    if case.face:
        assert {row["frame"] for row in faces(found)} >= set(range(len(plain))) - (torn(path) if damaged else set())


def worst(some: list[float], others: Any) -> float:
    """Largest difference, seconds."""
    return max(abs(a - b) for a, b in zip(some, others, strict=True))


def test_interlaced_pictures_are_made_whole(tmp_path: Path) -> None:
    path = film(tmp_path / "fields.mp4", "-vf", "tinterlace=4", *X264, "-flags", "+ilme+ildct", "-x264opts", "tff=1",
                frames=24, rate=50, step=0.02)  # fmt: skip
    with av.open(str(path)) as container:
        plain = [image.to_ndarray(format="gray") for image in container.decode(video=0)]
    whole = [frame.image for frame in open_source(str(path)).frames() if isinstance(frame, Frame)]
    assert len(whole) == len(plain) == 12
    assert min(map(combing, plain)) > 1.0
    assert max(combing(image.to_ndarray(format="gray")) for image in whole) < 0.7
    assert {image.format.name for image in whole} == {"yuv420p"}
    assert {image.duration for image in whole} == {whole[0].duration}
    assert whole[0].duration * whole[0].time_base == pytest.approx(1 / 25)


@pytest.mark.parametrize(("name", "arguments"), [
    ("fields.mp4", "-vf tinterlace=4 -c:v libx264 -preset ultrafast -g 10 -flags +ilme+ildct -x264opts tff=1"),
    ("wrap.ts", "-vf tinterlace=4 -c:v libx264 -preset ultrafast -g 10 -muxdelay 0 -muxpreload 0 -output_ts_offset 95441"),
])  # fmt: skip
def test_a_part_has_the_frames_and_times_of_the_whole(name: str, arguments: str, tmp_path: Path) -> None:
    path = film(tmp_path / name, *arguments.split(), frames=200, rate=50, size=(64, 48))
    whole = [frame for frame in open_source(str(path)).frames() if isinstance(frame, Frame)]
    part = [frame for frame in open_source(str(path), start_s=3.0, end_s=3.4).frames() if isinstance(frame, Frame)]
    assert [frame.pts for frame in part] == [frame.pts for frame in whole[75:85]]
    for ours, theirs in zip(part[1:], whole[76:85], strict=True):  # the first had no neighbour to be made of
        assert np.array_equal(ours.image.to_ndarray(), theirs.image.to_ndarray())


def test_pixels_that_are_not_square_stay_so(tmp_path: Path, models: Models) -> None:
    """Of the stream that was read: the small one in front of it has square pixels."""
    path = film(tmp_path / "wide.mkv", "-map", "0", "-map", "0", *X264, "-s:v:0", "80x60", "-aspect:v:0", "4:3", "-aspect:v:1", "16:9")
    run(path, output=tmp_path / "seen.mp4", models=models)
    with av.open(str(tmp_path / "seen.mp4")) as container:
        assert container.streams.video[0].display_aspect_ratio == Fraction(16, 9)


def test_of_several_sounds_the_first_is_copied(tmp_path: Path, models: Models) -> None:
    sounds = ("-map", "0", "-map", "1", "-map", "1", "-c:a:0", "libmp3lame", "-c:a:1", "aac", "-ac:a:1", "2")
    path = film(tmp_path / "sounds.mkv", *X264, *sounds, sound=True)
    run(path, output=tmp_path / "seen.mp4", models=models)
    with av.open(str(tmp_path / "seen.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["mp3float"]
