"""Frames for sinks: real clips decoded by plain PyAV, fake faces with hand-picked numbers."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import supervision as sv

from engines.contract import LABELS
from pipeline.flow.batch import Batch, Ended
from pipeline.types import Frame, SourceInfo


def faces(boxes, emotions=None, ids=None, observed=None, classified=True):
    count = len(boxes)
    emotions = emotions or ["happy"] * count
    smoothed = np.full((count, 7), 0.05, np.float32)
    for i, emotion in enumerate(emotions):
        smoothed[i, LABELS.index(emotion) if emotion in LABELS else 6] = 0.7
    return sv.Detections(
        xyxy=np.asarray(boxes, np.float32).reshape(-1, 4),
        confidence=np.full(count, 0.9, np.float32),
        tracker_id=np.asarray(ids if ids is not None else range(1, count + 1), int),
        data={
            "observed": np.asarray(observed if observed is not None else [True] * count),
            "quality": np.full(count, 0.75, np.float32),
            "probs": smoothed if classified else np.full((count, 7), np.nan, np.float32),
            "smoothed": smoothed,
            "emotion": np.asarray(emotions, object),
        },
    )


def picture(width=64, height=48, shade=90, format="yuv420p"):
    """A grey-ish frame with a gradient, so that a lost row or column shows."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 60 + shade
    image = av.VideoFrame.from_ndarray(np.repeat(ramp[..., None], 3, 2).astype(np.uint8), "rgb24")
    return image if format == "rgb24" else image.reformat(format=format)


def frame(index=0, *, image=None, source="clip.mp4", kind="video", epoch=0, step=1000, faces=None, **more):
    image = image or picture()
    info = more.pop("info", None) or SourceInfo(source, kind, image.width, image.height, Fraction(30))
    looked = np.empty((0, 4), np.float32)
    return Frame(source, epoch, index, index * step, Fraction(1, 30000), 100.0 + index, image, info, faces=faces, hidden=looked, **more)


def frames_of(path, limit=None, start_s=0.0, end_s=None, with_faces=True):
    """A file's frames as its source would give them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        info = SourceInfo(path.name, "video", stream.width, stream.height, stream.average_rate, stream.frames, None, str(path),
                          bool(container.streams.audio), start_s, end_s, stream.sample_aspect_ratio)  # fmt: skip
        first, count = None, 0
        for image in container.decode(stream):
            first = image.pts if first is None else first
            time_s = (image.pts - first) * image.time_base
            if time_s < start_s:
                continue
            if count == limit or (end_s is not None and time_s >= end_s):
                return
            w, h = image.width, image.height
            boxes = [[w * 0.3, h * 0.2, w * 0.5, h * 0.6], [w * 0.7, h * 0.3, w * 0.8, h * 0.5]]
            marked = faces(boxes, ["sad", "happy"]) if with_faces else None
            yield Frame(info.name, 0, count, image.pts, image.time_base, 0.0, image, info, faces=marked)
            count += 1


def end_of(source, **more):
    return Ended(source, more.pop("epoch", 0), more.pop("reason", "end of file"), more.pop("final", True), **more)


def drive(sink, frames, close=True, ended=True):
    """Write frame by frame, then the end; the frames."""
    done = []
    for one in frames:
        sink.write(Batch([one]))
        done.append(one)
    if ended and done:
        sink.write(Batch([], [end_of(done[-1].source)]))
    if close:
        sink.close()
    return done


def video_times(path):
    with av.open(str(path)) as container:
        return [image.pts * image.time_base for image in container.decode(video=0)]


def audio_packets(path):
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


@pytest.fixture(scope="session")
def make():
    """The helpers above, for tests (importlib mode has no importable test modules)."""
    return SimpleNamespace(faces=faces, picture=picture, frame=frame, frames_of=frames_of, end_of=end_of, drive=drive,
                           video_times=video_times, audio_packets=audio_packets)  # fmt: skip
