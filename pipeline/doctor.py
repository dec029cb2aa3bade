"""What this machine has, and what to do where something is missing: `fer-stream doctor`.

Each check is a function of what it is given (so that tests can give it other machines) and may fail by itself: what is asked for
here is most needed where an installation is broken.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "mjpeg", "prores", "theora", "wmv2", "gif")
_ENCODERS = {"libx264": "H.264", "libx265": "HEVC", "libsvtav1": "AV1"}
_HARDWARE = ("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_qsv", "hevc_qsv", "av1_qsv", "h264_amf", "hevc_amf", "av1_amf",
             "h264_videotoolbox", "hevc_videotoolbox")  # fmt: skip
_LITTLE_DISK = 2_000_000_000
"""Bytes: an hour of annotated 720p video takes about one and a half gigabytes."""
CV2 = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    state: str
    """"ok" | "note" (something is not there, and not everyone needs it) | "problem" (it will not run, or not rightly)."""
    says: str
    do: str = ""
    """What to do; empty where nothing is to be done."""


def examine() -> list[Finding]:
    """Every check, on this machine. Takes about two seconds, opens no camera."""
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("machine", lambda: [machine(os.cpu_count() or 1, sys.version.split()[0])]),
        ("opencv", lambda: [opencv(_installed(CV2))]),
        ("video", _video),
        ("cameras", lambda: [cameras(sorted(map(str, Path("/dev").glob("video*"))), sys.platform)]),
        ("display", _display),
        ("engines", _engines),
        ("models", _models),
        ("outputs", lambda: [parquet(_installed(("pyarrow",)))]),
        ("disk", lambda: [disk(Path.cwd(), shutil.disk_usage(Path.cwd()).free, os.access(Path.cwd(), os.W_OK))]),
    ]
    findings = []
    for topic, check in checks:
        try:
            findings += check()
        except Exception as error:  # a broken installation raises anything
            why = f"cannot be looked at ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            findings.append(Finding(topic, "problem", why, "install fer-stream again: pip install --force-reinstall fer-stream"))
    return findings


def report(findings: Iterable[Finding]) -> str:
    """For people: a line each, what to do below it."""
    marks = {"ok": "ok  ", "note": "note", "problem": "BAD "}
    lines = []
    for one in findings:
        lines.append(f"{marks[one.state]}  {one.topic:<9} {one.says}")
        if one.do:
            lines.append(f"{'':<16}→ {one.do}")
    return "\n".join(lines)


def machine(cores: int, python: str) -> Finding:
    """Which machine this is."""
    says = f"fer-stream {_version('fer-stream')}, Python {python}, {platform.platform()}, {cores} cores{_memory()}"
    return Finding("machine", "ok", says)


def opencv(found: dict[str, str]) -> Finding:
    """Exactly one distribution of cv2: two overwrite each other's files, and which one wins is luck."""
    names = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) == 1:
        return Finding("opencv", "ok", names)
    if not found:
        return Finding("opencv", "problem", "no distribution of cv2 is installed", "pip install opencv-python")
    do = f"keep one: pip uninstall -y {' '.join(found)} && pip install opencv-python"
    return Finding("opencv", "problem", f"{len(found)} distributions of cv2 overwrite each other: {names}", do)


def codecs(available: Iterable[str], opens: Callable[[str], bool]) -> list[Finding]:
    """`available`: what this FFmpeg was built with; `opens(encoder)`: whether it works here (a driver and a device are there)."""
    there = set(available)
    missing = [name for name in _DECODERS if name not in there]
    again = "pip install --force-reinstall av (the wheels hold all of these)"
    reads = Finding("video", "note", f"reads all but {', '.join(missing)}", again) if missing else Finding(
        "video", "ok", f"reads {', '.join(_DECODERS)} and {len(there)} codecs in all")  # fmt: skip
    software = [f"{said} ({name})" for name, said in _ENCODERS.items() if name in there]
    writes = Finding("video", "ok", f"writes {', '.join(software)}")
    if "libx264" not in there:
        writes = Finding("video", "problem", "cannot write H.264: this FFmpeg has no libx264", again)
    usable = [name for name in _HARDWARE if name in there and opens(name)]
    listed = [name for name in _HARDWARE if name in there]
    says = f"usable: {', '.join(usable)}" if usable else f"none works here (of {', '.join(listed) or 'none built in'}); x264 is used"
    return [reads, writes, Finding("encoders", "ok" if usable else "note", says)]


def cameras(devices: list[str], system: str) -> Finding:
    """Webcams, where they have names."""
    if system != "linux":
        return Finding("cameras", "note", "not listed on this system; --source 0 is the first")
    if not devices:
        return Finding("cameras", "note", "no /dev/video*; files, streams and the demo work without")
    locked = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if locked:
        return Finding("cameras", "problem", f"{', '.join(locked)} may not be used", "join the group: sudo usermod -aG video $USER")
    return Finding("cameras", "ok", ", ".join(devices))


def display(there: bool) -> Finding:
    """Whether --show can open a window."""
    if there:
        return Finding("display", "ok", "a window can be opened (--show)")
    return Finding("display", "note", "none: --show has no window to open", "write --output and --events instead, or run under xvfb-run")


def parquet(found: dict[str, str]) -> Finding:
    """Whether rows can become .parquet."""
    if found:
        return Finding("outputs", "ok", f"rows as .jsonl, .csv and .parquet (pyarrow {found['pyarrow']})")
    return Finding("outputs", "note", "rows as .jsonl and .csv; .parquet needs pyarrow", "pip install 'fer-stream[parquet]'")


def disk(folder: Path, free: int, writable: bool) -> Finding:
    """`free`: bytes in `folder`, where outputs go by default."""
    if not writable:
        return Finding("disk", "note", f"{folder} may not be written", "name outputs in another folder")
    if free < _LITTLE_DISK:
        return Finding("disk", "note", f"{free / 1e9:.1f} GB free in {folder}", "an hour of annotated 720p video takes about 1.5 GB")
    return Finding("disk", "ok", f"{free / 1e9:.0f} GB free in {folder}")


def _video() -> list[Finding]:
    import av

    from pipeline.sources.quiet import silence_ffmpeg

    silence_ffmpeg()
    first = Finding("video", "ok", f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
    return [first, *codecs(av.codecs_available, _opens)]


def _opens(encoder: str) -> bool:
    """Tried on a small picture; without driver or device it fails at once."""
    import av

    try:
        context: Any = av.CodecContext.create(encoder, "w")
        context.width, context.height, context.pix_fmt, context.framerate, context.time_base = 256, 256, "yuv420p", 25, "1/25"
        context.open()
    except Exception:
        return False
    return True


def _display() -> list[Finding]:
    from pipeline.sinks.window import has_display

    return [display(has_display())]


def _engines() -> list[Finding]:
    from engines import select
    from engines.errors import FerError

    findings = []
    for name, (_, package, how) in select.BACKENDS.items():
        if name == "fake":
            continue
        if select.installed(name):
            findings.append(Finding("engines", "ok", f"{name} {_version(package)}"))
        elif name == "openvino":
            findings.append(Finding("engines", "problem", "openvino is not installed: nothing runs the models on a CPU", how))
        else:
            findings.append(Finding("engines", "note", f"{name} is not installed; not needed on a CPU", how))
    try:
        choice = select.choose()
    except FerError as error:
        return [*findings, Finding("engines", "problem", str(error))]
    gpus = f"{select.gpu_count()} NVIDIA GPUs" if select.gpu_count() != 1 else "1 NVIDIA GPU"
    return [*findings, Finding("engines", "ok", f"{gpus}; models run on {choice.backend}, {choice.device} ({choice.reason})")]


def _models() -> list[Finding]:
    from pipeline.show import models

    found = models()
    wrong = [model["name"] for model in found if model["state"] != "ok"]
    if wrong:
        return [Finding("models", "problem", f"not as released: {', '.join(wrong)}", "pip install --force-reinstall fer-stream")]
    return [Finding("models", "ok", ", ".join(model["name"] for model in found) + ": as released")]


def _installed(names: Iterable[str]) -> dict[str, str]:
    return {name: version for name in names if (version := _version(name, ""))}


def _version(name: str, otherwise: str = "(version unknown)") -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return otherwise


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB of memory"
    except (AttributeError, ValueError, OSError):
        return ""
