"""The sound of a file, copied packet by packet into the annotated video.

The source file is opened a second time: sound then needs no way through the pipeline, and a stage cannot lose it. Packets are never
decoded unless the container cannot hold them (then: AAC). Of the picture's packets the times alone are looked at: where joined
recordings begin them anew, sound goes on where the picture does.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError

from pipeline.sinks.aac import AacEncoder
from pipeline.sources.timestamps import Stretches, jump_s

log = logging.getLogger(__name__)

_EARLY = Fraction(1, 5)
"""Seconds: how much sooner than the picture the sound of an uncut file may begin (an AAC track's first packet, which
only primes the decoder, lies 21–46 ms before zero, its effect hidden by an edit list)."""
_HELD = 500
"""Packets of a new stretch that wait for the picture's; the sound of ten seconds or so."""


class Audio:
    """Packets of the first audio stream of `path`, for the video whose first picture lies at `zero_s` (container time). Streams whose
    codec FFmpeg does not know are passed over.

    `cut_start`: leave out what ends before the video begins (--start). `first_s`: where the first packet will lie in the
    output, seconds, None where there is nothing to copy. `may_be_early`: packets may begin up to 0.2 s before zero.
    """

    def __init__(self, path: str, zero_s: Fraction, *, cut_start: bool = False, may_be_early: bool = True) -> None:
        self._zero_s = zero_s
        self._path = path
        self._container = av.open(f"file:{path}", metadata_errors="replace")  # "a:b.mp4" is no protocol
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self._stream: Any = None
        self._encoder: AacEncoder | None = None
        self._extradata: bytes | None = None
        known = [stream for stream in self._container.streams.audio if stream.codec_context is not None]
        if not known:
            log.warning("%s: the codec of its sound is not known to this FFmpeg; sound is left out, convert it to AAC", path)
            return
        self._source: Any = known[0]
        self._early_s = -_EARLY if may_be_early else Fraction(0)
        self._cut_start = cut_start
        anew = self._container.format.flags & av.format.Flags.ts_discont.value  # joined ones have a time twice
        if cut_start and zero_s > 10 and not anew:  # do not read an hour to get at its end; packets are cut exactly below
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
        if self._fits(output.format.name):
            self._stream = self._added(output)
            return
        codec = self._source.codec_context.name
        log.warning("%s cannot hold %s audio: it is encoded again as AAC", path, codec)
        self._encoder = AacEncoder(output, self._source, self._zero_s, self._path)

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

    def _added(self, output: av.container.OutputContainer) -> Any:
        stream = output.add_stream_from_template(self._source)
        if self._extradata is not None:
            stream.codec_context.extradata = self._extradata
        return stream

    def _fits(self, format_name: str) -> bool:
        """Whether a container holds these packets. Some are refused only when the header is written (Opus in MOV, PCM without names
        of its channels in MP4), after the first pictures, so the first packet is written into memory."""
        if self._source.codec_context.name.startswith("pcm_") and format_name in ("mp4", "mov"):
            return False  # a hole would close: there PCM has no times, only a count of samples
        first = av.Packet(bytes(self._next))
        first.pts = first.dts = 0
        first.time_base = self._next.time_base
        try:
            with av.open(io.BytesIO(), "w", format=format_name) as trial:
                first.stream = self._added(trial)
                trial.mux(first)
        except (FFmpegError, ValueError):
            return False
        return True

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
        for packet in self._joined():
            if adts is None:
                yield packet
                continue
            for plain in adts.filter(packet):
                if plain.has_sidedata("new_extradata"):  # on the first packet only, which a cut may leave out
                    self._extradata = bytes(plain.get_sidedata("new_extradata"))
                plain.time_base = plain.time_base or packet.time_base
                yield plain

    def _joined(self) -> Iterator[Any]:
        """Packets as the demuxer gives them, a later stretch of time behind the one before it by as much as the picture's."""
        video = self._container.streams.best("video")
        back_s = jump_s(video) if video is not None else Fraction(1)
        picture, sound = Stretches(back_s), Stretches(back_s)
        held: list[Any] = []
        for packet in self._container.demux(*filter(None, (video, self._source))):
            if packet.size == 0:  # the demuxer's flush
                continue
            if packet.stream is video:
                picture.see(packet)
            else:
                sound.see(packet)
                held.append((packet, len(sound.offsets) - 1))
            while held and (held[0][1] < len(picture.offsets) or len(held) > _HELD):
                yield _shifted(*held.pop(0), picture, sound)
        for packet, stretch in held:
            yield _shifted(packet, stretch, picture, sound)

    def _time_s(self, packet: Any) -> Fraction:
        return packet.pts * packet.time_base - self._zero_s


def _shifted(packet: Any, stretch: int, picture: Stretches, sound: Stretches) -> Any:
    """The picture's offset; the sound's own where the picture has no such stretch."""
    offset_s = (picture if stretch < len(picture.offsets) else sound).offsets[stretch]
    if offset_s:
        ticks = round(offset_s / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
    return packet
