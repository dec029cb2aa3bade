"""`fer-bench`: the command line. Each command measures one thing and says where the time goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engines.errors import FerError, UsageError

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


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
    """


def _say(text: str) -> None:
    click.echo(text, err=True)


def _option(*names: str, **kwargs: Any) -> Callable[..., Any]:
    return click.option(*names, show_default=kwargs.get("default") is not None, **kwargs)


_RUN = [
    _option("--source", "-s", default="demo", metavar="SOURCE", help="A video file, or demo."),
    _option("--interval", type=click.IntRange(1, 100), default=1, metavar="N", help="Detect on every N-th frame."),
    _option("--imgsz", type=click.IntRange(64, 4096), default=640, metavar="N", help="Longer side of the detector's input, pixels."),
    _option("--outputs", type=click.Choice(["full", "events"]), default="full", help="Annotated video and rows, or rows only."),
    _option("--runs", type=click.IntRange(1), default=3, metavar="N", help="Rounds, each with every chain in turn."),
    _option("--max-frames", type=click.IntRange(20), metavar="N", help="Only so many frames of the source."),
    _option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="One setting of the full job, e.g. detect.model=faces.onnx."),
    _option("--bare-model", type=click.Path(exists=True), help="Another model for the bare chain."),
    _option("--budget", "budget_s", type=click.FloatRange(1), default=200.0, metavar="S", help="No further round that would end later."),
]
_JSON = click.option("--json", "as_json", is_flag=True, help="The document as JSON, the last line of standard output.")
_REPORT = click.option("--report", type=click.Path(path_type=Path), metavar="FILE.html|DIR", help="A page with plots, self-contained.")
_MODES = click.Choice(["both", "throughput", "latency"])


def _with(options: list[Callable[..., Any]]) -> Callable[..., Any]:
    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return wrap


@cli.command(context_settings=_CONTEXT)
@_with(_RUN)
@_option("--mode", type=_MODES, default="both", help="latency alone skips the comparison.")
@_option("--paced-s", type=click.FloatRange(1), default=20.0, metavar="S", help="Latency: at most so many seconds of the clip.")
@_JSON
@_REPORT
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
    document = run_pipeline(say=_say, **options)
    _show(document, as_json)
    if page is not None:
        from benchmarks.report import write_report

        write_report(document, page)
        _say(f"report: {page}")


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
    """Entry point. Exit code 0, 1 for what failed (a regression too), 2 for what was asked wrongly."""
    code = 0
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
    sys.exit(code)


if __name__ == "__main__":
    main()
