"""Frames turned the way they are meant to be seen, in their own pixel format.

Phones store the sensor's picture and a display matrix; FFmpeg's command line and OpenCV apply it, PyAV does not. A filter graph
(transpose, flips) keeps the pixel format, so that nothing is converted to RGB for it: 0.5 ms for 1280x674 on one core.
"""

from __future__ import annotations

import struct
from fractions import Fraction

import av
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer

_QUARTERS: dict[tuple[int, int, int, int], tuple[tuple[str, str | None], ...]] = {
    # the signs of a, b, c, d of the display matrix (x' = a·x + c·y, y' = b·x + d·y) → filters, as in FFmpeg's ffmpeg_filter.c
    (-1, 0, 0, -1): (("hflip", None), ("vflip", None)),
    (-1, 0, 0, 1): (("hflip", None),),
    # vflip alone only negates the line sizes, which PyAV's planes and to_ndarray() misread: they see the picture unflipped
    (1, 0, 0, -1): (("vflip", None), ("copy", None)),
    (0, 1, -1, 0): (("transpose", "clock"),),
    (0, -1, 1, 0): (("transpose", "cclock"),),
    (0, 1, 1, 0): (("transpose", "cclock_flip"),),
    (0, -1, -1, 0): (("transpose", "clock_flip"),),
}


class Upright:
    """Applies each frame's display matrix; keeps one graph per size, format and turn. One thread at a time."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._graph: Graph | None = None
        self._on_its_side = False

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame itself where nothing is to be turned, else a new one with the same PTS, time base and no matrix left.

        Angles that are no multiple of 90 degrees are left as they are: turning by them changes the pixels.
        """
        chain = _chain(frame)
        self._on_its_side = any(name == "transpose" for name, _ in chain)
        if not chain:
            return frame
        key = (frame.width, frame.height, frame.format.name, chain)
        if key != self._key:
            self._graph, self._key = _graph(frame, chain), key
        assert self._graph is not None
        # A frame taken from a stream that restarts may have no PTS; the graph needs none, and the caller sets what it found.
        pts, time_base = frame.pts, frame.time_base
        self._graph.push(frame)
        turned = self._graph.pull()
        assert isinstance(turned, av.VideoFrame)
        turned.pts = pts
        if time_base:
            turned.time_base = time_base
        return turned

    def pixel_shape(self, stream: av.VideoStream) -> Fraction | None:
        """Width over height of a pixel of the last frame, which is of `stream`; None where it is square, unknown or beyond belief."""
        ratio = Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
        if ratio == 1 or not 1 <= 4 * ratio <= 16:
            return None
        return 1 / ratio if self._on_its_side else ratio


def _chain(frame: av.VideoFrame) -> tuple[tuple[str, str | None], ...]:
    # Not frame.side_data: PyAV keeps that in the frame, and it holds the frame. In such a circle every decoded picture waits for the
    # garbage collector, and one picture holds its decoder's whole pool.
    matrix = SideDataContainer(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return ()
    a, b, _, c, d = struct.unpack("<5i", bytes(matrix)[:20])  # type: ignore[call-overload]
    largest = max(map(abs, (a, b, c, d)))
    # Within a hundredth of the largest: matrices made from an angle carry rounding in what should be zero.
    signs = tuple(0 if abs(value) * 100 < largest else (1 if value > 0 else -1) for value in (a, b, c, d))
    return _QUARTERS.get(signs, ())  # type: ignore[arg-type]


def _graph(frame: av.VideoFrame, chain: tuple[tuple[str, str | None], ...]) -> Graph:
    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or None)
    for name, arguments in (*chain, ("sidedata", "mode=delete:type=DISPLAYMATRIX"), ("buffersink", None)):
        step = graph.add(name, arguments) if arguments else graph.add(name)
        last.link_to(step)
        last = step
    graph.configure()
    return graph
