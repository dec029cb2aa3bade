"""Annotated pictures."""

from __future__ import annotations

import cv2
import pytest

from pipeline.errors import SinkError
from pipeline.flow.batch import Batch
from pipeline.sinks.images import ImagesSink
from pipeline.types import SourceInfo


def photo(make, name, index=0, source="photos", **more):
    info = SourceInfo(source, "image", 64, 48, path=None)
    return make.frame(index, source=source, info=info, origin=name, faces=make.faces([[5, 20, 30, 45]]), **more)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff"])
def test_the_suffix_names_the_format(tmp_path, make, suffix):
    out = tmp_path / f"out{suffix}"
    make.drive(ImagesSink(out, purpose="a test"), [photo(make, "in/a.png")])
    image = cv2.imread(str(out))
    assert image.shape == (48, 64, 3)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if suffix in (".png", ".jpg"):
        assert b"Purpose: a test" in out.read_bytes()


def test_png_is_the_frame_but_for_the_marks(tmp_path, make):
    frame = photo(make, "a.png")
    make.drive(ImagesSink(tmp_path / "out.png"), [frame])
    image = cv2.imread(str(tmp_path / "out.png"))
    assert (image[:, 60:] == frame.bgr[:, 60:]).all()
    assert (image != frame.bgr).any()


def test_a_folder_keeps_names_and_numbers_equal_ones(tmp_path, make):
    out = tmp_path / "out"
    names = ["x/a.jpg", "y/a.jpg", "y/A.JPG", "z/b.heic", "c"]
    make.drive(ImagesSink(out), [photo(make, name, i) for i, name in enumerate(names)])
    assert sorted(path.name for path in out.iterdir()) == ["A_3.JPG", "a.jpg", "a_2.jpg", "b.png", "c.png"]


def test_a_pattern_gives_each_picture_the_name_of_its_own(tmp_path, make):
    make.drive(ImagesSink(tmp_path / "{source}_seen.png"), [photo(make, name, i) for i, name in enumerate(["x/a.jpg", "y/a.jpg", "b.png"])])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_2_seen.png", "a_seen.png", "b_seen.png"]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, make):
    name = "é" * 125 + ".png"  # 254 bytes of 255
    make.drive(ImagesSink(tmp_path), [photo(make, f"in/{name}")])
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("suffix", "said"), [(".webp", 1), (".bmp", 1), (".tiff", 1), (".png", 0), (".jpeg", 0)])
def test_a_purpose_that_a_picture_has_no_place_for_is_told_once(tmp_path, make, caplog, suffix, said):
    make.drive(ImagesSink(tmp_path / "out", purpose="a test"), [photo(make, f"{name}{suffix}") for name in "ab"])
    assert sum("have no place for the purpose" in record.message for record in caplog.records) == said
    make.drive(ImagesSink(tmp_path / "more"), [photo(make, f"a{suffix}")])
    assert len(caplog.records) == said


def test_a_second_picture_for_one_file_is_refused(tmp_path, make):
    with pytest.raises(SinkError, match=r"is one picture, but b\.png is a second"):
        make.drive(ImagesSink(tmp_path / "out.png"), [photo(make, "a.png"), photo(make, "b.png", 1)])


def test_never_over_an_input_not_even_when_asked(tmp_path, make):
    origin = tmp_path / "a.png"
    origin.write_bytes(b"the photo")
    with pytest.raises(SinkError, match="is an input"):
        make.drive(ImagesSink(tmp_path, overwrite=True), [photo(make, str(origin))])
    assert origin.read_bytes() == b"the photo"


def test_never_over_another_input(tmp_path, make):
    other = tmp_path / "a.png"
    other.write_bytes(b"another photo")
    sink = ImagesSink(tmp_path, overwrite=True, inputs=[tmp_path / "a.jfif", other])
    with pytest.raises(SinkError, match="is an input"):
        make.drive(sink, [photo(make, str(tmp_path / "a.jfif"))])  # its own suffix cannot be written: .png
    assert other.read_bytes() == b"another photo"


def test_only_pictures_are_written(tmp_path, make):
    sink = ImagesSink(tmp_path / "out")
    make.drive(sink, [make.frame(0), photo(make, "a.png", 1)])
    assert [path.name for path in sink.written] == ["a.png"]


def test_over_an_existing_file_only_when_asked(tmp_path, make):
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    with pytest.raises(SinkError, match="exists; --overwrite"):
        make.drive(ImagesSink(out), [photo(make, "a.png")])
    make.drive(ImagesSink(out, overwrite=True), [photo(make, "a.png")])
    assert out.read_bytes() != b"old"


def test_a_picture_that_cannot_be_finished_leaves_the_old_one_whole_and_no_part(tmp_path, make, monkeypatch):
    out = tmp_path / "out.png"
    out.write_bytes(b"old")

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refused)
    with pytest.raises(SinkError, match="cannot write"):
        ImagesSink(out, overwrite=True).write(Batch([photo(make, "a.png")]))
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_failed_write_leaves_no_part(tmp_path, make):
    folder = tmp_path / "out.png"
    folder.mkdir()
    (folder / "a.png").mkdir()  # a rename onto a folder fails
    with pytest.raises(SinkError, match="cannot write"):
        ImagesSink(folder, overwrite=True).write(Batch([photo(make, "in/a.png")]))
    assert [path.name for path in folder.iterdir()] == ["a.png"]
