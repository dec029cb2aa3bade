"""How much of the machine's speed the full job keeps: the same clip, in turn, through a bare chain and through fer-stream.

The bare chain is three threads that do only what cannot be left out: PyAV decode → swscale → YOLO11n 640×384 in OpenVINO
bf16 on every frame → x264 ultrafast. No tracking, no classification, no drawing, no rows, not even NMS. It is fixed: when
our detector becomes cheaper, the chain keeps the unpruned one, so that the share says how far the whole has come.

    python -m benchmarks.bare_chain                       # composes the demo clip (1280×720, 300 frames) itself
    python -m benchmarks.bare_chain --clip talk.mp4 --runs 5 --model other/yolo11n_384x640.xml

`fer-bench pipeline` does the same and more; this is the short form.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
from av.video.reformatter import VideoReformatter

from benchmarks.job import Job
from benchmarks.measure import machine_busy_s, others_share, peak_mb, warm_up
from engines.errors import EngineError, ModelError
from engines.preprocess import FILL, letterbox_geometry
from engines.silent import import_silently
from pipeline.flow.channel import EndOfChannel, Receiver, Sender, open_channel
from pipeline.flow.scope import Scope


class BareModel:
    """YOLO11n, any OpenVINO-readable file, compiled for one input of height × width in bf16."""

    def __init__(self, path: Path, height: int, width: int) -> None:
        try:
            ov = import_silently("openvino")
        except ImportError as error:
            raise EngineError("the bare chain runs on OpenVINO, which is not installed; pip install openvino") from error
        core = ov.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot read {path}, the bare chain's model; give a YOLO11n as .xml or .onnx") from error
        shape = model.input(0).partial_shape
        self.nhwc = shape.rank.get_length() == 4 and shape[3].is_static and shape[3].get_length() == 3
        model.reshape([1, height, width, 3] if self.nhwc else [1, 3, height, width])
        if not self.nhwc:  # a plain export: uint8 pixels in, layout and scale in the graph, as ours has them
            prepared = ov.preprocess.PrePostProcessor(model)
            prepared.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
            prepared.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
            prepared.input().model().set_layout(ov.Layout("NCHW"))
            model = prepared.build()
        config = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
        self._request = core.compile_model(model, "CPU", config).create_infer_request()

    def __call__(self, pixels: np.ndarray) -> None:
        self._request.infer([pixels])


def run_bare_chain(job: Job) -> dict[str, Any]:
    """The chain on `job.clip` with its outputs, interval and size; the record that `child` hands on."""
    with av.open(job.clip) as container:
        video = container.streams.video[0]
        geometry = letterbox_geometry(video.width, video.height, job.imgsz)
    assert job.model is not None
    model = BareModel(Path(job.model), geometry.input_height, geometry.input_width)
    taken: list[tuple[float, float]] = []  # when the model's thread took each frame; monotonic and CPU seconds
    scope, errors = Scope(), []
    to_model, from_decoder = open_channel(8, scope)
    to_encoder, from_model = open_channel(8, scope)

    def thread(work: Any, *args: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*args)
            except BaseException as error:
                errors.append(error)
                scope.cancel()

        started = threading.Thread(target=guarded, name=work.__name__.strip("_"), daemon=True)
        started.start()
        return started

    machine, process, began = machine_busy_s(), time.process_time(), time.monotonic()
    threads = [thread(_decode, job, to_model), thread(_infer, job, model, geometry, from_decoder, to_encoder, taken)]
    threads.append(thread(_encode if job.outputs == "full" else _count, Path(job.folder) / "bare.mp4", from_model))
    for one in threads:
        one.join()
    if errors:
        raise errors[0]
    end, end_cpu, warm = time.monotonic(), time.process_time(), warm_up(len(taken))
    return {
        "counted": len(taken) - warm, "begin": taken[warm][0], "begin_cpu": taken[warm][1], "end": end, "end_cpu": end_cpu,
        "frames": len(taken), "others_share": others_share(machine, end_cpu - process, end - began), "peak_mb": peak_mb(),
    }  # fmt: skip


def _decode(job: Job, output: Sender[Any]) -> None:
    with av.open(job.clip) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number == job.max_frames:
                break
            output.send(frame)
    output.close()


def _infer(
    job: Job, model: BareModel, g: Any, frames: Receiver[Any], output: Sender[Any], taken: list[tuple[float, float]]
) -> None:
    scaler, pixels, number = VideoReformatter(), np.full((1, g.input_height, g.input_width, 3), FILL, np.uint8), 0
    try:
        while True:
            frame = frames.receive()
            taken.append((time.monotonic(), time.process_time()))
            if number % job.interval == 0:
                small = scaler.reformat(frame, width=g.resized_width, height=g.resized_height, format="rgb24", interpolation="BILINEAR")
                pixels[0, g.top : g.top + g.resized_height, g.left : g.left + g.resized_width] = small.to_ndarray()
                model(pixels)
            number += 1
            output.send(frame)
    except EndOfChannel:
        output.close()


def _encode(path: Path, frames: Receiver[Any]) -> None:
    with av.open(str(path), "w") as container:
        stream = None
        try:
            while True:
                frame = frames.receive()
                if stream is None:
                    stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "23"})
                    # Odd sizes, which 4:2:0 cannot hold, are scaled by the pixel that is missing.
                    stream.width, stream.height, stream.pix_fmt = frame.width + frame.width % 2, frame.height + frame.height % 2, "yuv420p"
                    stream.codec_context.time_base = stream.time_base = frame.time_base
                frame.pict_type = av.video.frame.PictureType.NONE
                container.mux(stream.encode(frame))
        except EndOfChannel:
            if stream is not None:
                container.mux(stream.encode(None))


def _count(_path: Path, frames: Receiver[Any]) -> None:
    try:
        while True:
            frames.receive()
    except EndOfChannel:
        pass


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__.replace("\n\n", "\n\n\b\n") if __doc__ else None)
@click.option("--clip", type=click.Path(exists=True), help="Video to run; the demo clip where not given.")
@click.option("--model", type=click.Path(exists=True), help="YOLO11n for the bare chain; the kept one where not given.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Of each, alternating.")
@click.option("--interval", type=click.IntRange(1), default=1, show_default=True, help="Detect on every n-th frame, both.")
def main(clip: str | None, model: str | None, runs: int, interval: int) -> None:
    from benchmarks.clips import clip_of
    from benchmarks.throughput import measure_throughput

    with tempfile.TemporaryDirectory() as folder:
        job = Job("full", clip_of(clip or "demo", Path(folder)), folder, interval=interval)
        result = measure_throughput(job, runs=runs, bare_model=model, own=False, say=lambda text: click.echo(text, err=True))
    bare, full, share = result.bare.median, result.full.median, result.efficiency.median
    click.echo(json.dumps({"bare_fps": round(bare, 1), "full_fps": round(full, 1), "share": round(share, 3)}))


if __name__ == "__main__":
    main()
