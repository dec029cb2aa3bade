"""Decoding on the GPU is done there or is an error; never on the CPU in silence."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from command import fer

from engines.select import gpu_count
from pipeline.errors import EngineError, SourceError, UsageError
from pipeline.flow.batch import Ended
from pipeline.sources.hardware import hardware
from pipeline.sources.uri import open_source

needs_gpu = pytest.mark.skipif(gpu_count() == 0, reason="needs an NVIDIA GPU")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "c.mp4", "libx264")


def write(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        for i in range(10):
            picture = np.full((192, 320, 3), 20 + 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_gpu_that_is_not_there_is_a_sentence_before_anything_starts(clip: Path) -> None:
    with pytest.raises(EngineError, match=rf"decode\.device cuda:99 is not there: the NVIDIA driver offers {gpu_count()} GPUs"):
        open_source(str(clip), decode="cuda:99")
    with pytest.raises(EngineError, match="set it to cpu"):
        open_source("rtsp://host/a", decode="cuda:99")


def test_the_cpu_needs_nothing_and_other_words_are_refused() -> None:
    assert hardware("cpu") is None
    with pytest.raises(UsageError, match=r"unknown decode\.device 'gpu'; expected cpu, cuda or cuda:N"):
        hardware("gpu")


def test_on_the_command_line_it_is_exit_code_1_and_a_typing_error_is_2(clip: Path, tmp_path: Path) -> None:
    done = fer("--source", clip, "--set", "decode.device=cuda:99", "--output", tmp_path / "o.csv")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "decode.device cuda:99 is not there" in done.stderr
    assert not (tmp_path / "o.csv").exists()
    done = fer("--source", clip, "--set", "decode.device=gpu", "--output", tmp_path / "o.csv")
    assert done.returncode == 2
    assert "decode.device" in done.stderr


@needs_gpu
def test_a_gpu_decodes_the_same_pictures(clip: Path) -> None:
    both = [[one for one in open_source(str(clip), decode=on).frames() if not isinstance(one, Ended)] for on in ("cpu", "cuda")]
    assert [len(frames) for frames in both] == [10, 10]
    for ours, theirs in zip(*both, strict=True):
        assert ours.pts == theirs.pts
        assert np.abs(ours.image.to_ndarray(format="gray").astype(int) - theirs.image.to_ndarray(format="gray")).max() <= 2


@needs_gpu
def test_a_codec_that_the_gpu_does_not_decode_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"set decode\.device to cpu"):
        list(open_source(str(write(tmp_path / "c.avi", "ffv1")), decode="cuda").frames())
