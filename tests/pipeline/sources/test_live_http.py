"""Streams over HTTP: MJPEG, recordings, playlists, pages."""

import io
import itertools
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from cameras import QUICK, Pauses, camera, up_to
from clips import combing, film, needs_ffmpeg
from web import Handle, Request, files, mjpeg, self_signed, web

from pipeline.flow.batch import Ended
from pipeline.sources.live import LiveSource
from pipeline.types import Frame


def test_mjpeg_over_http_has_the_times_of_arrival_and_is_tried_again_when_it_ends() -> None:
    pictures = [cv2.imencode(".jpg", np.full((48, 64, 3), 10 * k, np.uint8))[1].tobytes() for k in range(20)]
    with web(mjpeg(pictures, 0.1)) as url:
        items = camera(f"{url}/stream?pwd=secret").frames()
        *first, ended = up_to(items, lambda item: isinstance(item, Ended))
        (*_, again) = up_to(items, lambda item: isinstance(item, Frame))
        items.close()  # type: ignore[attr-defined]
    assert len(first) >= 15
    assert isinstance(ended, Ended)
    assert (ended.final, again.epoch, again.source) == (False, 1, f"{url}/stream?pwd=***")
    frames = [item for item in first if isinstance(item, Frame)]
    for a, b in itertools.pairwise(frames):
        assert b.pts_s - a.pts_s == pytest.approx(b.captured_at - a.captured_at, abs=0.001)


def test_a_camera_slower_than_half_the_time_out_stays_connected() -> None:
    picture = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    with web(mjpeg([picture] * 9, 0.6)) as url:  # the time-out is a second
        items = camera(f"{url}/stream").frames()
        got = up_to(items, lambda item: isinstance(item, Ended) or item.index == 2)
        items.close()  # type: ignore[attr-defined]
    assert [type(item) for item in got] == [Frame] * 3


@needs_ffmpeg
def test_a_playlist_whose_time_begins_anew_is_paced_on_and_ends(tmp_path: Path) -> None:
    for name, frames in (("a.ts", 60), ("b.ts", 30)):
        film(tmp_path / name, "-c:v", "libx264", "-preset", "ultrafast", "-g", "10", size=(64, 48), frames=frames, rate=30)
    parts = "#EXTINF:2.0,\na.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:1.0,\nb.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD\n{parts}")
    with web(files(tmp_path)) as url:
        *frames, ended = camera(f"{url}/list.m3u8").frames()
    assert isinstance(ended, Ended)
    assert (len(frames), ended.reason, ended.failed) == (90, "end of file", False)
    begun = frames[0].captured_at  # type: ignore[union-attr]
    late = [frame.captured_at - begun - k / 30 for k, frame in enumerate(frames)]  # type: ignore[union-attr]
    assert min(late) > -0.1  # none before its time


def _serve(content: bytes, most: int | None = None) -> Handle:
    def handle(request: Request) -> None:
        first = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        body = io.BytesIO(content[first:most])
        while block := body.read(65536):
            request.wfile.write(block)

    return handle


def test_a_recording_over_http_is_paced_and_ends(media: Path) -> None:
    with web(_serve((media / "d03_neutral_to_smile.mp4").read_bytes())) as url:
        source = camera(f"{url}/a.mp4")
        begun = time.monotonic()
        *frames, ended = source.frames()
        assert 2.2 < time.monotonic() - begun < 20
    assert isinstance(ended, Ended)
    assert (len(frames), ended.reason, ended.final, ended.failed) == (72, "end of file", True, False)
    assert frames[0].info.duration_s == pytest.approx(2.43, abs=0.1)  # type: ignore[union-attr]


def test_a_recording_comes_over_tls_whoever_vouches_for_the_server(media: Path, tmp_path: Path) -> None:
    with web(_serve((media / "d03_neutral_to_smile.mp4").read_bytes()), self_signed(tmp_path)) as url:
        assert url.startswith("https://")
        *frames, ended = camera(f"{url}/a.mp4").frames()
    assert isinstance(ended, Ended)
    assert (len(frames), ended.reason) == (72, "end of file")


def test_a_server_without_ranges_and_an_index_at_the_end_of_the_file_say_what_to_do(media: Path) -> None:
    with web(files(media)) as url:
        source = LiveSource(f"{url}/d03_neutral_to_smile.mp4", kind="stream", name="x", settings=QUICK, wait=Pauses(1))
        list(source.frames())
    assert source.last_error is not None
    assert "answers byte ranges" in source.last_error
    assert "faststart" in source.last_error


def test_a_page_that_is_no_video_keeps_the_reason() -> None:
    def page(request: Request) -> None:
        request.send_response(200)
        if request.path == "/length":
            request.send_header("Content-Length", "900")
        request.end_headers()
        request.wfile.write(b"<html>hello</html>" * 50)

    with web(page) as url:
        for path in ("/", "/length"):
            source = LiveSource(url + path, kind="stream", name="x", settings=QUICK, wait=Pauses(1))
            list(source.frames())
            assert source.last_error is not None
            assert "no video" in source.last_error


def test_a_recording_over_http_that_breaks_off_fails(media: Path) -> None:
    content = (media / "d02_sad_to_laugh.mp4").read_bytes()
    served: list[str] = []

    def once(request: Request) -> None:
        served.append(request.path)
        _serve(content, most=200_000)(request)

    with web(once) as url:
        source = camera(f"{url}/a.mp4")
        *frames, ended = source.frames()
    assert frames
    assert isinstance(ended, Ended)
    assert (ended.final, ended.failed, source.state) == (True, True, "FAILED")
    assert ended.reason.startswith("failed: ")


@needs_ffmpeg
def test_a_transport_stream_of_fields_without_an_end_gives_whole_pictures(tmp_path: Path) -> None:
    """As a tuner sends it; when the line breaks, the picture that waited for its neighbour comes before the end of the epoch."""
    fields = ("-vf", "tinterlace=4", "-c:v", "mpeg2video", "-q:v", "3", "-bf", "0", "-flags", "+ilme+ildct", "-top", "1")
    content = film(tmp_path / "fields.ts", *fields, size=(320, 240), frames=24, rate=50, step=0.02).read_bytes()

    def tuner(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "video/mp2t")
        request.end_headers()
        request.wfile.write(content)

    with web(tuner) as url:
        items = camera(f"{url}/live.ts").frames()
        *first, ended = up_to(items, lambda item: isinstance(item, Ended))
        *_, again = up_to(items, lambda item: isinstance(item, Frame))
        items.close()  # type: ignore[attr-defined]
    frames = [item for item in first if isinstance(item, Frame)]
    assert isinstance(ended, Ended)
    assert (ended.final, again.epoch, again.index) == (False, 1, len(frames))  # type: ignore[union-attr]
    assert len(frames) == 11, "12 less the one that the decoder keeps when the line breaks"
    assert {b.pts - a.pts for a, b in itertools.pairwise(frames)} == {3600}
    assert max(combing(frame.image.to_ndarray(format="gray")) for frame in frames) < 0.7


def test_a_playlist_comes_at_the_pace_of_its_frames_and_ends(tmp_path: Path) -> None:
    _segments(tmp_path)

    with web(files(tmp_path)) as url:
        source = camera(f"{url}/a.m3u8")
        begun = time.monotonic()
        *frames, ended = source.frames()
        assert time.monotonic() - begun > 1.8
    assert isinstance(ended, Ended)
    assert (len(frames), ended.reason) == (50, "end of file")


def _segments(folder: Path) -> None:
    """Two seconds of HLS in two segments."""
    with av.open(str(folder / "a.m3u8"), "w", format="hls", options={"hls_time": "1", "hls_playlist_type": "vod"}) as out:
        stream = out.add_stream("libx264", rate=25, options={"g": "25", "keyint_min": "25", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(50):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def test_a_host_that_is_not_known_is_named_without_its_password() -> None:
    source = LiveSource("http://user:secret@nonexistent.invalid/a", kind="stream", name="x", settings=QUICK, wait=Pauses(1))
    list(source.frames())
    assert source.last_error == "the host name nonexistent.invalid is not known"
