"""Which encoder makes the video: H.264, HEVC or AV1 by name, or a machine's own by its ffmpeg name.

`preset` and `crf` are x264's words; each encoder gets what comes closest in its own. HEVC at crf + 5 and AV1 at crf × 35/23
look as H.264 does at crf (x265's default of 28 and SVT-AV1's of 35 stand for x264's 23). Encoders are told to hold back
few frames, for the file must open early (see video.py). Hardware encoders are listed by every build of ffmpeg, so whether
one is really there shows only when it is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
from av.codec import Codec

from pipeline.errors import UsageError

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")

_SOFTWARE = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
_HARDWARE = tuple(f"{codec}_{maker}" for maker in ("nvenc", "qsv", "amf", "videotoolbox") for codec in ("h264", "hevc", "av1"))


@dataclass(frozen=True)
class Encoder:
    """How a stream is opened."""

    name: str
    """ffmpeg's: "libx264"."""
    pix_fmt: str
    """"yuv420p", or "nv12" where the encoder takes nothing else."""
    options: dict[str, str]
    codec_tag: str | None = None
    """What MP4 and MOV call it where that is not libavformat's own choice."""


def check_codec(codec: str, path: str | os.PathLike[str], preset: str = "ultrafast") -> None:
    """UsageError unless `codec` can be encoded here and held by the container of `path`."""
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset} is not one of x264's: {', '.join(PRESETS)}")
    if codec not in _SOFTWARE and codec not in _HARDWARE and codec not in _SOFTWARE.values():
        raise UsageError(f"--codec {codec} is not known; here are {', '.join(available())}")
    if not opens(_SOFTWARE.get(codec, codec)):
        why = "no such device or driver" if codec in _HARDWARE else "PyAV was built without it"
        raise UsageError(f"--codec {codec} cannot be used on this machine ({why}); here are {', '.join(available())}")
    if codec_of(codec) == "av1" and Path(path).suffix.lower() == ".mov":
        raise UsageError(f"--codec {codec}: a .mov file holds no AV1, got {os.fspath(path)}; use .mp4 or .mkv")


def available() -> list[str]:
    """What `--codec` takes on this machine."""
    return [codec for codec in (*_SOFTWARE, *_HARDWARE) if opens(_SOFTWARE.get(codec, codec))]


def codec_of(codec: str) -> str:
    """ "h264", "hevc" or "av1", of an encoder's name too."""
    return next((known for known, name in _SOFTWARE.items() if name == codec), codec.partition("_")[0])


def encoder(codec: str, *, preset: str, crf: int, lookahead: int, threads: int) -> Encoder:
    """`codec` as given to --codec. `lookahead`: most frames to hold back for a better picture; `threads`: of software."""
    speed, name = PRESETS.index(preset), _SOFTWARE.get(codec, codec)
    quality = {"h264": crf, "hevc": min(crf + 5, 51), "av1": min(round(crf * 35 / 23), 63)}[codec_of(codec)]
    tag = "hvc1" if codec_of(codec) == "hevc" else None  # Apple's players take no "hev1"
    if name == "libx264":
        options = {"preset": preset, "crf": str(crf), "threads": str(threads)}
        if speed > 1:  # the two fastest look ahead by 0 frames on their own
            options["rc-lookahead"] = str(lookahead)
        return Encoder(name, "yuv420p", options)
    if name == "libx265":
        tuned = f"log-level=error:rc-lookahead={lookahead}:frame-threads=1:pools={threads}:bframes={min(4, lookahead // 2)}"
        return Encoder(name, "yuv420p", {"preset": preset, "crf": str(quality), "x265-params": tuned}, tag)
    if name == "libsvtav1":  # low delay: its pyramids of 32 frames would keep the file shut for seconds
        level = (12, 11, 10, 9, 8, 7, 6, 4, 2, 1)[speed]
        return Encoder(name, "yuv420p", {"preset": str(level), "crf": str(quality), "svtav1-params": f"pred-struct=1:lp={min(threads, 6)}"})
    if name.endswith("_nvenc"):
        steps = {"preset": f"p{(1, 1, 2, 3, 3, 4, 5, 6, 7, 7)[speed]}", "rc": "vbr", "cq": str(quality), "b": "0"}
        return Encoder(name, "yuv420p", {**steps, "rc-lookahead": "0" if speed <= 1 else str(lookahead), "delay": "0"}, tag)
    if name.endswith("_qsv"):
        steps = {"preset": ("veryfast", "veryfast", *PRESETS[2:9], "veryslow")[speed], "global_quality": str(quality)}
        return Encoder(name, "nv12", {**steps, "async_depth": "1"}, tag)
    if name.endswith("_amf"):
        way = "speed" if speed <= 3 else "balanced" if speed <= 5 else "quality"
        step = str(quality * 4 if name == "av1_amf" else quality)  # AV1 counts to 255
        return Encoder(name, "nv12", {"quality": way, "rc": "cqp", "qp_i": step, "qp_p": step}, tag)
    # VideoToolbox: 1…100, higher is better; ffmpeg's unit is 118 times that.
    return Encoder(name, "nv12", {"flags": "+qscale", "global_quality": str(118 * max(1, 100 - 2 * crf)), "realtime": "1"}, tag)


@lru_cache(64)
def opens(name: str) -> bool:
    """Can this encoder be opened for a small picture?"""
    os.environ.setdefault("SVT_LOG", "1")  # it writes to standard error by itself: errors only
    try:
        chosen = encoder(name, preset="ultrafast", crf=23, lookahead=0, threads=1)
        context = av.CodecContext.create(Codec(name, "w"))
        context.width, context.height, context.pix_fmt = 320, 240, chosen.pix_fmt
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = chosen.options
        with same_priority():
            context.open()
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    return True


@contextmanager
def same_priority() -> Iterator[None]:
    """Around the opening of an encoder. SVT-AV1, run as root, makes the thread that opens it a real-time one (SCHED_FIFO, 99), and so
    every process that it starts later: two that wait for each other then stop the machine."""
    before = (os.sched_getscheduler(0), os.sched_getparam(0)) if hasattr(os, "sched_getscheduler") else None
    try:
        yield
    finally:
        if before and os.sched_getscheduler(0) != before[0]:
            os.sched_setscheduler(0, *before)
