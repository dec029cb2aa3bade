"""Pictures scaled for detectors: the same as swscale makes in one call, whatever the size, the format and the colour tags."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from pipeline.planes import RgbScaler


def smooth(width: int, height: int, format: str) -> av.VideoFrame:
    """Broad blobs of colour: chroma has half of the target's resolution, so edges of colour are not compared."""
    coarse = np.random.default_rng(2).integers(0, 255, (height // 200 + 2, width // 200 + 2, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=format)


def by_swscale(image: av.VideoFrame, width: int, height: int) -> np.ndarray:
    return VideoReformatter().reformat(image, width=width, height=height, format="rgb24", interpolation="BILINEAR").to_ndarray()


@pytest.mark.parametrize("format", ["yuv420p", "yuvj420p", "yuv444p", "nv12", "yuv420p10le", "rgb24"])
@pytest.mark.parametrize(("width", "height"), [(640, 360), (320, 180), (160, 90), (256, 144), (1280, 720), (1400, 800)])
def test_any_size_of_any_format_is_as_by_swscale(format: str, width: int, height: int) -> None:
    image = smooth(1280, 720, format)
    difference = np.abs(RgbScaler()(image, width, height).astype(int) - by_swscale(image, width, height))
    assert difference.mean() < 3  # swscale rounds colours by one level more where it does not scale
    assert np.percentile(difference, 99) <= 9


@pytest.mark.parametrize(
    ("size", "target"), [((1281, 721), (640, 360)), ((1282, 722), (640, 360)), ((643, 643), (107, 107)), ((333, 210), (70, 50))]
)
def test_odd_sizes_stay_in_place(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = smooth(*size, "yuv420p")
    assert np.abs(RgbScaler()(image, *target).astype(int) - by_swscale(image, *target)).mean() < 5


@pytest.mark.parametrize("format", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize(("colorspace", "color_range"), [(1, 1), (5, 1), (5, 2), (1, 0), (2, 0)])
def test_colours_are_those_of_the_tags(format: str, colorspace: int, color_range: int) -> None:
    def tagged(colorspace: int, color_range: int) -> av.VideoFrame:
        image = smooth(640, 360, format)
        image.colorspace, image.color_range = colorspace, color_range
        return image

    ours = RgbScaler()(tagged(colorspace, color_range), 320, 180).astype(int)
    assert np.abs(ours - by_swscale(tagged(colorspace, color_range), 320, 180)).mean() < 3
    assert np.abs(ours - by_swscale(tagged(5 if colorspace == 1 else 1, color_range), 320, 180)).mean() > 5
    if format == "yuv420p":  # yuvj420p says the range itself
        assert np.abs(ours - by_swscale(tagged(colorspace, 1 if color_range == 2 else 2), 320, 180)).mean() > 5


def test_a_picture_is_scaled_alike_whatever_came_before_it() -> None:
    scaler = RgbScaler()
    black = av.VideoFrame.from_ndarray(np.zeros((360, 640, 3), np.uint8), format="rgb24")
    first, other = smooth(640, 360, "yuv420p"), black.reformat(format="yuv420p")
    alone = scaler(first, 160, 90).copy()
    scaler(other, 160, 90)
    np.testing.assert_array_equal(scaler(first, 160, 90), alone)
    np.testing.assert_array_equal(scaler(first, 320, 180), RgbScaler()(first, 320, 180))
