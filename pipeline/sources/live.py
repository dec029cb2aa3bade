"""Cameras and streams: connected, lost, connected again, for as long as the run lasts.

What was measured (PyAV 18.1) and what follows from it here:
- Time-outs work as av.open's keyword only, and H.264 doubles the one for reading (connection.py). It bounds every blocked read;
  our own watchdog, looked at with every packet, sees what that cannot: packets that come and give no picture.
- A server that dies looks like the end of a file, so for a camera the end of the stream is a loss.
- Closing a container from another thread segfaults: `interrupt()` only sets a flag, which is looked at with every packet.
- PTS begin near zero again after a reconnect: liveclock.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.error import FFmpegError

from pipeline.config import Live
from pipeline.errors import SourceError
from pipeline.flow.batch import Ended
from pipeline.sources.connection import Connection, local_failure, network_failure
from pipeline.sources.deinterlace import Deinterlacer
from pipeline.sources.hardware import hardware
from pipeline.sources.liveclock import RATE, LiveClock
from pipeline.sources.pacing import Pacer
from pipeline.sources.upright import Upright
from pipeline.types import Frame, SourceInfo

_log = logging.getLogger(__name__)
_TIME_BASE = Fraction(1, RATE)
_FIRST_PICTURE = 4
"""Read time-outs that a connection may take until its first picture: cameras send key frames every 1 to 10 s."""
_DEVICE_POLL_S = 0.005
_ANEW_S = 1.0
"""Steps back of more than this are a discontinuity of HLS: a shorter one only delays a picture."""
_JUMP_S = 10.0
"""Live HLS whose numbers jump by more than this is paced anew from there."""


class LiveSource:
    """See `uri.open_source`; kinds "webcam", "lavfi" and "stream".

    States: CONNECTING until the first frame, RUNNING, LOST while reconnecting, at last ENDED or FAILED. A stream that is absent,
    refuses (401, 403, 404) or is no video is tried again with a pause that doubles from `backoff_s` to `backoff_max_s`;
    `last_error` says why, one warning is logged per loss. A webcam or test input that cannot be opened the first time raises
    SourceError at once.

    What ends by itself: a test input; a recording that a server plays (its length is known) and a closed HLS playlist, at their
    end. A recording over HTTP is paced like a camera, and what is not taken in time is dropped as from a camera: to have every
    frame, download it. If it breaks off midway the source fails, since a second try would begin at its start. Live HLS is paced
    too, one to three segments behind.
    """

    live = True

    def __init__(
        self,
        text: str,
        *,
        kind: str,
        name: str,
        settings: Live | None = None,
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        decode: str = "cpu",
    ) -> None:
        """`clock`: monotonic seconds. `wait(seconds) -> stopped`: the pauses; the stop Event's own where None. `decode`: "cpu", or
        "cuda:N" for the GPU's decoder. Raises as hardware()."""
        self.name, self.state = name, "CONNECTING"
        self.last_error: str | None = None
        """Why it is not running, a part of a sentence without passwords; None while it runs. Written by its own thread."""
        self._text, self._kind, self._settings = text, kind, settings or Live()
        self._max_frames, self._clock = max_frames, clock
        self._hardware = hardware(decode)
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._times = LiveClock()
        self._index, self._epoch = 0, 0
        self._over: str | None = None
        """Reason of an end by itself; set by the connection that reached it."""

    @property
    def trouble(self) -> str:
        """Why it is not running, for the sentence of a run in which nothing connected."""
        return f"{self.name}: {self.last_error}" if self.last_error else self.name

    def interrupt(self) -> None:
        """From any thread: pauses end at once, a blocked open or read within its time-out."""
        self._stop.set()

    def frames(self) -> Iterator[Frame | Ended]:
        """Frames, an Ended(final=False) after each epoch that had any, one final Ended. Raises SourceError as said above."""
        pause, told = self._settings.backoff_s, False
        try:
            while not self._stop.is_set():
                before = self._index
                reason = yield from self._epoch_frames()
                if self._over is not None or self._stop.is_set():
                    break
                self.last_error = reason
                if self._index > before:
                    self.state, pause, told = "LOST", self._settings.backoff_s, False
                    yield Ended(self.name, self._epoch, f"lost: {reason}", final=False)
                    self._epoch += 1
                if not told:
                    what = "is lost" if self._index else "cannot be reached yet"
                    _log.warning("%s %s: %s; trying again until it comes back", self.name, what, reason)
                    told = True
                if self._wait(pause):
                    break
                pause = min(2 * pause, self._settings.backoff_max_s)
        except Exception:
            self.state = "FAILED"
            raise
        reason = self._over or "stopped"
        failed = reason.startswith("failed")
        self.state = "FAILED" if failed else "ENDED"
        yield Ended(self.name, self._epoch, reason, final=True, failed=failed)

    def _epoch_frames(self) -> Generator[Frame, None, str]:
        """One connection, from opening to closing; returns why it is over."""
        try:
            connection = Connection(self._text, self._kind, self._settings, self._hardware)
        except (FFmpegError, OSError, ValueError, SourceError) as error:
            if self._kind == "stream":
                known = isinstance(error, SourceError)
                return str(error) if known else network_failure(self._text, error, self._settings, opening=True)
            if self._index == 0:
                raise SourceError(local_failure(self._text, self._kind, error)) from error
            return local_failure(self._text, self._kind, error)
        try:
            return (yield from self._read(connection))
        finally:
            connection.close()

    def _read(self, connection: Connection) -> Generator[Frame, None, str]:
        rebase_s = _JUMP_S if connection.duration_s is None else None
        pacer = Pacer(self._clock, self._wait, rebase_s) if connection.paced_by_us else None
        upright, count, info, clean = Upright(), 0, None, False
        position_s = 0.0
        self._times.begin_epoch()
        try:
            for picture, stamp in self._whole(connection, pacer):
                position_s = stamp.position_s
                image = upright(picture)
                if image.duration and image.time_base:
                    image.duration = round(image.duration * image.time_base / _TIME_BASE)
                image.pts, image.time_base = stamp.pts, _TIME_BASE
                if info is None:
                    info = self._info(connection, image, upright.pixel_shape(connection.stream))
                if self.state != "RUNNING":
                    if self.state == "LOST":
                        _log.warning("%s is back (epoch %d)", self.name, self._epoch)
                    self.state, self.last_error = "RUNNING", None
                yield Frame(self.name, self._epoch, self._index, stamp.pts, _TIME_BASE, stamp.at, image, info, stamp.utc)
                count += 1
                self._index += 1
                if self._index == self._max_frames:
                    self._over = "end of the part that was asked for"
                    return self._over
        except _Silent as silent:
            reason = str(silent)
        except (FFmpegError, OSError) as error:
            unread_mp4 = count == 0 and connection.container.format.name.startswith("mov")
            reason = network_failure(self._text, error, self._settings, unread_mp4=unread_mp4)
        else:
            reason, clean = "the stream ended", True
        if not self._stop.is_set():
            self._over = self._end_by_itself(connection, reason, clean, count, position_s)
        return reason

    def _end_by_itself(self, connection: Connection, reason: str, clean: bool, count: int, position_s: float) -> str | None:
        """Reason of a final end; None: it is a loss, another try makes sense. `clean`: no error, the stream just ended."""
        if self._kind == "lavfi":
            return "end of the test input" if clean else f"failed: {reason}"
        if count == 0 or not (connection.paced_by_us or connection.duration_s):
            return None
        # Near its end an error is no loss: servers that name no length end with one.
        if connection.duration_s and position_s > connection.duration_s - 1.0:
            return "end of file"
        if connection.paced_by_us and clean:
            return "end of file"
        if connection.paced_by_us and connection.duration_s:
            return f"failed: {reason} after {count} frames of a recording"
        return None

    def _whole(self, connection: Connection, pacer: Pacer | None) -> Iterator[tuple[av.VideoFrame, _Stamp]]:
        """Pictures at their pace, two fields made one: an interlaced picture comes with the next one, with its own times."""
        fields = Deinterlacer[_Stamp]()
        first_s: float | None = None
        position_s = 0.0
        try:
            for image in self._images(connection):
                if image.pts is not None and image.time_base:
                    seconds = float(image.pts * image.time_base)
                    first_s = seconds if first_s is None else first_s
                    if position_s - (seconds - first_s) > _ANEW_S:  # an HLS discontinuity: time begins anew, the recording goes on
                        first_s = seconds - position_s - float(1 / (connection.rate or 25))
                    position_s = seconds - first_s
                if pacer and not pacer.due(position_s):
                    break
                now, utc = self._clock(), datetime.now(UTC)
                yield from fields.push(image, _Stamp(self._pts(connection, image, now), now, utc, position_s))
        except (FFmpegError, OSError, _Silent):
            yield from fields.flush()
            raise
        yield from fields.flush()

    def _images(self, connection: Connection) -> Iterator[av.VideoFrame]:
        """Decoded pictures. Looks at the stop flag and at the watchdog with every packet, of whatever stream."""
        alive = self._clock()
        limit = _FIRST_PICTURE * connection.silence_s
        packets = connection.container.demux()
        while not self._stop.is_set():
            try:
                packet = next(packets, None)
            except BlockingIOError:
                # A device that has no picture yet; the iterator is spent by its exception.
                if self._wait(_DEVICE_POLL_S):
                    return
                packets, packet, images = connection.container.demux(), None, []
            else:
                if packet is None:
                    return
                images = _decoded(packet, connection)
            for image in images:
                yield image
                # Pauses of the reader itself (pacing, a consumer that takes its time) are not silence.
                alive, limit = self._clock(), connection.silence_s
            if self._clock() - alive > limit and not images:
                raise _Silent(f"no picture for {limit:g} s")

    def _pts(self, connection: Connection, image: av.VideoFrame, now: float) -> int:
        if connection.by_arrival:
            raw: int | None = round(now * RATE)
        elif image.pts is None or not image.time_base:
            raw = None
        else:
            raw = round(image.pts * image.time_base * RATE)
        return self._times.of(raw, now, round(RATE / (connection.rate or 25)))

    def _info(self, connection: Connection, image: av.VideoFrame, pixel_shape: Fraction | None) -> SourceInfo:
        return SourceInfo(
            self.name,
            "live",
            image.width,
            image.height,
            average_rate=connection.rate,
            duration_s=connection.duration_s,
            pixel_shape=pixel_shape,
        )


class _Stamp(NamedTuple):
    """What is known of a picture when it is decoded."""

    pts: int
    at: float
    """Monotonic seconds."""
    utc: datetime
    position_s: float
    """From the first frame of this connection."""


class _Silent(Exception):
    """Packets come, pictures do not."""


def _decoded(packet: av.Packet[Any], connection: Connection) -> list[av.VideoFrame]:
    """Pictures of a packet of our stream; one that cannot be decoded gives none (the watchdog sees it if all do)."""
    if packet.stream_index != connection.stream.index:
        return []
    try:
        return packet.decode()
    except FFmpegError:
        return []
