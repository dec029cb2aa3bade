"""How much of the machine's speed the full job keeps: the same clip, in turn, through a bare chain and through fer-stream.

The bare chain is three threads that do only what cannot be left out: PyAV decode → swscale → YOLO11n 640×384 in OpenVINO
bf16 on every frame → x264 ultrafast. No tracking, no classification, no drawing, no rows. Both are measured from the first
frame decoded to the last output closed, alternating, and the share is the ratio of the medians.

    python -m benchmarks.bare_chain                       # composes the demo clip (1280×720, 300 frames) itself
    python -m benchmarks.bare_chain --clip talk.mp4 --runs 5 --model other/yolo11n_384x640.xml
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import av
import click
import numpy as np
from av.video.reformatter import VideoReformatter

from engines.preprocess import FILL, letterbox_geometry
from pipeline.flow.channel import EndOfChannel, open_channel
from pipeline.flow.scope import Scope


class BareModel:
    """YOLO11n, any OpenVINO-readable file, compiled for one input of height × width in bf16."""

    def __init__(self, path: Path, height: int, width: int) -> None:
        import openvino as ov

        core = ov.Core()
        model = core.read_model(path)
        shape = model.input(0).partial_shape
        self.nhwc = shape.rank.get_length() == 4 and shape[3].is_static and shape[3].get_length() == 3
        model.reshape([1, height, width, 3] if self.nhwc else [1, 3, height, width])
        if not self.nhwc:  # a plain export: uint8 pixels in, layout and scale in the graph, as ours has them
            prepared = ov.preprocess.PrePostProcessor(model)
            prepared.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
            prepared.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
            prepared.input().model().set_layout(ov.Layout("NCHW"))
            model = prepared.build()
        self._request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}).create_infer_request()

    def __call__(self, pixels: np.ndarray) -> None:
        self._request.infer([pixels])


def bare_chain(clip: Path, output: Path, model: BareModel, height: int, width: int) -> float:
    """Frames per second of the chain on `clip`, written to `output`."""
    scope = Scope()
    to_model, from_decoder = open_channel(8, scope)
    to_encoder, from_model = open_channel(8, scope)
    began: list[float] = []
    frames = 0

    def decode() -> None:
        with av.open(str(clip)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                if not began:
                    began.append(time.monotonic())
                to_model.send(frame)
        to_model.close()

    def infer() -> None:
        scaler, pixels = VideoReformatter(), np.full((1, height, width, 3), FILL, np.uint8)
        try:
            while True:
                frame = from_decoder.receive()
                g = letterbox_geometry(frame.width, frame.height, max(height, width))
                small = scaler.reformat(frame, width=g.resized_width, height=g.resized_height, format="rgb24", interpolation="BILINEAR")
                pixels[0, g.top : g.top + g.resized_height, g.left : g.left + g.resized_width] = small.to_ndarray()
                model(pixels)
                to_encoder.send(frame)
        except EndOfChannel:
            to_encoder.close()

    threads = [threading.Thread(target=decode, daemon=True), threading.Thread(target=infer, daemon=True)]
    for thread in threads:
        thread.start()
    with av.open(str(output), "w") as container:
        stream = None
        try:
            while True:
                frame = from_model.receive()
                if stream is None:
                    stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "23"})
                    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                    stream.codec_context.time_base = stream.time_base = frame.time_base
                frame.pict_type = av.video.frame.PictureType.NONE
                container.mux(stream.encode(frame))
                frames += 1
        except EndOfChannel:
            container.mux(stream.encode(None))
    seconds = time.monotonic() - began[0]
    for thread in threads:
        thread.join(10)
    return frames / seconds


def full_job(clip: Path, folder: Path, interval: int) -> float:
    """Frames per second of fer-stream on the same clip: annotated video and rows, as `--json` reports it."""
    from pipeline.build import Options, build
    from pipeline.config import load_config

    config = load_config(changes={"detect.interval": interval})
    options = Options(output=str(folder / "full.mp4"), events=str(folder / "full.jsonl"), overwrite=True)
    return float(build(config, [str(clip)], options).run()["fps"])


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__.replace("\n\n", "\n\n\b\n") if __doc__ else None)
@click.option("--clip", type=click.Path(exists=True, path_type=Path), help="Video to run; the demo clip where not given.")
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="YOLO11n for the bare chain; the shipped one where not given.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Of each, alternating.")
@click.option("--interval", type=click.IntRange(1), default=1, show_default=True, help="--detect-interval of the full job.")
def main(clip: Path | None, model: Path | None, runs: int, interval: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if clip is None:
            from pipeline.sources.demo import compose_demo

            clip = folder / "demo.mp4"
            compose_demo(clip)
        with av.open(str(clip)) as container:
            video = container.streams.video[0]
            geometry = letterbox_geometry(video.width, video.height, 640)
        if model is None:
            import engines.models

            model = Path(engines.models.__file__).with_name("yolo11n_face.onnx")
        bare_model = BareModel(model, geometry.input_height, geometry.input_width)
        bare, full = [], []
        bare_chain(clip, folder / "bare.mp4", bare_model, geometry.input_height, geometry.input_width)  # warm-up, not counted
        for i in range(runs):
            bare.append(bare_chain(clip, folder / "bare.mp4", bare_model, geometry.input_height, geometry.input_width))
            full.append(full_job(clip, folder, interval))
            click.echo(f"run {i + 1}/{runs}: bare chain {bare[-1]:.1f} FPS, full job {full[-1]:.1f} FPS", err=True)
    share = statistics.median(full) / statistics.median(bare)
    click.echo(json.dumps({"bare_fps": round(statistics.median(bare), 1), "full_fps": round(statistics.median(full), 1), "share": round(share, 3)}))


if __name__ == "__main__":
    main()
