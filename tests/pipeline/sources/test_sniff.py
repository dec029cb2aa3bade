"""What a file says of itself: is it whole?"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.flow.batch import Ended
from pipeline.sources.sniff import is_cut_off, mp4_boxes
from pipeline.sources.video import VideoSource


def test_boxes_of_whole_cut_and_foreign_files(make_video: Callable[..., Path], tmp_path: Path) -> None:
    path = make_video()
    boxes = mp4_boxes(path)
    assert boxes is not None
    assert boxes[0][0] == "ftyp"
    assert not boxes[1]
    path.write_bytes(path.read_bytes()[:-10])
    assert mp4_boxes(path)[1]  # type: ignore[index]
    for content in (b"", b"hello", b"hello world\n" * 9, bytes(100)):
        path.write_bytes(content)
        assert mp4_boxes(path) is None


def record(into: str | io.RawIOBase, format: str) -> None:
    with av.open(into, "w", format=format) as container:
        stream = container.add_stream("mpeg4", 25)
        stream.width, stream.height = 64, 48
        for i in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i, np.uint8), "rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi"])
def test_a_file_that_ends_too_early_ends_failed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    record(str(path), {"mkv": "matroska"}.get(name[2:], name[2:]))
    assert not is_cut_off(path)
    path.write_bytes(path.read_bytes()[:-10])
    assert is_cut_off(path)
    if path.suffix not in (".mp4", ".mov"):  # those have lost their index with it
        ended = list(VideoSource(str(path)).frames())[-1]
        assert isinstance(ended, Ended)
        assert ended.failed
        assert "cut off" in ended.reason


def test_a_recording_that_does_not_know_its_length_is_whole(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        """Takes bytes and cannot go back to say how many there were."""

        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[call-overload]
            return len(bytes(data))  # type: ignore[call-overload]

    pipe, path = Pipe(), tmp_path / "a.mkv"
    record(pipe, "matroska")
    for whole in (pipe.data, pipe.data[:-10]):
        path.write_bytes(whole)
        assert not is_cut_off(path)
