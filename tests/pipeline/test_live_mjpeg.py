"""A camera over HTTP that changes the size and the pixel format of its pictures in mid-stream, through the whole command."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import portrait
from command import fer, rows
from web import mjpeg, web

HEADS = {(320, 240): 100, (640, 480): 200, (200, 360): 140}
"""Size -> pixels that our detector gives the head's height in such a picture."""
SAMPLINGS = {
    "yuvj420p": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    "yuvj444p": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "gray": (),
}
EACH = 5
"""Pictures before the next change."""


def jpeg(size: tuple[int, int], format: str) -> bytes:
    picture = portrait(size)
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if format == "gray" else picture
    data = cv2.imencode(".jpg", picture, SAMPLINGS[format])[1].tobytes()
    (image,) = av.CodecContext.create("mjpeg", "r").decode(av.Packet(data))
    assert (image.format.name, image.width, image.height) == (format, *size)
    return data


def size_of(face: dict) -> tuple[int, int]:
    """Of the frame that a row is about."""
    return min(HEADS, key=lambda size: abs(HEADS[size] - (face["y2"] - face["y1"])))


def test_size_and_pixel_format_change_in_mid_stream(tmp_path: Path) -> None:
    pictures = [jpeg(size, format) for size, format in itertools.product(HEADS, SAMPLINGS) for _ in range(EACH)]
    video, events, report = tmp_path / "cam.mp4", tmp_path / "cam.jsonl", tmp_path / "cam.html"
    outputs = ("--output", video, "--events", events, "--report", report)
    with web(mjpeg(pictures * 20, 0.04)) as url:
        done = fer("--source", f"{url}/cam", *outputs, "--json", "--quiet", "--max-frames", 135)
    assert (done.returncode, done.stderr) == (0, "")
    ((_, account),) = json.loads(done.stdout)["sources"].items()
    assert account["decoded"] == 135 == account["shown"] + sum(account["dropped"].values())

    found = rows(events)
    assert [json.loads(row["info"])["state"] for row in found if row["kind"] == "source_state"] == ["RUNNING", "ENDED"]
    seen = {row["frame"]: row for row in found if row["kind"] in ("face", "frame")}
    faces = {number: row for number, row in seen.items() if row["kind"] == "face"}
    assert len(seen) == account["shown"]
    assert len(faces) > 0.9 * len(seen)
    assert {size_of(row) for row in faces.values()} == set(HEADS), "rows are in pixels of their own frame"

    with av.open(str(video)) as container:
        images = list(container.decode(video=0))
    assert len({(image.width, image.height) for image in images}) == 1
    times = np.array([row["pts_s"] for row in seen.values()])
    assert [float(image.pts * image.time_base) for image in images] == pytest.approx(times - times[0], abs=1e-4)
    colours = set()
    for number, image in zip(seen, images, strict=True):
        picture = image.to_ndarray(format="rgb24").astype(int)
        colours.add(np.ptp(picture, axis=2).mean() > 10)  # what is drawn covers too little to count
        if number in faces:
            width, height = size_of(faces[number])
            bars = min(picture[:, 0].mean(), picture[0].mean()) < 3
            assert bars == (width * image.height != height * image.width), "another shape is letterboxed, never stretched"
    assert colours == {False, True}
    assert "data:image/jpeg;base64," in report.read_text()
