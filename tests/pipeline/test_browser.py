"""The annotated video plays where people will open it: in a browser."""

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
