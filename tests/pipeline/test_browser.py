"""The annotated video plays, and the report is legible, where people will open them: in a browser."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from browser import browser
from command import fer

_PLAY = """
const done = arguments[arguments.length - 1], video = document.querySelector('video');
video.muted = true; video.loop = false;
video.onerror = () => done({error: video.error.message});
video.ontimeupdate = () => { if (video.currentTime > 0.5) done({width: video.videoWidth, height: video.videoHeight, time: video.currentTime,
  frames: video.getVideoPlaybackQuality().totalVideoFrames, duration: video.duration}) };
video.play().catch(e => done({error: String(e)}));
"""


@pytest.mark.parametrize("prefix", ["d03", "d10", "d11"])
def test_the_output_plays_in_a_browser(media: Path, tmp_path: Path, prefix: str) -> None:
    source = next(media.glob(f"{prefix}_*"))
    done = fer("--source", source, "--end", 2, "--output", tmp_path / "out.mp4", "--quiet")
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "out.mp4")) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.pix_fmt) == ("h264", "yuv420p")
        size = (video.width, video.height)
    (tmp_path / "page.html").write_text("<video src='out.mp4'></video>")
    with browser() as page:
        page.open((tmp_path / "page.html").as_uri())
        played = page.script(_PLAY)
    assert "error" not in played, played
    assert (played["width"], played["height"]) == size
    assert played["frames"] >= 5


_LOOK = """
const wide = element => element.getBoundingClientRect().width, all = what => [...document.querySelectorAll(what)];
const shown = () => all('table.times').map(one => one.checkVisibility()), before = shown();
all('details').forEach(one => one.open = true);
arguments[arguments.length - 1]({
  faces: all('details summary img').length, pictures: all('img').every(one => one.complete && one.naturalWidth === 112),
  runs: all('svg rect').map(wide), bars: all('.total .bar i').map(wide), before, after: shown(),
  asked: performance.getEntriesByType('resource').length, over: document.documentElement.scrollWidth - window.innerWidth,
  text: document.body.innerText})
"""


@pytest.mark.parametrize("width", [1200, 390])
def test_the_report_is_whole_and_legible_in_a_browser(media: Path, tmp_path: Path, width: int) -> None:
    """Timelines and bars have a size, thumbnails are pictures, tables open, nothing is asked for and nothing sticks out."""
    source = next(media.glob("d03_*"))
    done = fer("--source", source, "--report", tmp_path / "r.html", "--purpose", "a test", "--quiet")
    assert done.returncode == 0, done.stderr
    with browser(width) as page:
        page.open((tmp_path / "r.html").as_uri())
        seen = page.script(_LOOK)
    assert seen["faces"] >= 1
    assert seen["pictures"]
    assert seen["runs"]
    assert min(seen["runs"]) > 0
    assert sum(seen["bars"]) > width / 4
    assert (set(seen["before"]), set(seen["after"])) == ({False}, {True})
    assert (seen["asked"], seen["over"] <= 0) == (0, True)
    for words in ("a test", "Art. 50", "happy", "Where every frame went", "72"):
        assert words in seen["text"]
