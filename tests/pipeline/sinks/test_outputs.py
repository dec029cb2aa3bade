"""Which outputs are allowed."""

from __future__ import annotations

import os

import pytest

from pipeline.errors import UsageError
from pipeline.files import event_files, output_files
from pipeline.sinks.outputs import (
    check_folder,
    check_kind,
    check_output,
    is_stream,
    paths_for_sources,
    safe_name,
    unique_names,
    video_suffix,
)
from pipeline.sources.uri import Parsed, parse


def test_never_over_an_input_whatever_the_way_to_it(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to(clip)
    for way in (clip, tmp_path / "link.mp4", tmp_path / "." / "clip.mp4"):
        with pytest.raises(UsageError, match="is an input"):
            check_output(way, inputs=[clip], overwrite=True)


def test_over_an_existing_file_only_when_asked(tmp_path):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"out\.mp4 exists; --overwrite replaces it"):
        check_output(out)
    check_output(out, overwrite=True)


def test_devices_and_pipes_are_never_existing(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for stream in ("-", "/dev/null", fifo):
        assert is_stream(stream)
        check_output(stream)
    assert not is_stream(tmp_path / "no")


def test_the_folder_must_be_there_and_the_file_no_folder(tmp_path):
    with pytest.raises(UsageError, match="does not exist; make it first"):
        check_output(tmp_path / "no" / "out.mp4")
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(UsageError, match="is empty"):
        check_output("")


def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("root may write everywhere")
        with pytest.raises(UsageError, match="may not be written"):
            check_output(tmp_path / "out.mp4")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_for_outputs_may_be_new_but_not_a_file(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / "new")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="must be a folder here, got a file"):
        check_folder(tmp_path / "file")


def test_one_source_takes_the_name_several_a_folder_or_a_pattern(tmp_path):
    assert paths_for_sources("out.mp4", ["a"], suffix=".mp4") == {"a": "out.mp4"}
    assert paths_for_sources("out/", ["a.mp4", "x/a.mov"], suffix=".mp4") == {"a.mp4": "out/a.mp4", "x/a.mov": "out/a_2.mp4"}
    assert paths_for_sources(str(tmp_path), ["cam"], suffix=".csv") == {"cam": str(tmp_path / "cam.csv")}
    assert paths_for_sources("o/{source}_x.mkv", ["a", "b"], suffix=".mp4") == {"a": "o/a_x.mkv", "b": "o/b_x.mkv"}
    for one in ("out.mp4", "/dev/null", "-"):
        with pytest.raises(UsageError, match="names one file for 2 sources"):
            paths_for_sources(one, ["a", "b"], suffix=".mp4")


def test_rows_for_the_standard_output_by_its_device_go_to_what_is_open(tmp_path):
    assert event_files("/dev/stdout", {"demo": parse("demo")}, False) == [(None, "-")]


def test_a_video_is_not_written_into_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(UsageError, match=r"v\.mp4 is a pipe, .*; name a file"):
        output_files(str(tmp_path / "v.mp4"), {"demo": parse("demo")}, False)


def test_a_pattern_for_pictures_ends_in_the_suffix_of_one(tmp_path):
    pictures = {"photos": Parsed("images", "photos", "photos", (tmp_path / "a.jpg", tmp_path / "b.jpg"))}
    assert output_files(f"{tmp_path}/{{source}}.png", pictures, False) == [(None, f"{tmp_path}/{{source}}.png")]
    with pytest.raises(UsageError, match="must end in their suffix"):
        output_files(f"{tmp_path}/{{source}}", pictures, False)


@pytest.mark.parametrize(
    ("source", "name"),
    [("clip.mp4", "clip"), ("/a/b c/é.mov", "é"), ("rtsp://user:secret@cam.lan:554/live/1?token=x", "cam.lan_live_1"), ("0", "0"),
     ("../..", "source"), ("a" * 200, "a" * 80), ("http://h/", "h")],
)  # fmt: skip
def test_names_of_files_are_safe(source, name):
    assert safe_name(source) == name


def test_equal_names_are_numbered():
    assert unique_names(["a.mp4", "A.mp4", "a.mp4", "b"]) == ["a.mp4", "A_2.mp4", "a_3.mp4", "b"]


def test_pictures_become_pictures_and_videos_videos():
    with pytest.raises(UsageError, match="is a video, but the source is pictures"):
        check_kind("out.mp4", {"image"})
    with pytest.raises(UsageError, match="is a picture, but the source is a video"):
        check_kind("out.png", {"video"})
    check_kind("out.png", {"image"})
    check_kind("out.mkv", {"live"})


def test_a_videos_suffix_is_known():
    assert video_suffix("a.MP4") == ".mp4"
    with pytest.raises(UsageError, match="got none"):
        video_suffix("a")
