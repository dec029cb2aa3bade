"""Several sources in one call: lists, patterns of videos, mixtures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from clips import FRAMES, film, needs_ffmpeg, portrait
from command import fer, rows

from pipeline.errors import UsageError
from pipeline.sources.uri import parse_all


def texts(*given: str) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in parse_all(given)]


def test_a_list_holds_a_source_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff")
    path = tmp_path / "all.streams"
    path.write_text("\ufeff# cameras\n\nrtsp://me:secret@host/a\n  0  \na.mp4\n# b.jpg\nb.jpg\ndemo\n", encoding="utf-8")
    found = parse_all([str(path), "lavfi:testsrc"])
    assert [one.kind for one in found] == ["stream", "webcam", "video", "images", "demo", "lavfi"]
    assert found[0].name == "rtsp://host/a"
    assert (found[2].text, found[3].text) == (str(tmp_path / "a.mp4"), str(tmp_path / "b.jpg"))


def test_paths_of_a_list_count_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").touch()
    (tmp_path / "in" / "x.streams").write_text("a.mp4\n")
    monkeypatch.chdir(tmp_path)
    assert texts("in/x.streams") == [("video", "in/a.mp4")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("# nothing\n", "names none"),
        ("demo\n\nnone.mp4\n", "line 3: there is no file"),
        ("rtsp://me:secret@/x\n", "line 1: rtsp:///x names no host"),
        ("x.streams\n", "line 1: .*is a list of sources"),
        ("-\n-\n", "named twice"),
    ],
)
def test_a_wrong_list_says_which_line(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "x.streams"
    path.write_text(content)
    with pytest.raises(UsageError, match=says) as caught:
        parse_all([str(path)])
    assert "secret" not in str(caught.value)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.streams"
    path.write_bytes(b"\xff\xfe\x00\x80" * 9)
    with pytest.raises(UsageError, match="is no UTF-8 text"):
        parse_all([str(path)])


def test_a_pattern_of_videos_is_a_source_each_and_pictures_are_one(tmp_path: Path) -> None:
    for name in ("v10.mp4", "v2.mkv", "notes.txt", "p1.jpg", "p2.jpg"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff" if name.endswith("jpg") else b"")
    assert texts(f"{tmp_path}/v*") == [("video", f"{tmp_path}/v2.mkv"), ("video", f"{tmp_path}/v10.mp4")]
    mixed = parse_all([f"{tmp_path}/*"])
    assert [one.kind for one in mixed] == ["images", "video", "video"]
    assert [path.name for path in mixed[0].paths] == ["p1.jpg", "p2.jpg"]
    with pytest.raises(UsageError, match="matches 1 files, none of them a picture or a video"):
        parse_all([f"{tmp_path}/*.txt"])


def test_a_folder_of_videos_names_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(UsageError, match=r'"[^"]*/\*.mp4" names its videos'):
        parse_all([str(tmp_path)])


@needs_ffmpeg
def test_a_list_with_videos_and_pictures_gives_each_its_own_output(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    for name in ("one.mp4", "two.mkv"):
        film(inside / name, "-c:v", "libx264", "-preset", "ultrafast")
    (inside / "more").mkdir()
    for name in ("face.png", "more/face.png"):
        cv2.imwrite(str(inside / name), portrait())
    (inside / "all.streams").write_text("one.mp4\n*.mkv\nface.png\nmore/face.png\n")
    out = tmp_path / "out"
    done = fer("--source", inside / "all.streams", "--output", f"{out}/", "--events", f"{out}/", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir() if path.suffix == ".png") == ["face.png", "face_2.png"]
    assert {"face.jsonl", "one.jsonl", "one.mp4", "two.jsonl", "two.mp4"} < {path.name for path in out.iterdir()}
    accounts = json.loads(done.stdout)["sources"]
    assert [account["shown"] for account in accounts.values()] == [FRAMES, FRAMES, 1, 1]
    for name in ("one", "two"):
        assert {row["frame"] for row in rows(out / f"{name}.jsonl") if row["kind"] == "face"} == set(range(FRAMES))
