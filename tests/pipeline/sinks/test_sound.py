"""The sound in an annotated video: copied where it can be, at its own time always."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.flow.batch import Batch, Ended
from pipeline.sinks.video import VideoSink
from pipeline.sources.video import VideoSource
from pipeline.types import SourceInfo

SECONDS = 4


def clip(path: Path, codec: str, layout: str = "stereo", change: Callable[[int, Any], Any] = lambda i, packet: packet) -> Path:
    """Four seconds of pictures, 25 a second, and a beep at each full second; `change(i, packet)` of the sound, None leaves it out."""
    with av.open(str(path), "w") as container:
        rate = 48000 if codec in ("libopus", "mp2") else 8000
        video, audio = container.add_stream("libx264", 25), container.add_stream(codec, rate, layout=layout)
        video.width, video.height = 64, 48
        sent = 0
        resampler = av.AudioResampler(audio.format.name, layout, rate, audio.codec_context.frame_size or 320)
        for i in range(SECONDS * 25):
            image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60 + i, np.uint8), "rgb24")
            image.pts, image.time_base = i, Fraction(1, 25)
            container.mux(video.encode(image))
            count = rate // 25
            wave = 12000 * np.sin(np.arange(count) * 0.3) * (i % 25 < 3)
            sound = av.AudioFrame.from_ndarray(np.repeat(wave, audio.channels).astype(np.int16)[None], "s16", layout)
            sound.sample_rate, sound.pts, sound.time_base = rate, i * count, Fraction(1, rate)
            packets = [packet for frame in resampler.resample(sound) for packet in audio.encode(frame)]
            for packet in packets:
                if (packet := change(sent, packet)) is not None:
                    container.mux(packet)
                sent += 1
        container.mux(video.encode(None))
    return path


def annotated(source: Path, out: Path, start_s: float | None = None) -> Path:
    sink = VideoSink(out)
    for item in VideoSource(str(source), start_s=start_s).frames():
        sink.write(Batch([], [item]) if isinstance(item, Ended) else Batch([item], []))
    sink.close()
    return out


def beeps(path: Path) -> list[float]:
    """When sound begins after a quarter of a second without, seconds."""
    begun, last = [], -9.0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            wave = np.abs(av.AudioResampler("flt", "mono").resample(frame)[0].to_ndarray().ravel())
            for i in np.flatnonzero(wave > 0.1):
                at = float(frame.pts * frame.time_base) + i / frame.sample_rate
                if at - last > 0.25:
                    begun.append(at)
                last = at
    return begun


def codec(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.streams.audio[0].codec_context.name


@pytest.mark.parametrize(
    ("made", "coded", "layout", "suffix", "said"),
    [
        ("in.mov", "pcm_mulaw", "mono", ".mp4", "pcm_mulaw"),
        ("in.mkv", "pcm_s16le", "mono", ".mov", "pcm_s16le"),  # held, but without times
        ("in.mkv", "libopus", "stereo", ".mov", "opus"),  # refused with the header
    ],
)
def test_sound_that_a_container_cannot_hold_becomes_aac(
    tmp_path: Path, make: Any, caplog: pytest.LogCaptureFixture, made: str, coded: str, layout: str, suffix: str, said: str
) -> None:
    out = annotated(clip(tmp_path / made, coded, layout), tmp_path / f"out{suffix}")
    assert codec(out) == "aac"
    assert beeps(out) == pytest.approx(range(SECONDS), abs=0.03)
    assert len(make.video_times(out)) == SECONDS * 25
    told = [record.message for record in caplog.records]
    assert told == [f"{out} cannot hold {said} audio: it is encoded again as AAC"]


def test_sound_that_a_container_can_hold_is_copied(tmp_path: Path, make: Any) -> None:
    source = clip(tmp_path / "in.mkv", "libopus")
    out = annotated(source, tmp_path / "out.mp4")
    assert codec(out) in ("opus", "libopus")
    copied = [data for _, data in make.audio_packets(out)]
    assert copied == [data for _, data in make.audio_packets(source)][-len(copied) :]
    assert len(copied) >= SECONDS * 45


def test_a_hole_in_sound_that_is_encoded_again_stays_where_it_is(tmp_path: Path) -> None:
    gone = range(27, 72)  # 1.08 to 2.88 s: not one beep, the one of 2 s
    source = clip(tmp_path / "in.mkv", "pcm_s16le", "stereo", lambda i, packet: None if i in gone else packet)
    assert beeps(annotated(source, tmp_path / "out.mp4")) == pytest.approx([0, 1, 3], abs=0.03)


def test_sound_that_cannot_be_decoded_is_silence_and_told(tmp_path: Path, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    def damaged(i: int, packet: Any) -> Any:
        if i % 3 != 1:
            return packet
        broken = av.Packet(b"\xff" * packet.size)  # names a predictor that is not there
        broken.pts, broken.dts, broken.duration = packet.pts, packet.dts, packet.duration
        broken.time_base, broken.stream = packet.time_base, packet.stream
        return broken

    source = clip(tmp_path / "in.avi", "adpcm_ms", "mono", damaged)
    out = annotated(source, tmp_path / "out.mp4")
    assert len(make.video_times(out)) == SECONDS * 25
    begun = beeps(out)
    assert len(begun) >= 2
    assert all(abs(at - round(at)) < 0.15 for at in begun)  # a packet is an eighth of a second
    assert any("packets of its sound could not be decoded" in record.message for record in caplog.records)


def test_sound_of_joined_recordings_goes_on_with_the_picture(tmp_path: Path, make: Any) -> None:
    part = clip(tmp_path / "part.ts", "mp2", "mono")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    out = annotated(joined, tmp_path / "out.mp4")
    times = make.video_times(out)
    assert len(times) == 2 * SECONDS * 25
    assert float(times[SECONDS * 25]) == pytest.approx(SECONDS, abs=0.01)
    assert beeps(out) == pytest.approx(range(2 * SECONDS), abs=0.04)


@pytest.mark.parametrize("start_s", [3, 12])
def test_joined_recordings_are_cut_by_their_time_from_the_first_frame_on(tmp_path: Path, make: Any, start_s: int) -> None:
    part = clip(tmp_path / "part.ts", "mp2", "mono")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 4)
    out = annotated(joined, tmp_path / "out.mp4", start_s)
    assert len(make.video_times(out)) == (4 * SECONDS - start_s) * 25
    assert beeps(out) == pytest.approx(range(4 * SECONDS - start_s), abs=0.05)


def test_sound_of_an_unknown_codec_is_left_out_and_told(tmp_path: Path, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    source = clip(tmp_path / "in.mkv", "libopus")
    source.write_bytes(source.read_bytes().replace(b"A_OPUS", b"A_NONE"))
    out = annotated(source, tmp_path / "out.mp4")
    assert len(make.video_times(out)) == SECONDS * 25
    assert make.audio_packets(out) == []
    assert [record.message for record in caplog.records] == [
        f"{source}: the codec of its sound is not known to this FFmpeg; sound is left out, convert it to AAC"
    ]


@pytest.mark.parametrize(
    ("reason", "failed", "last_s"),
    [
        ("end of file", False, 4.0),
        ("end of file; 1 packets of it are damaged", False, 4.0),
        ("failed: the file is cut off", True, 2.0),
        ("stopped", False, 2.0),
    ],
)
def test_sound_goes_on_after_the_picture_of_a_file_that_was_read_to_its_end(
    tmp_path: Path, make: Any, reason: str, failed: bool, last_s: float
) -> None:
    sink = VideoSink(tmp_path / "out.mp4")
    frames = make.drive(sink, make.frames_of(clip(tmp_path / "in.mkv", "libopus"), limit=50), close=False, ended=False)
    sink.write(Batch([], [Ended(frames[0].source, 0, reason, final=True, failed=failed)]))
    sink.close()
    assert float(make.audio_packets(tmp_path / "out.mp4")[-1][0]) == pytest.approx(last_s, abs=0.05)


@pytest.mark.parametrize(("most", "last_s"), [(99, 2.0), (2, 0.8)])
def test_sound_ends_where_it_was_asked_to_though_the_last_frames_are_left_out(tmp_path: Path, make: Any, most: int, last_s: float) -> None:
    sink = VideoSink(tmp_path / "out.mp4")
    frames = list(make.frames_of(clip(tmp_path / "in.mkv", "libopus"), end_s=2.0))[::10][:most]
    make.drive(sink, frames, close=False, ended=False)
    sink.write(Batch([], [Ended(frames[0].source, 0, "end of the part that was asked for", final=True)]))
    sink.close()
    assert float(make.audio_packets(tmp_path / "out.mp4")[-1][0]) == pytest.approx(last_s, abs=0.05)


def test_sound_of_a_pipe_is_told_to_be_left_out(tmp_path: Path, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    info = SourceInfo("-", "video", 64, 48, Fraction(25), has_audio=True)
    make.drive(VideoSink(tmp_path / "out.mp4"), [make.frame(i, source="-", info=info) for i in range(3)])
    assert [record.message for record in caplog.records] == [
        "-: the sound of a pipe, which can be read only once, is left out; save it as a file first"
    ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_of_a_transport_stream_is_copied_without_its_headers(media, tmp_path, make, suffix):
    clip, out = tmp_path / "in.ts", tmp_path / f"out{suffix}"
    with av.open(str(media / "d12_leaves_and_reenters.mp4")) as source, av.open(str(clip), "w") as copy:
        into = {stream.index: copy.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = into[packet.stream.index]
                copy.mux(packet)
    frames = make.drive(VideoSink(out), make.frames_of(clip))
    zero = frames[0].pts * frames[0].time_base  # 1.4 s or so
    assert zero > 0
    assert make.video_times(out)[0] == 0
    got = make.audio_packets(out)
    want = [(time - zero, data[7:]) for time, data in make.audio_packets(clip)]  # an ADTS header has 7 bytes
    kept = want[-len(got) :]
    assert [data for _, data in got] == [data for _, data in kept]
    assert len(got) >= len(want) - 3
    assert np.allclose([float(time) for time, _ in got], [float(time) for time, _ in kept], atol=0.001)
    with av.open(str(out)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 44100 * 9
