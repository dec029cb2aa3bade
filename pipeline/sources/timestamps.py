"""PTS of files as strictly growing numbers, the container's own wherever it has any that can be believed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av

JUMP_S = Fraction(1)
"""Steps back of more than this are a new beginning (joined recordings, a wrapped counter), not a stumble."""


class Timestamps:
    """`of(frame)` → PTS in `time_base`. What it does where a container misleads (each measured with PyAV 18):

    - AVI with B-frames numbers frames in decoding order (1 4 3 5 2 8 …); its DTS grow by one, so DTS less the decoder's delay.
    - Raw H.264 has none: frames follow each other by the stream's frame duration.
    - One that repeats or steps back a little moves one tick past the last; one that jumps back more than a second starts a new
      stretch, which goes on behind the last frame.
    """

    def __init__(self, stream: av.VideoStream, container_format: str) -> None:
        self.time_base: Fraction = stream.time_base or Fraction(1, 90000)
        rate = stream.guessed_rate or stream.average_rate or stream.base_rate
        self.step: int = max(1, round(1 / (rate * self.time_base))) if rate else 1
        self.from_container = True
        """False once a frame came without PTS: then seeking by time makes no sense."""
        self._by_dts = container_format == "avi"
        self._offset: int | None = None
        self._last: int | None = None

    def of(self, frame: av.VideoFrame) -> int:
        step = frame.duration or self.step
        raw = self._raw(frame)
        if raw is None:
            raw = 0 if self._last is None else self._last + step
        elif self._last is not None and raw + (self._offset or 0) <= self._last:
            if (self._last - raw - (self._offset or 0)) * self.time_base > JUMP_S:
                self._offset = self._last + step - raw
            raw = max(raw + (self._offset or 0), self._last + 1)
        else:
            raw += self._offset or 0
        self._last = raw
        return raw

    def restart(self) -> None:
        """After a seek, numbers may be smaller again. The offset of AVI's decoder delay stays."""
        self._last = None

    def _raw(self, frame: av.VideoFrame) -> int | None:
        if not self._by_dts:
            if frame.pts is None:
                self.from_container = False
            return frame.pts
        if frame.dts is not None and self._offset is None:
            self._offset = min(0, -frame.dts)
        # The frames that a decoder gives up at the end have no DTS and simply follow.
        return frame.dts


class Stretches:
    """Where the time of a stream's packets begins anew, and what is to be added from there on so that it goes on: `offsets`, seconds, [0]
    at first."""

    def __init__(self) -> None:
        self.offsets = [Fraction(0)]
        self._last_s: Fraction | None = None

    def see(self, packet: Any) -> None:
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or packet.time_base is None:
            return
        time_s = time * packet.time_base
        at_s = time_s + self.offsets[-1]
        if self._last_s is not None and self._last_s - at_s > JUMP_S:
            at_s = self._last_s + (packet.duration or 0) * packet.time_base
            self.offsets.append(at_s - time_s)
        self._last_s = at_s if self._last_s is None else max(self._last_s, at_s)
