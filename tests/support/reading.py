"""A source read to its end."""

from __future__ import annotations

from pathlib import Path

from pipeline.flow.batch import Ended
from pipeline.sources.uri import open_source
from pipeline.types import Frame


def read(path: Path | str, **options: object) -> tuple[list[Frame], Ended]:
    source = open_source(str(path), **options)  # type: ignore[arg-type]
    *frames, ended = source.frames()
    assert isinstance(ended, Ended)
    assert ended.final
    assert source.state == ("FAILED" if ended.failed else "ENDED")
    return frames, ended  # type: ignore[return-value]


def greys(frames: list[Frame]) -> list[int]:
    """Which frame of `make_video` (sources/conftest.py) each one is."""
    return [round(float(frame.image.to_ndarray(format="gray").mean()) / 8) % 32 for frame in frames]
