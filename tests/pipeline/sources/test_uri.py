"""The grammar of --source."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.sources.uri import natural, open_source, parse


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: Path, suffix: str = ".png") -> Path:
    path.write_bytes(cv2.imencode(suffix, np.zeros((4, 6, 3), np.uint8))[1].tobytes())
    return path


@pytest.mark.parametrize(
    ("text", "kind", "opens", "name"),
    [
        ("0", "webcam", "0", "0"),
        ("12", "webcam", "12", "12"),
        ("/dev/null", "webcam", "/dev/null", "/dev/null"),
        ("lavfi:testsrc2=size=64x48:rate=30,realtime", "lavfi", "testsrc2=size=64x48:rate=30,realtime", None),
        ("rtsp://u:p@host:8554/a", "stream", "rtsp://u:p@host:8554/a", "rtsp://host:8554/a"),
        ("RTSPS://host/a", "stream", "rtsps://host/a", "RTSPS://host/a"),
        ("http://host/a.m3u8?x=[1]*", "stream", "http://host/a.m3u8?x=[1]*", None),
        ("https://host", "stream", "https://host", None),
        ("demo", "demo", "demo", "demo"),
    ],
)
def test_kinds_that_need_no_file(text: str, kind: str, opens: str, name: str | None) -> None:
    parsed = parse(text)
    assert (parsed.kind, parsed.text, parsed.name) == (kind, opens, name or text)


@pytest.mark.skipif(os.name == "nt", reason="these names are not allowed on Windows")
@pytest.mark.parametrize("name", ["a*.mp4", "a?[1].mp4", "lavfi:x", "a:b.mp4", "ümläut ☺.mov", "-x.mp4", "1234"])
def test_a_path_that_exists_is_never_read_as_a_pattern_or_a_scheme(here: Path, name: str) -> None:
    (here / name).write_bytes(b"x")
    parsed = parse(name)
    assert (parsed.kind, parsed.text, parsed.name) == ("video", name, name)


def test_a_folder_whose_name_is_a_pattern_is_a_folder(here: Path) -> None:
    (here / "shots [1]*").mkdir()
    picture(here / "shots [1]*" / "a.png")
    assert [path.name for path in parse("shots [1]*").paths] == ["a.png"]


def test_a_url_that_exists_as_a_path_is_the_path(here: Path) -> None:
    (here / "http:" / "host").mkdir(parents=True)
    (here / "http:" / "host" / "a.mp4").write_bytes(b"x")
    assert parse("http://host/a.mp4").kind == "video"


def test_the_two_words_win_over_files_and_a_dot_slash_names_the_files(here: Path) -> None:
    for name in ("0", "demo"):
        (here / name).write_bytes(b"x")
    assert [parse(text).kind for text in ("0", "demo", "./0", "./demo")] == ["webcam", "demo", "video", "video"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize("name", ["right{}", "no_suffix", "wrong.mp4"])
def test_a_picture_is_told_by_its_content(tmp_path: Path, suffix: str, name: str) -> None:
    path = picture(tmp_path / name.format(suffix), suffix)
    assert parse(str(path)).paths == (path,)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("video.jpg", b"\0\0\0\x20ftypisom", "video"),
        ("a.gif", b"GIF89a", "video"),
        ("a.webp", b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0", "video"),
        ("a.mjpeg", b"\xff\xd8\xff\xe0", "video"),
        ("BMnotes.mp4", b"BM is how this text begins, and it goes on", "video"),
        ("damaged.jpg", b"no picture", "images"),
        ("empty.jpeg", b"", "images"),
        ("empty.mp4", b"", "video"),
    ],
)
def test_other_contents_and_names(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert parse(str(tmp_path / name)).kind == kind


def test_a_folder_gives_its_own_pictures_in_natural_order(tmp_path: Path) -> None:
    for name in ("img10.png", "img2.png", "IMG1.png", "._img1.png", "img3"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "inner").mkdir()
    picture(tmp_path / "inner" / "a.png")
    assert [path.name for path in parse(str(tmp_path)).paths] == ["IMG1.png", "img2.png", "img3", "img10.png"]


def test_a_pattern_gives_pictures_and_crosses_folders_when_asked(here: Path) -> None:
    (here / "a").mkdir()
    for name in ("b2.png", "b10.png", "a/c.png"):
        picture(here / name)
    (here / "b.txt").write_text("x")
    assert [str(path) for path in parse("b*").paths] == ["b2.png", "b10.png"]
    assert [str(path) for path in parse("**/*.png").paths] == ["a/c.png", "b2.png", "b10.png"]


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a b.mp4").write_bytes(b"x")
    parsed = parse((tmp_path / "a b.mp4").as_uri())
    assert (parsed.kind, parsed.text) == ("video", str(tmp_path / "a b.mp4"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a file"),
        ("missing.mp4", "no file or folder 'missing.mp4'"),
        ("/dev/video99", "no device /dev/video99"),
        ("empty", "has no files"),
        ("texts", "1 files, none of them a picture"),
        ("nothing*.png", "matches nothing"),
        ("texts/*.txt", "none of them a picture"),
        ("ftp://u:secret@host/a", "begins with ftp://, which is not known"),
        ("rtsp:///a", "names no host"),
        ("rtsp://u:secret@host:port/a", "malformed"),
        ("file:///nowhere.mp4", "no file or folder '/nowhere.mp4'"),
        ("lavfi:", "no filter graph"),
        ("a\0b", "expected a file"),
        ("x" * 5000, "no file or folder"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_of_one_line(here: Path, text: str, says: str) -> None:
    (here / "empty").mkdir()
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("x")
    with pytest.raises(UsageError) as caught:
        open_source(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("rtsp://host/a", {"start_s": 1.0}, "live"),
        ("0", {"end_s": 1.0}, "live"),
        ("demo", {"start_s": 3.0, "end_s": 3.0}, "must come after the start"),
        ("demo", {"start_s": -1.0}, "0 or more"),
        ("demo", {"start_s": float("nan")}, "0 or more"),
        ("demo", {"max_frames": 0}, "at least 1"),
    ],
)
def test_cuts_that_make_no_sense_are_refused(text: str, options: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_source(text, **options)  # type: ignore[arg-type]


def test_digits_sort_as_numbers_also_beside_letters() -> None:
    assert sorted(["a10", "a2", "b", "1", "²"], key=natural) == ["1", "a2", "a10", "b", "²"]


def test_importing_the_grammar_and_parsing_loads_neither_av_nor_cv2() -> None:
    code = "import sys, pipeline.sources.uri as u; u.parse('0'); print([m for m in ('av', 'cv2', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
