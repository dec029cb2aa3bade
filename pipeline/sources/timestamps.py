"""PTS of files as strictly growing numbers, the container's own wherever it has any that can be believed."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import av


def jump_s(stream: av.VideoStream) -> Fraction:
    """Seconds: steps back of more than this are a new beginning (joined recordings, a wrapped counter), not a stumble."""
    return max(3 * _step_s(stream), Fraction(1, 5))


def _step_s(stream: av.VideoStream) -> Fraction:
    """From a frame to the next, seconds; 0 where nothing tells."""
    rate = stream.guessed_rate or stream.average_rate or stream.base_rate
    return 1 / rate if rate else Fraction(0)


def first_tick(seconds: float, time_base: Fraction) -> int:
    """The first that is not before `seconds`; a microsecond before counts as there, since people give times that were rounded."""
    return math.ceil((seconds - 1e-6) / float(time_base))


class Timestamps:
    """`of(frame)` → PTS in `time_base`. What it does where a container misleads (each measured with PyAV 18):

    - AVI with B-frames numbers frames in decoding order (1 4 3 5 2 8 …); its DTS grow by one, so DTS less the decoder's delay.
    - Raw H.264 has none: frames follow each other by the stream's frame duration.
    - One that repeats or steps back a little moves one tick past the last; one that jumps back further (see jump_s) starts a new
      stretch, which goes on behind the last frame.
    """

    def __init__(self, stream: av.VideoStream, container_format: str) -> None:
        self.time_base: Fraction = stream.time_base or Fraction(1, 90000)
        self.step: int = max(1, round(_step_s(stream) / self.time_base))
        self.from_container = True
        """False once a frame came without PTS: then seeking by time makes no sense."""
        self._jump = jump_s(stream) / self.time_base
        self._by_dts = container_format == "avi"
        self._offset: int | None = None
        self._last: int | None = None

    def of(self, frame: av.VideoFrame) -> int:
        step = frame.duration or self.step
        raw = self._raw(frame)
        if raw is None:
            raw = 0 if self._last is None else self._last + step
        elif self._last is not None and raw + (self._offset or 0) <= self._last:
            if self._last - raw - (self._offset or 0) > self._jump:
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
    at first. `jump_s`: that of the picture, for its sound too.

    Packets come in decoding order, in which PTS go to and fro by some frames, at two a second by whole seconds: DTS tell the beginning.
    """

    def __init__(self, jump_s: Fraction) -> None:
        self.offsets = [Fraction(0)]
        self._jump_s = jump_s
        self._last_s: Fraction | None = None
        self._end_s = Fraction(0)

    def see(self, packet: Any) -> None:
        time = packet.pts if packet.dts is None else packet.dts
        if time is None or packet.time_base is None:
            return
        time_s = time * packet.time_base
        shown_s = time_s if packet.pts is None else packet.pts * packet.time_base
        if self._last_s is not None and self._last_s - time_s > self._jump_s:
            self.offsets.append(self._end_s - shown_s)
            self._last_s = None
        end_s = shown_s + self.offsets[-1] + (packet.duration or 0) * packet.time_base
        self._end_s = end_s if self._last_s is None else max(self._end_s, end_s)
        self._last_s = time_s if self._last_s is None else max(self._last_s, time_s)
