"""`fer-stream`: the command line. Parses, calls `pipeline.api`, prints; nothing heavy is imported before it is needed."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from engines.errors import FerError, UsageError

_HELP = """Find the faces in video, follow them, and read their expressions over time.

\b
Examples:
  fer-stream --source demo --output demo.mp4                try it, no camera needed
  fer-stream --source 0                                     webcam, in a window
  fer-stream --source talk.mp4 --output talk-faces.mp4 --events talk.csv
  fer-stream --source talk.mp4 --output safe.mp4 --report talk.html --privacy blur
  fer-stream --source rtsp://user:pass@10.0.0.7/stream --events - | jq .emotion
  fer-stream --source photos/ --output annotated/ --events photos.jsonl
  fer-stream --source a.mp4 --source b.mp4 --output out/ --events out/
  fer-stream --source talk.mp4 --start 1:30 --end 2:00 --json --quiet
  fer-stream --source "day/*.mkv" --stride 5 --events out/  many videos, every fifth frame
  curl -s https://example.org/a.ts | fer-stream --source - --events - --quiet

\b
  fer-stream doctor     what this machine has, and what to do where something is missing
  fer-stream models     what is shipped: licence, data, metrics, hash
  fer-stream config     the settings that a call would run with, and where each comes from

\b
A SOURCE is a webcam (0, /dev/video0), a video file, an rtsp:// or http:// address, a picture, a folder of
pictures, a pattern of pictures or videos ("shots/*.png"), a list of sources (NAME.streams, one a line, # for
comments), - for a video on standard input, or "demo". Without any output a live source opens a window (or
prints rows where there is no display) and a file prints its summary. Ctrl-C ends a run cleanly, twice at once.

Inferring emotions of people at work or in education is prohibited in the EU (AI Act, Art. 5(1)(f)), and people who are
filmed must be told (Art. 50). --purpose is written into every output.
"""


class _Time(click.ParamType):
    """Seconds, or [HH:]MM:SS, as ffmpeg takes them."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        seconds = 0.0
        try:
            parts = [float(part) for part in str(value).split(":")]
            if len(parts) > 3 or any(part < 0 for part in parts) or any(part >= 60 for part in parts[1:]):
                raise ValueError
        except ValueError:
            self.fail(f"{value!r} is not a time; expected seconds (90, 12.5) or [HH:]MM:SS (1:30)", param, ctx)
        for part in parts:
            seconds = seconds * 60 + part
        return seconds


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--source", "-s", "sources", multiple=True, metavar="SOURCE", help="What to watch; may be given several times.")
@click.option("--output", "-o", metavar="PATH", help="Annotated video (.mp4, .mov, .mkv) or picture; a folder for several.")
@click.option("--events", "-e", metavar="PATH", help="Rows, one per face and frame (.jsonl, .csv, .parquet); - for standard output.")
@click.option("--report", metavar="FILE", help="A page about the run (.html): timelines, a table per face and second, thumbnails.")
@click.option("--show", is_flag=True, help="Show the annotated picture in a window.")
@click.option("--detector", metavar="NAME|PATH", help="Face detector: a shipped name or a model file.")
@click.option("--classifier", metavar="NAME|PATH", help="Expression classifier: a shipped name or a model file.")
@click.option("--head", type=click.Choice(["crowd", "fer2013"]), help="Labels as ten taggers gave them (default), or FER2013's own.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "openvino", "torch", "onnxruntime", "tensorrt", "tensorrt-rtx", "fake"]),
    help="What runs the models.",
)
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda:0 …")
@click.option("--imgsz", type=int, metavar="PIXELS", help="Longer side of the detector's input (640).")
@click.option("--conf", type=float, metavar="F", help="Detection score from which a box is a face.")
@click.option("--detect-interval", type=int, metavar="N", help="Look for faces on every N-th frame, carry them between.")
@click.option("--stride", type=click.IntRange(min=1), metavar="N", help="Process every N-th frame, drop the others.")
@click.option("--start", type=_Time(), metavar="T", help="Begin at this time: seconds or [HH:]MM:SS from the first frame.")
@click.option("--end", type=_Time(), metavar="T", help="End at this time.")
@click.option("--max-frames", type=click.IntRange(min=1), metavar="N", help="Stop after so many frames of each source.")
@click.option("--realtime", is_flag=True, help="Pace a file by its own clock.")
@click.option("--top-k", type=click.IntRange(0, 7), metavar="K", help="Probabilities drawn per face (3).")
@click.option("--codec", metavar="NAME", help="h264 (default), hevc, av1, or a machine's own encoder: h264_nvenc, hevc_qsv …")
@click.option("--preset", metavar="P", help="x264 preset (ultrafast).")
@click.option("--crf", type=int, metavar="N", help="x264 quality, 0 best to 51 (23).")
@click.option(
    "--privacy", type=click.Choice(["none", "blur"]), help="blur: a mosaic over every face in all that leaves; looks at every frame."
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option("--purpose", metavar="TEXT", help="Why faces are analysed; written into every output.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings in YAML, or a preset's name (webcam, rtsp, batch, gpu).",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="One setting, e.g. smooth.tau_s=0.4.")
@click.option("--unsafe-pickle", is_flag=True, help="Allow model files that can run code (.pt): only your own.")
@click.option("--json", "as_json", is_flag=True, help="Summary as JSON, the last line of standard output.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing but that line and errors.")
@click.option("--debug", is_flag=True, help="Log everything; show tracebacks.")
@click.version_option(package_name="fer-stream")
def cli(
    sources: tuple[str, ...], config_file: Path | None, changes: tuple[str, ...], as_json: bool, quiet: bool, debug: bool, **options: Any
) -> int:
    _logging(quiet, debug)
    if not sources:
        raise UsageError("no --source given; name what to watch, e.g. --source 0 (webcam), --source video.mp4 or --source demo")
    settings = _settings(changes, options)
    from pipeline.config import find_config, load_config

    config = load_config(find_config(config_file), settings)
    files, limits = ("output", "events", "report", "overwrite"), ("start", "end", "max_frames", "realtime")
    given = {name: options[name] for name in (*files, *limits, "show", "unsafe_pickle")}
    with _Signals() as signals:
        from pipeline.build import Options, build

        run = signals.run = build(config, list(sources), Options(**given, quiet=quiet, interactive=not as_json))
        if signals.last:
            return 128 + signals.last
        result = run.run()
    if not quiet and result["frames"]:
        run.print_summary()
    if as_json:
        import json

        click.echo(json.dumps(result, allow_nan=False))
    for error in run.failures():
        if debug:
            traceback.print_exception(error)
        _say(str(error), 1)
    return 1 if run.failures() else 0


_SETTINGS = {
    "detector": "detect.model", "classifier": "classify.model", "head": "classify.head", "backend": "backend", "device": "device",
    "imgsz": "detect.imgsz", "conf": "detect.conf", "detect_interval": "detect.interval", "top_k": "video.top_k", "preset": "video.preset",
    "crf": "video.crf", "codec": "video.codec", "purpose": "purpose", "stride": "stride", "privacy": "privacy",
}  # fmt: skip
"""Options that are settings under another name."""
_ABOUT_SETTINGS = {*_SETTINGS, "config_file", "changes"}
_CONFIG_HELP = """The settings that a call with these options would run with, as YAML that --config reads, and where each comes from.

\b
  fer-stream config
  fer-stream config --config webcam --conf 0.5 --set smooth.tau_s=0.4
  fer-stream config > mine.yaml
"""


def _settings(changes: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    from pipeline.config import settings_from_changes

    settings = settings_from_changes(changes)
    return settings | {key: options[option] for option, key in _SETTINGS.items() if options[option] is not None}


def _logging(quiet: bool, debug: bool) -> None:
    import logging

    level = logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(
        level=level, format="fer-stream: %(message)s" if not debug else "%(relativeCreated)d %(threadName)s %(name)s: %(message)s"
    )
    if not debug:  # others' debug talk is not ours
        logging.getLogger("pipeline").setLevel(level)


@click.command(name="config", help=_CONFIG_HELP, params=[option for option in cli.params if option.name in _ABOUT_SETTINGS])
def show_config(config_file: Path | None, changes: tuple[str, ...], **options: Any) -> None:
    from pipeline.config import find_config
    from pipeline.show import config_yaml

    origins = {change.partition("=")[0].strip(): "--set" for change in changes}
    origins |= {key: f"--{option.replace('_', '-')}" for option, key in _SETTINGS.items() if options[option] is not None}
    click.echo(config_yaml(find_config(config_file), _settings(changes, options), origins))


@click.command(name="models")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show_models(as_json: bool) -> None:
    """The models that come with fer-stream: what for, licence, what they were trained on, metrics, SHA-256.

    Another one is given by its path: --detector FILE, --classifier FILE.
    """
    from pipeline.show import models, models_text

    found = models()
    if as_json:
        import json

    click.echo(json.dumps(found) if as_json else models_text(found))


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show_doctor(as_json: bool) -> int:
    """What this machine has: codecs, encoders, cameras, display, GPUs, backends, models, disk; and what to do where something
    is missing. Exit code 1 where fer-stream cannot run as it is."""
    from pipeline.doctor import examine, report

    findings = examine()
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        click.echo(report(findings))
    return 1 if any(finding.state == "problem" for finding in findings) else 0


_COMMANDS = {"config": show_config, "models": show_models, "doctor": show_doctor}
"""Beside the plain call, told by the first argument."""


class _Signals:
    """First SIGINT or SIGTERM stops (what was taken is finished), the second cancels.

    Before there is a `run` the first is only noted, since libraries that are interrupted while they are imported hang at the end or
    pass for not installed; the second ends the process, which has nothing to lose yet.
    """

    def __init__(self) -> None:
        self.run: Any = None
        self.last = 0
        """The number of the last one, 0 for none."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on(self, number: int, _frame: object) -> None:
        again, self.last = bool(self.last), number
        if self.run is not None:
            self.run.cancel() if again else self.run.stop()
        elif again:
            os._exit(128 + number)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 0, 1 for what failed while running, 2 for what was asked wrongly."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    command = _COMMANDS.get(arguments[0], cli) if arguments else cli
    # Two Python-bound threads hand over in .65 ms instead of 7.3 ms (median; p99 3.8 instead of 49 ms).
    sys.setswitchinterval(0.0005)
    atexit.register(gc.freeze)  # what is left at the end goes with the process: looking through it takes a fifth of a second
    try:
        if command is cli and arguments and not arguments[0].startswith("-"):
            raise UsageError(_no_command(arguments[0]))
        name = "fer-stream" if command is cli else f"fer-stream {arguments.pop(0)}"
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        code = _say(error.format_message(), 2)
    except FerError as error:
        if debug:
            traceback.print_exc()
        code = _say(str(error), error.exit_code)
    except BrokenPipeError:  # whoever read standard output has gone
        sys.stderr.close()
        code = 1
    except Exception as error:
        if debug:
            raise
        code = _say(f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1)
    sys.exit(code or 0)


def _no_command(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, _COMMANDS, 1)
    return f"{word} is neither an option nor a command; " + (
        f"did you mean: fer-stream {near[0]}" if near else f"sources go behind --source: fer-stream --source {word}")  # fmt: skip


def _say(sentence: str, code: int) -> int:
    click.echo(f"fer-stream: {' '.join(sentence.split())}", err=True)
    return code
