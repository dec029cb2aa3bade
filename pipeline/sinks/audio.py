"""The sound of a file, copied packet by packet into the annotated video.

The source file is opened a second time and only its audio is demuxed: sound then needs no way through the pipeline, and
a stage cannot lose it. Packets are never decoded unless the container cannot hold their codec (then: AAC).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

log = logging.getLogger(__name__)

_EARLY = Fraction(1, 5)
"""Seconds: how much sooner than the picture the sound of an uncut file may begin (an AAC track's first packet, which
only primes the decoder, lies 21–46 ms before zero, its effect hidden by an edit list)."""

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)


class Audio:
    """Packets of the first audio stream of `path`, for the video whose first picture lies at `zero_s` (container time).

    `cut_start`: leave out what ends before the video begins (--start). `first_s`: where the first packet will lie in the
    output, seconds, None where there is nothing to copy. `may_be_early`: packets may begin up to 0.2 s before zero.
    """

    def __init__(self, path: str, zero_s: Fraction, *, cut_start: bool = False, may_be_early: bool = True) -> None:
        self._zero_s = zero_s
        self._container = av.open(f"file:{path}", metadata_errors="replace")  # "a:b.mp4" is no protocol
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self._stream: Any = None
        self._encoder: _AacEncoder | None = None
        self._extradata: bytes | None = None
        if not self._container.streams.audio:
            return
        self._source = self._container.streams.audio[0]
        self._early_s = -_EARLY if may_be_early else Fraction(0)
        self._cut_start = cut_start
        if cut_start and zero_s > 10:  # do not read an hour to get at its end; packets are cut exactly below
            self._container.seek(int((zero_s - 5) * av.time_base))
        self._packets = self._wanted()
        self._next = next(self._packets, None)

    @property
    def first_s(self) -> Fraction | None:
        return None if self._next is None else self._time_s(self._next)

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self._source.codec_context.sample_rate or 48000

    def add_to(self, output: av.container.OutputContainer, path: str) -> None:
        """Make the output's stream; before its header is written."""
        try:
            self._stream = output.add_stream_from_template(self._source)
            if self._extradata is not None:
                self._stream.codec_context.extradata = self._extradata
        except ValueError:
            codec = self._source.codec_context.name
            log.warning("%s cannot hold %s audio: it is encoded again as AAC", path, codec)
            self._encoder = _AacEncoder(output, self._source, self._zero_s)

    def until(self, end_s: Fraction | None) -> Iterator[Any]:
        """Packets to mux that begin before `end_s` in the output (None: all that is left)."""
        while self._next is not None and (end_s is None or self._time_s(self._next) < end_s):
            packet, self._next = self._next, next(self._packets, None)
            if self._encoder is not None:
                yield from self._encoder.encode(packet)
                continue
            shift = round(self._zero_s / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = self._stream
            yield packet

    def rest(self) -> Iterator[Any]:
        """What an encoder still holds."""
        if self._encoder is not None:
            yield from self._encoder.flush()

    def close(self) -> None:
        self._next, self._packets = None, iter(())
        self._container.close()

    def _wanted(self) -> Iterator[Any]:
        last = None
        for packet in self._plain():
            if packet.pts is None:
                packet.pts = packet.dts
            if packet.pts is None or packet.time_base is None:
                continue
            if packet.dts is None:
                packet.dts = packet.pts
            if last is not None and packet.dts <= last:  # broken file: a muxer refuses time that stands still
                continue
            last = packet.dts
            time_s = self._time_s(packet)
            end_s = time_s + (packet.duration or 0) * packet.time_base
            if time_s >= self._early_s and (end_s > 0 or not self._cut_start):
                yield packet

    def _plain(self) -> Iterator[Any]:
        """Packets as the demuxer gives them; AAC of transport streams without its ADTS headers, which MP4 refuses (and
        libavformat's own filter did not take away: "Malformed AAC bitstream detected")."""
        context = self._source.codec_context
        adts = BitStreamFilterContext("aac_adtstoasc", self._source) if context.name == "aac" and not context.extradata else None
        for packet in self._container.demux(self._source):
            if packet.size == 0:  # the demuxer's flush
                continue
            if adts is None:
                yield packet
                continue
            for plain in adts.filter(packet):
                if plain.has_sidedata("new_extradata"):  # on the first packet only, which a cut may leave out
                    self._extradata = bytes(plain.get_sidedata("new_extradata"))
                plain.time_base = plain.time_base or packet.time_base
                yield plain

    def _time_s(self, packet: Any) -> Fraction:
        return packet.pts * packet.time_base - self._zero_s


class _AacEncoder:
    """Decodes packets and encodes them as AAC, keeping their time."""

    def __init__(self, output: av.container.OutputContainer, source: Any, zero_s: Fraction) -> None:
        rate = source.codec_context.sample_rate
        rate = rate if rate in _AAC_RATES else 48000
        layout = "mono" if source.codec_context.channels == 1 else "stereo"
        self._stream = output.add_stream("aac", rate=rate, layout=layout)
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate, frame_size=1024)
        self._rate, self._zero_s = rate, zero_s
        self._first: int | None = None
        self._samples = 0

    def encode(self, packet: Any) -> Iterator[Any]:
        for frame in packet.decode():
            if self._first is None:
                time_s = (frame.pts or 0) * frame.time_base - self._zero_s
                self._first = round(time_s * self._rate)
            yield from self._encoded(self._resampler.resample(frame))

    def flush(self) -> Iterator[Any]:
        if self._first is not None:
            yield from self._encoded(self._resampler.resample(None))
            yield from self._stream.encode(None)

    def _encoded(self, frames: list[Any]) -> Iterator[Any]:
        for frame in frames:
            frame.pts = (self._first or 0) + self._samples
            frame.time_base = Fraction(1, self._rate)
            self._samples += frame.samples
            yield from self._stream.encode(frame)
