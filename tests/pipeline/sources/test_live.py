"""Cameras and streams, against real servers: connect, lose, connect again, end."""

import itertools
import logging
import socket
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from cameras import QUICK, Pauses, Reader, camera, frames_up_to, up_to
from clips import combing, film, needs_ffmpeg
from rtsp import RtspServer, free_port, rtsp_server

from pipeline.config import Live
from pipeline.errors import SourceError
from pipeline.flow.batch import Ended
from pipeline.sources.live import LiveSource
from pipeline.sources.uri import open_source
from pipeline.types import Frame

__all__ = ["rtsp_server"]

def test_a_camera_delivers_frames_with_growing_time_and_stops(rtsp_server: Callable[..., RtspServer]) -> None:
    source = camera(rtsp_server().url("/live"))
    items = source.frames()
    frames = frames_up_to(items, 40)
    assert [frame.index for frame in frames] == list(range(41))
    assert frames[0].pts == 0
    assert {b.pts - a.pts for a, b in itertools.pairwise(frames)} == {3600}
    assert {(frame.time_base, frame.image.time_base) for frame in frames} == {(Fraction(1, 90000),) * 2}
    assert all(frame.time_utc is not None and frame.time_utc.tzinfo is not None for frame in frames)
    info = frames[0].info
    assert (info.kind, info.width, info.height, info.path, info.has_audio, info.live) == ("live", 320, 240, None, False, True)
    assert (source.state, source.last_error) == ("RUNNING", None)
    source.interrupt()
    *_, ended = items
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.final, ended.failed, source.state) == ("stopped", True, False, "ENDED")


def test_a_server_that_dies_and_comes_back_begins_an_epoch_and_time_goes_on(
    rtsp_server: Callable[..., RtspServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = rtsp_server()
    source = camera(server.url("/live"))
    items = source.frames()
    first = frames_up_to(items, 20)
    server.kill()
    *rest, ended = up_to(items, lambda item: isinstance(item, Ended))
    first += rest  # type: ignore[arg-type]
    assert isinstance(ended, Ended)
    assert (ended.epoch, ended.final, ended.reason, source.state) == (0, False, "lost: the stream ended", "LOST")
    server.start()
    second = frames_up_to(items, first[-1].index + 20, epoch=1)
    frames = [*first, *second]
    assert [frame.epoch for frame in frames] == [0] * len(first) + [1] * len(second)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(a.pts < b.pts for a, b in itertools.pairwise(frames))
    gap = second[0].captured_at - first[-1].captured_at
    assert second[0].pts_s - first[-1].pts_s == pytest.approx(gap, abs=0.001)
    assert (source.state, source.last_error) == ("RUNNING", None)
    assert first[0].info is not second[0].info
    assert len({id(frame.info) for frame in frames}) == 2
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [("is lost" in message, "is back" in message) for message in messages] == [(True, False), (False, True)]
    source.interrupt()
    assert [item for item in items if isinstance(item, Ended)][-1].epoch == 1


def test_a_frozen_server_is_lost_within_the_read_time_out_and_comes_back(rtsp_server: Callable[..., RtspServer]) -> None:
    server = rtsp_server()
    source = camera(server.url("/live"))
    items = source.frames()
    frames_up_to(items, 20)
    server.freeze()
    frozen = time.monotonic()
    *_, ended = up_to(items, lambda item: isinstance(item, Ended))
    assert QUICK.read_timeout_s * 0.5 < time.monotonic() - frozen < QUICK.read_timeout_s + 2
    assert isinstance(ended, Ended)
    assert ended.reason.startswith("lost: no answer within")
    assert source.state == "LOST"
    server.thaw()
    (*_, frame) = up_to(items, lambda item: isinstance(item, Frame) and item.epoch == 1)
    assert isinstance(frame, Frame)
    assert source.state == "RUNNING"


def test_a_session_that_stays_but_sends_no_picture_is_lost(rtsp_server: Callable[..., RtspServer]) -> None:
    items = camera(rtsp_server().url("/silent")).frames()
    begun = time.monotonic()
    *frames, ended = up_to(items, lambda item: isinstance(item, Ended))
    assert len(frames) >= 20
    assert isinstance(ended, Ended)
    assert not ended.final
    assert time.monotonic() - begun < 1 + QUICK.read_timeout_s + 3
    items.close()  # type: ignore[attr-defined]


@needs_ffmpeg
def test_a_camera_that_sends_fields_gives_whole_pictures_at_their_times(
    rtsp_server: Callable[..., RtspServer], tmp_path: Path
) -> None:
    fields = ("-vf", "tinterlace=4", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-flags", "+ilme+ildct", "-x264opts", "tff=1")
    clip = film(tmp_path / "fields.mp4", *fields, frames=24, rate=50, step=0.02)
    with av.open(str(clip)) as container:
        plain = [image.to_ndarray(format="gray") for image in container.decode(video=0)]
    *frames, ended = camera(rtsp_server(clip=clip).url("/file")).frames()
    assert isinstance(ended, Ended)
    assert ended.reason == "end of file"
    assert len(frames) == len(plain) == 12
    assert [frame.index for frame in frames] == list(range(12))
    assert {b.pts - a.pts for a, b in itertools.pairwise(frames)} == {3600}
    assert all(a.captured_at <= b.captured_at and a.time_utc <= b.time_utc for a, b in itertools.pairwise(frames))
    assert min(map(combing, plain)) > 1.0
    assert max(combing(frame.image.to_ndarray(format="gray")) for frame in frames) < 0.7


def test_a_recording_on_a_server_ends_at_its_end(rtsp_server: Callable[..., RtspServer], media: Path) -> None:
    source = camera(rtsp_server(clip=media / "d03_neutral_to_smile.mp4").url("/file"))
    *frames, ended = source.frames()
    assert isinstance(ended, Ended)
    assert (len(frames), ended.reason, ended.final, source.state) == (72, "end of file", True, "ENDED")


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_passwords_are_used_and_never_shown(
    rtsp_server: Callable[..., RtspServer], caplog: pytest.LogCaptureFixture, auth: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server = rtsp_server(user="cam", password="s3cret!x", auth=auth)
    right = camera(server.url("/live", "cam", "s3cret!x"))
    items = right.frames()
    frame = frames_up_to(items, 3)[0]
    server.kill()
    *_, lost = up_to(items, lambda item: isinstance(item, Ended))
    server.start()
    wrong = camera(server.url("/live", "cam", "wrong-one"))
    reader = Reader(wrong)
    reader.wait_for_pause()
    assert wrong.last_error == "the server wants a user and password, or refused those given (401)"
    assert wrong.state == "CONNECTING"
    ended = reader.stop()
    right.interrupt()
    rest = list(items)
    shown = f"{right.name} {wrong.name} {frame} {frame.info} {lost} {ended} {rest} {wrong.last_error} {right.last_error} {caplog.text}"
    assert f"rtsp://127.0.0.1:{server.port}/live" in shown
    for secret in ("s3cret", "wrong-one", "cam:"):
        assert secret not in shown


def test_an_absent_camera_is_tried_again_with_growing_pauses_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    pauses = Pauses(6)
    settings = Live(backoff_s=0.5, backoff_max_s=3.0)
    url = f"rtsp://user:secret@127.0.0.1:{free_port()}/a"
    source = LiveSource(url, kind="stream", name="door", settings=settings, wait=pauses)
    (ended,) = source.frames()
    assert pauses.asked == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert source.last_error == "connection refused: nothing listens at that host and port"
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.epoch, ended.final, ended.failed) == ("stopped", 0, True, False)
    (record,) = caplog.records
    assert record.getMessage().startswith("door cannot be reached yet: connection refused")


def test_a_stream_that_is_not_there_keeps_the_reason(rtsp_server: Callable[..., RtspServer]) -> None:
    source = LiveSource(rtsp_server().url("/nothing"), kind="stream", name="x", settings=QUICK, wait=Pauses(2))
    list(source.frames())
    assert source.last_error == "the server has no such stream (404)"


def test_a_camera_that_appears_later_is_found(rtsp_server: Callable[..., RtspServer]) -> None:
    server = rtsp_server()
    server.kill()
    source = camera(server.url("/live"))
    reader = Reader(source)
    reader.wait_for_pause()
    assert source.state == "CONNECTING"
    server.start()
    reader.wait(lambda: bool(reader.items))
    assert reader.items[0].epoch == 0
    assert source.state == "RUNNING"
    reader.stop()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_accepts_and_never_answers_is_given_up_within_the_open_time_out(scheme: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        url = f"{scheme}://user:secret@127.0.0.1:{listener.getsockname()[1]}/a"
        settings = Live(open_timeout_s=0.5)
        source = LiveSource(url, kind="stream", name="x", settings=settings, wait=Pauses(1))
        begun = time.monotonic()
        (ended,) = source.frames()
        assert 0.4 < time.monotonic() - begun < 3
        assert isinstance(ended, Ended)
        assert source.last_error is not None
        assert "no answer" in source.last_error
        assert "secret" not in source.last_error


def test_an_interrupt_ends_a_long_pause_at_once() -> None:
    source = open_source(f"rtsp://127.0.0.1:{free_port()}/a", live=Live(backoff_s=1000, backoff_max_s=1000))
    assert isinstance(source, LiveSource)
    reader = Reader(source)
    reader.wait_for_pause()
    begun = time.monotonic()
    assert reader.stop().reason == "stopped"
    assert time.monotonic() - begun < 5


def test_closing_the_generator_closes_the_connection(rtsp_server: Callable[..., RtspServer]) -> None:
    port = rtsp_server().port
    items = camera(f"rtsp://127.0.0.1:{port}/live").frames()
    frames_up_to(items, 2)
    before = _connections(port)
    items.close()  # type: ignore[attr-defined]
    if before is not None:
        assert (before, _connections(port)) == (1, 0)


def _connections(port: int) -> int | None:
    """Established connections to a port of the loopback, by the kernel's table; None where there is none."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        return None
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


# Test inputs and webcams


def test_a_test_input_runs_through_the_webcams_path_and_ends() -> None:
    source = camera("lavfi:testsrc2=size=320x240:rate=30:duration=0.5,realtime")
    *frames, ended = source.frames()
    assert isinstance(ended, Ended)
    assert len(frames) in (15, 16)
    assert {b.pts - a.pts for a, b in itertools.pairwise(frames)} == {3000}
    assert {frame.image.duration * frame.time_base for frame in frames} == {Fraction(1, 30)}
    assert (ended.reason, ended.final, ended.failed, source.live) == ("end of the test input", True, False, True)


def test_max_frames_ends_a_live_source() -> None:
    *frames, ended = camera("lavfi:testsrc2=size=64x48:rate=30", max_frames=5).frames()
    assert isinstance(ended, Ended)
    assert (len(frames), ended.reason, ended.final) == (5, "end of the part that was asked for", True)


@pytest.mark.parametrize(("ratio", "shape"), [("16/11", Fraction(16, 11)), ("1", None), ("1000", None)])
def test_the_shape_of_a_cameras_pixels_is_told_where_it_can_be(ratio: str, shape: Fraction | None) -> None:
    frame, _ = camera(f"lavfi:testsrc2=size=64x48:rate=30,setsar={ratio}", max_frames=1).frames()
    assert frame.info.pixel_shape == shape


def test_captured_at_is_of_the_given_clock() -> None:
    ticks = itertools.count(100.0, 0.5)
    *frames, _ = camera("lavfi:testsrc2=size=64x48:rate=30", max_frames=3, clock=lambda: next(ticks)).frames()
    assert all(frame.captured_at >= 100 and frame.captured_at % 0.5 == 0 for frame in frames)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("99", "there is no webcam /dev/video99; webcams found:"),
        ("/dev/null", "/dev/null is a device, but not a webcam"),
        ("lavfi:nonsense", "the test input lavfi:nonsense cannot be opened"),
        ("lavfi:anullsrc", "the test input lavfi:anullsrc cannot be opened (it has no video stream"),
    ],
)
def test_a_webcam_that_is_not_there_fails_at_once(text: str, says: str) -> None:
    source = camera(text)
    with pytest.raises(SourceError) as caught:
        list(source.frames())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (source.state, caught.value.exit_code) == ("FAILED", 1)
