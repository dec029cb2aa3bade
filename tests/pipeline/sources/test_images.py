"""Pictures as sources."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from reading import read

from pipeline.errors import SourceError
from pipeline.flow.batch import Ended
from pipeline.sources.uri import open_source


def write(path: Path, height: int = 20, width: int = 30, value: int = 50) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, np.full((height, width, 3), value, np.uint8))[1].tobytes())
    return path


def test_one_picture_is_one_frame_with_its_own_path_as_origin(tmp_path: Path) -> None:
    path = write(tmp_path / "ein Bild ☺.png")
    (frame,), ended = read(path)
    assert (frame.source, frame.origin, frame.pts, frame.time_base, frame.index) == (str(path), str(path), 0, Fraction(1), 0)
    assert (frame.width, frame.height, frame.bgr.shape, int(frame.bgr.mean())) == (30, 20, (20, 30, 3), 50)
    assert (frame.info.kind, frame.info.frames, frame.info.path, frame.info.live) == ("image", 1, None, False)
    assert (ended.reason, ended.failed) == ("end of the pictures", False)


def test_the_kept_pixels_are_those_of_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(1).integers(0, 256, (19, 31, 3), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    (frame,), _ = read(path)
    assert np.array_equal(frame.bgr, pixels)
    assert np.array_equal(frame.image.to_ndarray(format="bgr24"), pixels)


def test_a_folder_is_read_in_natural_order_with_index_as_time(tmp_path: Path) -> None:
    for number, size in ((10, 40), (2, 20), (1, 10)):
        write(tmp_path / f"a{number}.jpg", size, size)
    frames, _ = read(tmp_path)
    assert [(Path(frame.origin or "").name, frame.pts_s, frame.width) for frame in frames] == [
        ("a1.jpg", 0.0, 10),
        ("a2.jpg", 1.0, 20),
        ("a10.jpg", 2.0, 40),
    ]
    assert {frame.source for frame in frames} == {str(tmp_path)}
    assert frames[0].info.frames == 3


def test_broken_pictures_of_a_folder_are_named_in_one_warning_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "c.png").write_bytes(b"")
    write(tmp_path / "d.png")
    frames, ended = read(tmp_path)
    assert [(Path(frame.origin or "").name, frame.pts, frame.index) for frame in frames] == [("a.png", 0, 0), ("d.png", 1, 1)]
    assert ended.reason == "end of the pictures; 2 of 4 could not be read"
    (record,) = caplog.records
    assert "b.jpg" in record.getMessage()
    assert "c.png" in record.getMessage()


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut off"])
def test_a_single_broken_picture_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    source = open_source(str(path))
    with pytest.raises(SourceError, match="cannot be read as a picture"):
        list(source.frames())
    assert source.state == "FAILED"


def test_a_folder_of_nothing_but_broken_pictures_is_an_error(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match="none of 2 pictures"):
        list(open_source(str(tmp_path)).frames())


def test_grey_deep_and_transparent_pictures_become_three_channels_of_eight_bits(tmp_path: Path) -> None:
    for name, pixels in {
        "grey.png": np.full((5, 7), 90, np.uint8),
        "deep.png": np.full((5, 7, 3), 90 * 256, np.uint16),
        "clear.png": np.full((5, 7, 4), 90, np.uint8),
    }.items():
        (tmp_path / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    frames, _ = read(tmp_path)
    assert [(frame.bgr.shape, frame.bgr.dtype, int(frame.bgr[0, 0, 0])) for frame in frames] == [((5, 7, 3), np.uint8, 90)] * 3


def test_max_frames_and_interrupt(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.png")
    frames, _ = read(tmp_path, max_frames=2)
    assert (len(frames), frames[0].info.frames) == (2, 2)
    source = open_source(str(tmp_path))
    items = source.frames()
    next(items)
    source.interrupt()
    (ended,) = items
    assert isinstance(ended, Ended)
    assert ended.reason == "stopped"


def test_exif_orientation_is_applied(media: Path) -> None:
    (frame,), _ = read(media / "photos" / "p08_exif_orientation6.jpg")
    assert (frame.width, frame.height) == (1000, 664)


def test_real_photos_all_come(media: Path) -> None:
    frames, _ = read(media / "photos")
    assert [Path(frame.origin or "").name[:3] for frame in frames] == [f"p0{k}" for k in range(1, 9)]
