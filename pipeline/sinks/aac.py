"""Sound that a container cannot hold, encoded again as AAC, at its own time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError
from av.filter import Graph

log = logging.getLogger(__name__)

_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_FRAME = 1024
"""Samples that the encoder takes at a time."""
_HOLE_S = 0.05
"""Seconds without sound from which on there is silence instead of a shift: a network camera's recorder leaves such holes, and so does
a packet that cannot be decoded."""


class AacEncoder:
    """Packets of `source` in, packets of a new AAC stream of `output` out, shifted by `zero_s`. A packet that cannot be decoded is left
    out and told at the end."""

    def __init__(self, output: av.container.OutputContainer, source: Any, zero_s: Fraction, name: str) -> None:
        rate = source.codec_context.sample_rate
        self._rate = rate if rate in _RATES else 48000
        self._layout = "mono" if source.codec_context.channels == 1 else "stereo"
        self._stream = output.add_stream("aac", rate=self._rate, layout=self._layout)
        self._shift, self._name = round(zero_s * self._rate), name
        self._graph: Graph | None = None
        self._shape: tuple[Any, ...] = ()
        self._next: int | None = None  # PTS from which on nothing was written
        self._undecodable = 0

    def encode(self, packet: Any) -> Iterator[Any]:
        try:
            frames = packet.decode()
        except FFmpegError:
            self._undecodable += 1
            return
        for frame in frames:
            shape = (frame.format.name, frame.layout.name, frame.sample_rate, frame.time_base)
            if shape != self._shape:
                yield from self._drained()
                self._graph, self._shape = self._opened(*shape), shape
            self._graph.push(frame)
            yield from self._encoded()

    def flush(self) -> Iterator[Any]:
        yield from self._drained()
        if self._next is not None:
            yield from self._stream.encode(None)
        if self._undecodable:
            log.warning("%s: %d packets of its sound could not be decoded; there is silence instead", self._name, self._undecodable)

    def _opened(self, sample_format: str, layout: str, rate: int, time_base: Fraction) -> Graph:
        """What makes a source's frames the encoder's; `async`: holes are filled and overlaps cut by their PTS."""
        graph = Graph()
        graph.link_nodes(
            graph.add_abuffer(sample_rate=rate, format=sample_format, layout=layout, time_base=time_base),
            graph.add("aresample", f"{self._rate}:async=1:min_hard_comp={_HOLE_S}"),
            graph.add("aformat", f"sample_fmts=fltp:sample_rates={self._rate}:channel_layouts={self._layout}"),
            graph.add("asetnsamples", str(_FRAME)),
            graph.add("abuffersink"),
        ).configure()
        return graph

    def _drained(self) -> Iterator[Any]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._encoded()
            self._graph = None

    def _encoded(self) -> Iterator[Any]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (BlockingIOError, EOFError):
                return
            pts = frame.pts - self._shift if frame.pts is not None else self._next or 0
            frame.pts = pts if self._next is None else max(pts, self._next)
            frame.time_base = Fraction(1, self._rate)
            self._next = frame.pts + frame.samples
            yield from self._stream.encode(frame)
