"""One measured run, described in plain values: it is carried out by a process of its own (see `child`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import av

from engines.errors import UsageError
from engines.preprocess import LetterboxGeometry, letterbox_geometry

Kind = Literal["full", "bare"]


@dataclass(frozen=True)
class Job:
    """What one process runs and times."""

    kind: Kind
    """"full": fer-stream as a user runs it. "bare": the chain it is held against, see `bare_chain`."""
    clip: str
    """A video file."""
    folder: str
    """Where its outputs go; they are replaced."""
    interval: int = 1
    """Detect on every n-th frame."""
    imgsz: int = 640
    """Longer side of the detector's input, pixels."""
    outputs: Literal["full", "events"] = "full"
    """"full": annotated video and rows; "events": rows only (the bare chain: no encoder)."""
    sources: int = 1
    """How many times the clip is read at once."""
    live: bool = False
    """Paced at the clip's own rate, through a live lane."""
    max_frames: int | None = None
    """Of each source."""
    model: str | None = None
    """The bare chain's model: a file that OpenVINO reads."""
    settings: dict[str, Any] = field(default_factory=dict)
    """More settings of the full job, by dotted name ("classify.max_faces")."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ClipInfo:
    """What a clip is, as its container says."""

    width: int
    height: int
    frames: int
    """That are decoded from it: what lies before a cut (an edit list) is not counted."""
    rate: float
    codec: str

    def geometry(self, imgsz: int) -> LetterboxGeometry:
        return letterbox_geometry(self.width, self.height, imgsz)


def probe(clip: str | Path) -> ClipInfo:
    """UsageError in one sentence for what is not a video file. Reads it to its end: Matroska names no number of frames, MP4 one that
    counts those before a cut, too."""
    try:
        with av.open(f"file:{clip}") as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0) or 30.0
            frames = sum(bool(packet.size) and not packet.is_discard for packet in container.demux(stream))
            if not frames:
                raise UsageError(f"cannot measure {clip}: its video stream is empty; give a video file, or demo")
            return ClipInfo(stream.width, stream.height, frames, rate, stream.codec_context.name)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it has no video stream"
        raise UsageError(f"cannot measure {clip}: {reason}; give a video file, or demo") from error
