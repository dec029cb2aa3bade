"""The report: what it says is what was seen; whole or not there; nothing in it reaches out; memory stays bounded."""

from __future__ import annotations

import base64
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import fer

from engines.contract import LABELS
from pipeline.errors import SinkError, UsageError
from pipeline.flow.batch import Batch
from pipeline.sinks.report import MOST_PEOPLE, SHOWN, Bins, ReportSink

NOBODY = np.full(7, np.nan)
LEDGER = {"clip.mp4": {"decoded": 62, "shown": 60, "dropped": {"stale": 2}, "carried": 7}}


class Page(HTMLParser):
    """Tags that are open too long or closed too often, texts, attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data.strip())

    @property
    def words(self) -> str:
        return " ".join(filter(None, self.texts))


@pytest.fixture
def told(tmp_path, make):
    """Two seconds at 30 fps: #1 happy for a second, then sad; #2 only in the second one, uncertain."""
    info = {"run_id": "r1", "purpose": "a <test>", "settings": {"privacy": "none", "smooth": {"tau_s": 0.2}},
            "models": {"detector": {"name": "finder", "sha256": "ab" * 32, "backend": "fake"}}}  # fmt: skip
    sink = ReportSink(tmp_path / "r.html", info=info)
    frames = []
    for i in range(60):
        boxes = [[5, 5, 25, 25]] if i < 30 else [[5, 5, 25, 25], [30, 10, 50, 30]]
        said = ["happy"] if i < 30 else ["sad", "uncertain"]
        frames.append(make.frame(i, faces=make.faces(boxes, said)))
    make.drive(sink, frames)
    sink.finish({"ledger": LEDGER, "seconds": 4.0})
    return (tmp_path / "r.html").read_text()


def test_it_is_one_sound_page_that_reaches_for_nothing(told):
    page = Page(told)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "embed", "a"} & set(page.tags)
    assert all(
        value is None or value.startswith("data:image/jpeg;base64,") for name, value in page.attributes if name in ("src", "href", "srcset")
    )
    assert "http" not in told
    assert "url(" not in told
    assert "@import" not in told
    assert "prefers-color-scheme:dark" in told


def test_shares_are_of_time(told):
    words = Page(told).words
    assert "happy 50% , sad 50%" in words.replace("50%,", "50% ,")  # #1
    assert "uncertain 100% of 1.0 s" in words  # #2
    total = re.search(r'class="legend">(.*?)</ul>', told)[1]
    assert re.findall(r"</i>(\w+) <b>(\d+)%", total) == [
        (label, {"happy": "33", "sad": "33", "uncertain": "33"}.get(label, "0")) for label in SHOWN]  # fmt: skip


def test_there_is_a_table_per_face_and_second(told):
    tables = re.findall(r'<table class="times">(.*?)</table>', told)
    rows = [re.findall(r'<tr><th>([\d:]+)</th><td class="(\w+)">.*?</td><td>([\d.]+)</td>(.*?)</tr>', table) for table in tables]
    assert [[row[:3] for row in table] for table in rows] == [
        [("0:00", "happy", "1.0"), ("0:01", "sad", "1.0")], [("0:01", "uncertain", "1.0")]]  # fmt: skip
    assert re.findall(r">(\d+)</td>", rows[0][0][3]) == ["5", "5", "5", "70", "5", "5", "5"]


def test_a_class_that_the_classifier_lacks_has_a_dash_not_nought(tmp_path, make):
    """Six classes, no disgust; not a face of the first frame was read."""
    sink = ReportSink(tmp_path / "r.html")
    frames = [make.frame(i, faces=make.faces([[5, 5, 25, 25]], ["uncertain" if i == 0 else "happy"])) for i in range(60)]
    for i, one in enumerate(frames):
        one.faces.data["smoothed"][:, slice(None) if i == 0 else LABELS.index("disgust")] = np.nan
    make.drive(sink, frames)
    sink.finish()
    text = (tmp_path / "r.html").read_text()
    shares = re.findall(r"</i>(\w+) <b>([^<]+)</b>", re.search(r'class="legend">(.*?)</ul>', text)[1])
    assert shares == [(label, {"happy": "98%", "disgust": "–", "uncertain": "2%"}.get(label, "0%")) for label in SHOWN]
    (table,) = re.findall(r'<table class="times">(.*?)</table>', text)
    said = [re.findall(r">(\d+|–)</td>", row)[-7:] for row in re.findall(r"<tr><th>\d.*?</tr>", table)]
    assert said == [["5", "–", "5", "70", "5", "5", "5"]] * 2
    assert "nan" not in re.sub(r"base64,[^\"]+", "", text).lower()


def test_the_timeline_shows_when(told):
    first, second = (
        re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="\d+" width="([\d.]+)"', part) for part in re.findall(r"<svg.*?</svg>", told)
    )
    assert first == [("happy", "0.00", "500.00"), ("sad", "500.00", "500.00")]
    assert second == [("uncertain", "500.00", "500.00")]
    assert "<title>0:00.0–0:01.0 happy</title>" in told


def test_facts_law_ledger_models_and_settings_are_there_and_nothing_is_taken_for_markup(told):
    words = Page(told).words
    for fact in (
        "a <test>",
        "Art. 5(1)(f)",
        "Art. 50",
        "2 stale",
        "62",
        "end of file",
        "finder",
        "ab" * 32,
        "smooth.tau_s",
        "0.2",
        "run r1",
        "4.0 s",
    ):
        assert fact in words
    assert "<test>" not in told


def test_each_face_has_a_thumbnail(told):
    pictures = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", told)]
    assert [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape for data in pictures] == [(112, 112, 3)] * 2


def test_the_sharpest_crop_is_taken_not_the_last(tmp_path, make):
    sink = ReportSink(tmp_path / "r.html")
    for i, (quality, shade) in enumerate([(0.2, 60), (0.9, 120), (0.3, 30)]):
        faces = make.faces([[5, 5, 45, 45]])
        faces.data["quality"][:] = quality
        sink.write(Batch([make.frame(i, image=make.picture(shade=shade), faces=faces)]))
    sink.finish()
    data = base64.b64decode(re.search(r"base64,([^\"]+)", (tmp_path / "r.html").read_text())[1])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).mean() > 130


def test_pictures_and_several_sources_share_a_page(tmp_path, make):
    sink = ReportSink(tmp_path / "r.html")
    make.drive(sink, [make.frame(i, source="b/clip.mp4", faces=make.faces([[5, 5, 25, 25]])) for i in range(3)])
    two = make.faces([[5, 5, 25, 25]] * 2, ["sad", "fear"])
    make.drive(sink, [make.frame(i, source="photos", kind="image", origin=f"photos/{i}.png", faces=two) for i in range(2)])
    make.drive(sink, [make.frame(0, source="empty")])
    account = {"decoded": 1, "shown": 1, "dropped": {}, "carried": 0}
    sink.finish({"ledger": dict.fromkeys(("photos", "b/clip.mp4", "empty", "gone"), account)})
    text = (tmp_path / "r.html").read_text()
    assert re.findall(r"<h2>([^<]+)</h2>", text)[:3] == ["photos", "clip.mp4", "empty"]  # as in the run
    assert text.count("0.png") == text.count("1.png") == 2
    assert "No face was found." in text
    assert "no frame came" in text


def test_a_device_is_written_into_and_not_replaced(tmp_path, make):
    (tmp_path / "r.html").symlink_to("/dev/null")
    sink = ReportSink(tmp_path / "r.html")
    sink.write(Batch([make.frame()]))
    sink.finish()
    assert (tmp_path / "r.html").is_symlink()


def test_it_is_whole_or_not_there(tmp_path, make):
    sink = ReportSink(tmp_path / "r.html")
    sink.close()
    sink.finish()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r.html").write_text("mine")
    sink.write(Batch([make.frame()]))
    with pytest.raises(SinkError, match="exists; --overwrite replaces it"):
        sink.finish()
    assert (tmp_path / "r.html").read_text() == "mine"
    other = ReportSink(tmp_path / "gone" / "r.html", overwrite=True)
    other.write(Batch([make.frame()]))
    with pytest.raises(SinkError, match="cannot write the report"):
        other.finish()
    with pytest.raises(UsageError, match=r"suffix must be \.html, got \.pdf"):
        ReportSink("r.pdf")


@pytest.mark.parametrize(("start_s", "seconds"), [(0.0, 0.04), (0.3, 0.3), (4.7, 1.0), (50000.7, 0.1), (0.1 * 3, 0.1)])
def test_time_is_spread_over_bins_without_loss(start_s, seconds):
    bins = Bins(0.1, most_steps=1000)
    bins.add(1, start_s, seconds, 3, NOBODY)
    assert sum(cell.seconds[3] for cell in bins.cells.values()) == pytest.approx(seconds)
    assert len(bins.cells) <= round(seconds / 0.1) + 1


def test_a_day_of_one_face_takes_as_much_memory_as_an_hour():
    timeline, table = Bins(0.1, most_steps=1200), Bins(1.0, most_cells=2000)
    for i in range(86_400):
        for bins in (timeline, table):
            bins.add(1, float(i), 1.0, i % 2, NOBODY)
    assert len(timeline.cells) <= 1200
    assert len(table.cells) <= 2000
    assert table.width_s == 60
    assert sum(cell.seconds.sum() for cell in timeline.cells.values()) == pytest.approx(86_400)


def test_people_beyond_the_limit_are_counted(tmp_path, make):
    sink = ReportSink(tmp_path / "r.html")
    for i in range(MOST_PEOPLE + 20):
        sink.write(Batch([make.frame(i, faces=make.faces([[5, 5, 25, 25]], ids=[i]))]))
    sink.finish()
    assert "20 more faces are counted, not shown." in (tmp_path / "r.html").read_text()


def test_times_that_do_not_begin_at_zero_are_the_rows_times(tmp_path, make):
    sink = ReportSink(tmp_path / "r.html")
    make.drive(sink, [make.frame(i, step=3000, faces=make.faces([[5, 5, 25, 25]])) for i in range(36_000, 36_010)])
    sink.finish()
    assert "1:00:00–1:00:01" in (tmp_path / "r.html").read_text()
    assert Fraction(36_000 * 3000, 30_000) == 3600


def test_the_command_writes_it_with_mosaics_under_privacy(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the demo's portraits are scikit-image's")
    done = fer(
        "--source", "demo", "--max-frames", 8, "--report", tmp_path / "r.html", "--privacy", "blur", "--purpose", "a test", "--quiet"
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "r.html").read_text()
    assert "hidden by mosaics" in text
    for data in re.findall(r"base64,([^\"]+)", text):
        grey = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_GRAYSCALE).astype(int)
        assert np.median(np.abs(np.diff(grey, axis=1))) <= 1  # flat, but for the edges of cells
    again = fer("--source", "demo", "--report", tmp_path / "r.html")
    assert again.returncode == 2
    assert "exists; --overwrite replaces it" in again.stderr
