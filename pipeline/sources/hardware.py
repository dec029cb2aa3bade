"""NVDEC, the video decoder on NVIDIA GPUs, through PyAV's CUDA device: asked for by `decode.device`, then used or an error.

Decoded pictures come back to the host as NV12, with their display matrix and times, since what follows reads them there.
"""

from __future__ import annotations

import re
from typing import Any

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.error import FFmpegError

from engines.select import gpu_count
from pipeline.errors import EngineError, SourceError, UsageError


def hardware(device: str) -> HWAccel | None:
    """What av.open takes for `decode.device`: None for "cpu". Raises UsageError for other words, EngineError where NVDEC is not there."""
    if device == "cpu":
        return None
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise UsageError(f"unknown decode.device {device!r}; expected cpu, cuda or cuda:N")
    number, gpus = int(match[1] or 0), gpu_count()
    if number >= gpus:
        raise EngineError(f"decode.device {device} is not there: the NVIDIA driver offers {gpus} GPUs to this process; set it to cpu")
    if "cuda" not in hwdevices_available():
        raise EngineError(f"decode.device {device} cannot be used: this PyAV {av.__version__} was built without CUDA; set it to cpu")
    chosen = HWAccel("cuda", str(number), allow_software_fallback=False)
    try:
        chosen.create(av.Codec("h264", "r"))
    except (FFmpegError, NotImplementedError, OSError) as error:
        raise EngineError(f"decode.device {device} does not start ({error}); check nvidia-smi, or set it to cpu") from error
    return chosen


def open_on(chosen: HWAccel | None, *arguments: Any, **keywords: Any) -> Any:
    """av.open, decoding there. Raises SourceError where the GPU knows none of the codecs, else as av.open."""
    try:
        return av.open(*arguments, hwaccel=chosen, **keywords)
    except RuntimeError as error:  # PyAV's "no stream is compatible"
        if chosen is None or isinstance(error, FFmpegError):
            raise
        raise SourceError(f"the GPU does not decode this video ({error}); set decode.device to cpu") from error


def check_stream(stream: Any, chosen: HWAccel | None) -> None:
    """Raises SourceError where this stream, of several, would be decoded on the CPU after all."""
    if chosen is not None and not stream.codec_context.is_hwaccel:
        raise SourceError(f"the GPU does not decode {stream.codec_context.name}, the codec of this video; set decode.device to cpu")
