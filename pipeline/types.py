"""What travels through the pipeline. Imports nothing heavy: a frame holds what others made."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import av
    import numpy as np
    import supervision as sv

Faces: TypeAlias = "sv.Detections"
"""Faces of one frame: `sv.Detections` with xyxy (N, 4) float32 pixels of the full frame, confidence (N,) float32,
tracker_id (N,) int (−1: no id yet), and in `data`:

    observed   (N,) bool        seen by the detector in this frame (False: carried by motion or interpolation)
    quality    (N,) float32     0…1, how much the crop can say; NaN where not judged
    probs      (N, 7) float32   calibrated probabilities of this frame's crop; NaN rows where not classified
    smoothed   (N, 7) float32   the track's probabilities over time; NaN rows before anything good was seen
                                (both: NaN in the column of a class that the classifier lacks; less than 1 together where it has
                                others, which are in `extra`)
    emotion    (N,) str object  one of LABELS or "uncertain"
    extra      (N,) object      only where a classifier says more than LABELS: {label: probability} of this frame's crop, or None
"""


@dataclass(frozen=True)
class SourceInfo:
    """Facts about an input that sinks need; one object per source and epoch, shared by its frames."""

    name: str
    """Unique in the run, password redacted; what the ledger and the rows call the source."""
    kind: str
    """"video" (file) | "live" | "image" (files that are pictures) | "demo"."""
    width: int = 0
    height: int = 0
    """Upright pixels of the first frame (0 = not known before decoding)."""
    average_rate: Fraction | None = None
    """Frames per second as the container says; never used for time."""
    frames: int | None = None
    """How many frames the container says it has, for progress only."""
    duration_s: float | None = None
    path: str | None = None
    """File to copy audio packets from, None where there is none."""
    has_audio: bool = False
    start_s: float = 0.0
    """First and last container time asked for (--start/--end, seconds from the first frame), to cut audio alike."""
    end_s: float | None = None
    pixel_shape: Fraction | None = None
    """Width over height of a pixel (upright), None where it is square or unknown."""

    @property
    def live(self) -> bool:
        return self.kind == "live"


@dataclass(frozen=True)
class TrackEnd:
    """A track that will not come back."""

    tracker_id: int
    last_pts_s: float
    """Container time of the last frame in which it was seen."""
    reason: str
    """"lost" | "source ended"."""


@dataclass(slots=True, eq=False)
class Frame:
    """One decoded picture and what the stages add to it. Belongs to one thread at a time."""

    source: str
    """Name of its lane: SourceInfo.name."""
    epoch: int
    """0, then +1 per reconnect."""
    index: int
    """Decoded frames of this source counted from 0 over the whole run; gaps are dropped frames."""
    pts: int
    time_base: Fraction
    """pts × time_base = container time in seconds, monotonic over epochs; files keep the container's own numbers."""
    captured_at: float
    """time.monotonic() when it was decoded."""
    image: av.VideoFrame
    """Upright (rotation applied), in its own pixel format. Read only: sinks that draw take a copy."""
    info: SourceInfo
    time_utc: datetime | None = None
    """Wall clock at capture, live sources only."""
    origin: str | None = None
    """What rows say as `source` where that is not the lane's name: the file of one picture of a folder."""
    faces: Faces | None = None
    hidden: np.ndarray | None = None
    """(N, 4) float32 xyxy: everything the detector suspects in this frame, faint or not; `--privacy` hides all of it. None where it did
    not look (`detect.interval`)."""
    ended_tracks: list[TrackEnd] = field(default_factory=list)
    """Tracks known to be over when this frame is released; an earlier frame was their last."""
    _bgr: np.ndarray | None = None

    @property
    def pts_s(self) -> float:
        """Container time in seconds."""
        return self.pts * self.time_base.numerator / self.time_base.denominator  # as float(pts × time_base), without a Fraction made

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height

    @property
    def pixel_shape(self) -> float:
        """Width over height of a pixel: 1 but for anamorphic video (DV, DVD, SD cameras), where faces are squeezed as stored."""
        return float(self.info.pixel_shape or 1)

    @property
    def nbytes(self) -> int:
        """Of the picture as it was decoded."""
        return sum(plane.buffer_size for plane in self.image.planes)

    @property
    def bgr(self) -> np.ndarray:
        """(H, W, 3) uint8, made once, when first asked for. Do not write into it."""
        if self._bgr is None:
            from av.video.reformatter import VideoReformatter

            # A scaler of its own: the one that av keeps inside the shared picture is not safe with two sinks at once.
            self._bgr = VideoReformatter().reformat(self.image, format="bgr24").to_ndarray()
        return self._bgr
