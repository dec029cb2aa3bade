"""`fer-bench`: the command line. Each command measures one thing and says where the time goes."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.options import BARE, BUDGET, INTERVAL, JSON, LATER, MODES, REPORT, RUN, option, settings_of, with_options
from engines.errors import FerError, UsageError

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@click.group(context_settings=_CONTEXT)
def cli() -> None:
    """Measures fer-stream: against what this machine could do at best, and stage by stage.

    Tables and progress go to standard error; with --json the last line of standard output is one JSON object. Figures of a
    machine that does other things at the same time are worth little: the tables say how much others used it.

    \b
    fer-bench pipeline --source demo                       how fast, how late, where the time goes
    fer-bench pipeline --source talk.mp4 --interval 3 --report talk-bench.html
    fer-bench pipeline --source demo --json > baseline.json
    fer-bench check baseline.json                          is it slower than it was?
    fer-bench engines                                      models, backends, precisions, batches, alone
    fer-bench scale --report scale.html                    faces, sources, resolution, input size
    fer-bench compare --python ~/torch-env/bin/python --checkpoint yolo11n_face.pt
    fer-bench quality talk.mp4 --intervals 3,6             what fewer detections cost in events
    fer-bench tune --goal latency --fps 30 --config camera.yaml
    """


def _say(text: str) -> None:
    click.echo(text, err=True)


@cli.command(context_settings=_CONTEXT)
@with_options(RUN)
@option("--mode", type=MODES, default="both", help="latency alone skips the comparison.")
@option("--paced-s", type=click.FloatRange(1), default=20.0, metavar="S", help="Latency: at most so many seconds of the clip.")
@JSON
@REPORT
def pipeline(as_json: bool, report: Path | None, **options: Any) -> None:
    """How fast, how late, and where the time goes.

    Throughput: the full job and the bare chain (decode, YOLO11n in bf16, encode; nothing else) in turn, as fast as possible;
    the ratio is the efficiency. Latency: the clip at its own rate through a live lane, as from a camera.

    \b
    fer-bench pipeline --source demo
    fer-bench pipeline --source talk.mp4 --outputs events --interval 3 --runs 5
    fer-bench pipeline --source talk.mp4 --report bench/       (writes bench/pipeline.html)
    fer-bench pipeline --source demo --set video.preset=superfast --json | tail -1 | jq .efficiency
    """
    from benchmarks.runs import run_pipeline

    page = _page(report, "pipeline.html")
    _finish(run_pipeline(say=_say, **options), as_json, page)


@cli.command(context_settings=_CONTEXT)
@option("--detector", "detectors", multiple=True, metavar="NAME|PATH", help="Else the shipped one, and in int8 too.")
@option("--classifier", "classifiers", multiple=True, metavar="NAME|PATH", help="Else the shipped one, and in int8 too.")
@option("--backend", "backends", default="openvino,onnxruntime,torch", metavar="A,B", help="Backends; one that is not there says so.")
@option("--precision", "precisions", default="f32,bf16", metavar="A,B", help="Precisions.")
@option("--batch", "batches", default="1,4,16", metavar="N,N", help="Images a call.")
@option("--imgsz", type=click.IntRange(64, 4096), default=640, metavar="N", help="Longer side of the detector's input, pixels.")
@option("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda:0.")
@option("--seconds", type=click.FloatRange(1), default=40.0, metavar="S", help="How long to measure, all together.")
@option("--explain", is_flag=True, help="Run the pipeline, too, and say why it is slower than its engine.")
@JSON
@REPORT
def engines(as_json: bool, report: Path | None, explain: bool, **options: Any) -> None:
    """The engines alone: models × backends × precisions × batch sizes.

    \b
    fer-bench engines
    fer-bench engines --backend openvino --precision f32,bf16,f16 --batch 1
    fer-bench engines --detector mine.onnx --detector yolo11n_face --explain --report engines.html
    """
    from benchmarks import engines as bench

    page = _page(report, "engines.html")
    for name in ("backends", "precisions"):
        options[name] = _list(options[name])
    options["batches"] = [_whole(text, "--batch") for text in _list(options["batches"])]
    document = bench.measure_engines(say=_say, **options)
    if explain:
        bench.add_explanation(document, next(iter(options["detectors"]), None), _say)
    _finish(document, as_json, page)


@cli.command(context_settings=_CONTEXT)
@option("--axis", "axes", default="faces,sources,resolution,imgsz", metavar="A,B", help="Which curves.")
@option("--values", multiple=True, metavar="AXIS=N,N", help="Other points of a curve, e.g. faces=2,16.")
@option("--outputs", type=click.Choice(["full", "events"]), default="events", help="Annotated video and rows, or rows only.")
@INTERVAL
@option("--runs", type=click.IntRange(1), default=2, metavar="N", help="Rounds through all points of a curve.")
@option("--frames", type=click.IntRange(20), default=120, metavar="N", help="Of each clip.")
@option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="One setting of the run.")
@JSON
@REPORT
def scale(as_json: bool, report: Path | None, axes: str, values: tuple[str, ...], changes: tuple[str, ...], **options: Any) -> None:
    """How the speed changes with faces, sources, resolution and input size.

    Composes its own clips; one thing changes at a time. Each point is told as a share of the first one, too.

    \b
    fer-bench scale --report scale.html
    fer-bench scale --axis faces --values faces=2,16 --runs 5      what 16 faces cost over 2
    fer-bench scale --axis sources --set max_batch=8
    """
    from benchmarks.scale import measure_scale

    points = {}
    for text in values:
        name, _, numbers = text.partition("=")
        points[name] = [_whole(number, f"--values {name}=", least=0) for number in _list(numbers)]
        if not points[name]:
            raise UsageError(f"--values {text} names no point; expected AXIS=N,N, e.g. faces=2,16")
    wanted = _list(axes)
    settings = settings_of(changes, "detect.interval", *(["detect.imgsz"] if "imgsz" in wanted else []))
    page = _page(report, "scale.html")
    _finish(measure_scale(axes=wanted, values=points, settings=settings, say=_say, **options), as_json, page)


@cli.command(context_settings=_CONTEXT)
@click.argument("sources", nargs=-1, required=True, metavar="CLIP…")
@option("--intervals", default="3,5,10", metavar="N,N", help="Detect on every n-th frame.")
@option("--imgsz", type=click.IntRange(64, 4096), default=640, metavar="N", help="Longer side of the detector's input, pixels.")
@option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="One setting of all runs; the reference keeps its own budget.")
@JSON
@REPORT
def quality(sources: tuple[str, ...], intervals: str, imgsz: int, changes: tuple[str, ...], as_json: bool, report: Path | None) -> None:
    """What fewer detections cost: events against those of a run that looks at every frame and reads every face.

    Of the faces of both, frame by frame, F1 at an overlap of .5, and how many have the same label. Where either is below .95, the
    speed that an interval brings is paid with events.

    \b
    fer-bench quality demo
    fer-bench quality talk.mp4 street.mp4 --intervals 2,3,5 --report quality.html
    fer-bench quality talk.mp4 --intervals 5 --set classify.max_age_s=0.2
    """
    from benchmarks.quality import measure_intervals

    settings = settings_of(changes, "detect.interval", "detect.imgsz")
    page = _page(report, "quality.html")
    numbers = [_whole(text, "--intervals") for text in _list(intervals)]
    if not numbers:
        raise UsageError("--intervals names no number; e.g. --intervals 3,5")
    _finish(measure_intervals(sources, numbers, imgsz=imgsz, settings=settings, say=_say), as_json, page)


@cli.command(context_settings=_CONTEXT)
@click.argument("baseline", type=click.Path(path_type=Path), metavar="BASELINE.json")
@option("--source", "-s", metavar="SOURCE", help="The clip, where it is not where it was for the baseline.")
@option("--measured", type=click.Path(path_type=Path), metavar="NOW.json", help="Compare with this document instead of measuring.")
@option("--runs", type=click.IntRange(2), default=3, metavar="N", help="Rounds; two at least, or the noise is not known.")
@option("--budget", "budget_s", type=click.FloatRange(1), default=200.0, metavar="S", help=LATER)
@JSON
def check(baseline: Path, as_json: bool, measured: Path | None, **options: Any) -> int:
    """Is it slower than it was? Exit code 1 when it is, beyond the noise of this very run.

    BASELINE.json is what `fer-bench pipeline --json` printed. Shares of the bare chain are compared, never frames per second:
    they hold on a machine that is a little faster or slower, though not on one of another kind.

    \b
    fer-bench pipeline --source demo --json > baseline.json
    fer-bench check baseline.json
    fer-bench check baseline.json --runs 7 --json | tail -1 | jq .ok
    fer-bench check before.json --measured after.json
    """
    from benchmarks.check import check_against, read_baseline, verdict

    then = read_baseline(baseline)
    document = verdict(then, read_baseline(measured)) if measured else check_against(then, say=_say, **options)
    _finish(document, as_json, None)
    if not document["ok"]:
        _say(f"fer-bench: {document['sentence']}")
    return 0 if document["ok"] else 1


@cli.command(context_settings=_CONTEXT)
@with_options([one for one in RUN if one not in (BARE, BUDGET)])
@option("--python", metavar="PATH", help="Python of an environment with torch and ultralytics (and lap).")
@option("--fer-python", metavar="PATH", help="Python of an environment with the fer package.")
@option("--checkpoint", type=click.Path(exists=True, resolve_path=True), help="The detector's .pt; it runs whatever code it holds.")
@option("--rival", "rivals", multiple=True, metavar="NAME", help="script, track-torch, track-openvino, fer-haar, fer-mtcnn; else all.")
@option("--budget", "budget_s", type=click.FloatRange(1), default=600.0, metavar="S", help=LATER)
@JSON
@REPORT
def compare(as_json: bool, report: Path | None, **options: Any) -> None:
    """Against what a user would pick instead, on the same clip, in turn, all doing the full job.

    (a) the usual script; (b) ultralytics track in stream mode, on torch and on its OpenVINO export; (c) the fer package.
    What this machine has no environment for is left out, and said to be. With --interval N (ours alone) the table of event quality
    says what that costs: face F1 and label agreement against detection on every frame, with every face read.

    \b
    fer-bench compare --python ~/torch-env/bin/python --checkpoint yolo11n_face.pt
    fer-bench compare --python ~/torch-env/bin/python --checkpoint yolo11n_face.pt --rival script --max-frames 90
    fer-bench compare --fer-python ~/fer-env/bin/python --interval 3 --report compare.html
    """
    from benchmarks.compare import measure_compare

    page = _page(report, "compare.html")
    _finish(measure_compare(say=_say, **options), as_json, page)


@cli.command(context_settings=_CONTEXT)
@with_options([one for one in RUN if one not in (BARE, BUDGET, INTERVAL)])
@option("--goal", type=click.Choice(["fps", "latency"]), default="fps", help="Most frames a second, or the youngest frames.")
@option("--fps", type=click.FloatRange(1), metavar="X", help="With latency: at least so many frames a second.")
@option("--intervals", default="", metavar="N,N", help="Detection intervals that may be chosen; they change results.")
@option("--config", type=click.Path(path_type=Path), metavar="FILE.yaml", help="Write the settings that reach the goal, for fer-stream.")
@JSON
def tune(as_json: bool, config: Path | None, goal: str, fps: float | None, intervals: str, **options: Any) -> int:
    """Settings for this machine and a goal: threads of the engines, int8 or not, batch, lane, and the interval where you allow it.

    \b
    fer-bench tune --goal fps --config fast.yaml
    fer-bench tune --source talk.mp4 --goal latency --fps 30 --intervals 2,3 --config camera.yaml
    fer-stream --source 0 --config camera.yaml
    """
    from benchmarks import tune as bench

    settings = settings_of(options.pop("changes"), "detect.imgsz")
    if fps is not None and goal == "fps":
        raise UsageError("--fps sets the least for --goal latency; with --goal fps it is what is searched for: leave it out")
    if config is not None and not config.absolute().parent.is_dir():
        raise UsageError(f"--config {config}: the folder {config.parent} does not exist; make it first")
    allowed = [_whole(text, "--intervals") for text in _list(intervals)]
    document = bench.tune(goal=bench.Goal(goal, fps), intervals=allowed, settings=settings, say=_say, **options)
    if config is not None and document["met"]:
        bench.write_config(document, options["imgsz"], settings, config)
        _say(f"configuration: {config}")
    _finish(document, as_json, None)
    if not document["met"]:
        wanted = "let a frame of a live source through" if fps is None else f"reach {fps:g} FPS"
        unwritten = "" if config is None else f", so {config} is not written"
        _say(f"fer-bench: no settings found that {wanted} here{unwritten}; allow an interval (--intervals 2,3) or a smaller --imgsz")
    return 0 if document["met"] else 1


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole(text: str, option: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"{option} takes whole numbers from {least}, with commas between, got {text!r}; e.g. 1,4,16")
    return int(text)


def _finish(document: dict[str, Any], as_json: bool, page: Path | None) -> None:
    """Table, report, and the JSON line last."""
    if page is not None:
        from benchmarks.report import write_report

        write_report(document, page)
        _say(f"report: {page}")
    _show(document, as_json)


def _page(report: Path | None, name: str) -> Path | None:
    """Where the report goes; UsageError before anything is measured."""
    if report is None:
        return None
    if report.suffix.lower() in (".html", ".htm"):
        if not report.absolute().parent.is_dir():
            raise UsageError(f"--report {report}: the folder {report.parent} does not exist; make it first")
        return report
    if report.exists() and not report.is_dir():
        raise UsageError(f"--report {report} is a file that is no .html; name a page or a folder")
    report.mkdir(parents=True, exist_ok=True)
    return report / name


def _show(document: dict[str, Any], as_json: bool) -> None:
    from benchmarks.tables import console, print_document

    print_document(document, console())
    if as_json:
        click.echo(json.dumps(document, allow_nan=False))


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 0, 1 for what failed (a regression too), 2 for what was asked wrongly, 128 + the signal that ended it."""
    code = 0
    # They end it as Ctrl-C does, without a child or a temporary folder left behind. What nohup ignores stays ignored.
    ends = [number for number in _ENDS if signal.getsignal(number) == signal.SIG_DFL]
    for number in ends:
        signal.signal(number, _end)
    try:
        code = cli.main(args=arguments, standalone_mode=False) or 0
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        _say(f"fer-bench: {error.format_message()}")
        code = 2
    except FerError as error:
        _say(f"fer-bench: {' '.join(str(error).split())}")
        code = error.exit_code
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_DFL)
    sys.exit(code)


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
