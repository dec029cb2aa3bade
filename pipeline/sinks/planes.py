"""Pictures an H.264 encoder takes, made of whatever was decoded: yuv420p, limited range, even sides, writable.

A frame is shared by all sinks, so this is always a copy (0.2 ms at 720p). yuv420p is copied plane by plane and keeps
every pixel; other formats (10 bits, grey, 4:2:2, 4:4:4, RGB, full range) go through one swscale context.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from pipeline.canvas import YuvCanvas
from pipeline.planes import planes
from pipeline.types import Frame


class Pictures:
    """Makes copies of one source's frames. Not for several threads."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # one context per size: a SwsContext can keep ~15 MB
        self._letterboxer = VideoReformatter()

    def copy(self, image: av.VideoFrame) -> av.VideoFrame:
        """yuv420p, limited range, odd sides one pixel longer (the edge repeated), with the colour tags of `image`."""
        source = image
        if image.format.name != "yuv420p" or image.color_range == ColorRange.JPEG:
            rgb = is_rgb(image)
            source = self._reformatter.reformat(
                image,
                format="yuv420p",
                src_color_range=ColorRange.JPEG if rgb or image.format.name.startswith("yuvj") else image.color_range,
                dst_color_range=ColorRange.MPEG,
                dst_colorspace=(Colorspace.ITU709 if is_bt709(image) else Colorspace.ITU601) if rgb else None,
            )
            if source is not image and not (image.width % 2 or image.height % 2):
                return source
        copy = av.VideoFrame(image.width + image.width % 2, image.height + image.height % 2, "yuv420p")
        for into, out in zip(planes(copy), planes(source), strict=True):
            height, width = out.shape
            into[:height, :width] = out
            into[height:, :width] = out[-1:]
            into[:, width:] = into[:, width - 1 : width]
        return copy

    def letterboxed(self, picture: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
        """`picture` (yuv420p) scaled to fit width × height (even), centred on black."""
        scale = min(width / picture.width, height / picture.height)
        inner_w, inner_h = (max(2, min(side, round(old * scale) & ~1)) for side, old in
                            ((width, picture.width), (height, picture.height)))  # fmt: skip
        small = self._letterboxer.reformat(picture, width=inner_w, height=inner_h)
        boxed = av.VideoFrame(width, height, "yuv420p")
        left, top = (width - inner_w) // 2 & ~1, (height - inner_h) // 2 & ~1
        for into, out, step, black in zip(planes(boxed), planes(small), (1, 2, 2), (16, 128, 128), strict=True):
            into[:] = black
            into[top // step : top // step + out.shape[0], left // step : left // step + out.shape[1]] = out
        return boxed


def bgr_of(frame: Frame, reformatter: VideoReformatter) -> np.ndarray:
    """(H, W, 3) uint8, not to be written into. By the caller's own reformatter: a frame caches one inside itself, and
    sinks run on several threads."""
    if frame._bgr is not None:
        return frame._bgr
    return reformatter.reformat(frame.image, format="bgr24").to_ndarray()


def canvas_of(picture: av.VideoFrame, bt709: bool) -> YuvCanvas:
    """A canvas on a copy made by `Pictures`."""
    return YuvCanvas(*planes(picture), bt709=bt709)


def is_rgb(image: av.VideoFrame) -> bool:
    return image.format.is_rgb or image.format.name == "pal8"


def is_bt709(image: av.VideoFrame) -> bool:
    """Which matrix: as tagged; where nothing is said, by size, as players do (HD: BT.709)."""
    if is_rgb(image) or image.colorspace in (0, 2):  # RGB; unspecified
        return image.height >= 720
    return image.colorspace == Colorspace.ITU709 or image.colorspace == Colorspace.BT2020


def colour_tags(image: av.VideoFrame) -> dict[str, int]:
    """What the encoder should say of copies of `image`."""
    if is_rgb(image):
        hd = is_bt709(image)
        return {
            "color_range": ColorRange.MPEG,
            "colorspace": 1 if hd else 6,  # AVCOL_SPC_BT709, _SMPTE170M; PyAV's Colorspace has swscale's numbers
            "color_primaries": ColorPrimaries.BT709 if hd else ColorPrimaries.SMPTE170M,
            "color_trc": ColorTrc.BT709 if hd else ColorTrc.SMPTE170M,
        }
    plain = image.format.name == "yuv420p" and image.color_range != ColorRange.JPEG
    return {
        "color_range": image.color_range if plain else ColorRange.MPEG,
        "colorspace": image.colorspace,
        "color_primaries": image.color_primaries,
        "color_trc": image.color_trc,
    }
