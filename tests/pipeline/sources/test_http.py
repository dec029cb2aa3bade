"""HLS and MJPEG over HTTP through the whole command: rows, video, and no password anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import pytest
from clips import film, needs_ffmpeg, portrait
from command import faces, fer, rows
from web import files, mjpeg, web


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Files of a folder; /cam is an MJPEG camera."""
    folder = tmp_path / "served"
    folder.mkdir()
    pictures = [cv2.imencode(".jpg", portrait(shift=0.002 * k))[1].tobytes() for k in range(30)]
    camera, folder_files = mjpeg(pictures * 34, 0.05), files(folder)
    with web(lambda request: (camera if request.path.startswith("/cam") else folder_files)(request)) as url:
        yield lambda: url.removeprefix("http://")


def watched(tmp_path: Path, url: str, shown: str, *arguments: object) -> list[dict]:
    """Rows of a run of the command; looks for the password in everything it leaves."""
    outputs = {"--events": tmp_path / "rows.jsonl", "--output": tmp_path / "seen.mp4"}
    done = fer("--source", url, *(part for pair in outputs.items() for part in pair), *arguments, "--json", timeout=90)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout.splitlines()[-1])["sources"]) == [shown]
    for text in (done.stdout, done.stderr, *(path.read_bytes().decode("latin-1") for path in outputs.values())):
        assert "secret" not in text
    found = rows(outputs["--events"])
    assert {row["source"] for row in found if row["kind"] == "face"} == {shown}
    with av.open(str(outputs["--output"])) as container:
        assert sum(1 for _ in container.decode(video=0)) == len({row["frame"] for row in found if row["frame"] is not None})
    return found


@needs_ffmpeg
def test_a_playlist_with_a_password_gives_rows_at_the_pace_of_the_stream(tmp_path: Path, served: Callable[[], str]) -> None:
    film(tmp_path / "served" / "list.m3u8", "-c:v", "libx264", "-preset", "ultrafast", "-g", "12", "-f", "hls", "-hls_time", "0.5",
         "-hls_list_size", "0", frames=200, step=0.0002)  # fmt: skip
    found = watched(tmp_path, f"http://me:secret@{served()}/list.m3u8?token=secret", f"http://{served()}/list.m3u8?token=***")
    times = [row["pts_s"] for row in faces(found)]
    assert times == sorted(times)
    assert times[-1] - times[0] > 1.0, "of 8 s: the first second and more goes into the models' first inference"
    (ledger,) = json.loads(found[-1]["info"])["ledger"].values()
    assert ledger["decoded"] == 200 == ledger["shown"] + sum(ledger["dropped"].values())


def test_a_camera_of_mjpeg_gives_rows_until_it_is_told_to_stop(tmp_path: Path, served: Callable[[], str]) -> None:
    found = watched(tmp_path, f"http://me:secret@{served()}/cam?pwd=secret", f"http://{served()}/cam?pwd=***", "--max-frames", 120)
    assert faces(found)
    assert all(row["time_utc"] for row in faces(found))
