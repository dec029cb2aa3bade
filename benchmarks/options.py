"""Options that several commands of `fer-bench` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from engines.errors import UsageError


def option(*names: str, **kwargs: Any) -> Callable[..., Any]:
    """click.option, with its default in the help where it has one."""
    return click.option(*names, show_default=kwargs.get("default") is not None, **kwargs)


BARE = option("--bare-model", type=click.Path(exists=True, resolve_path=True), help="Another model for the bare chain.")
LATER = "No further round that would end later."
BUDGET = option("--budget", "budget_s", type=click.FloatRange(1), default=200.0, metavar="S", help=LATER)
INTERVAL = option("--interval", type=click.IntRange(1, 100), default=1, metavar="N", help="Detect on every N-th frame.")
RUN = [
    option("--source", "-s", default="demo", metavar="SOURCE", help="A video file, or demo."),
    INTERVAL,
    option("--imgsz", type=click.IntRange(64, 4096), default=640, metavar="N", help="Longer side of the detector's input, pixels."),
    option("--outputs", type=click.Choice(["full", "events"]), default="full", help="Annotated video and rows, or rows only."),
    option("--runs", type=click.IntRange(1), default=3, metavar="N", help="Rounds, each with every chain in turn."),
    option("--max-frames", type=click.IntRange(20), metavar="N", help="Only so many frames of the source."),
    option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="One setting of the full job, e.g. detect.model=faces.onnx."),
    BARE,
    BUDGET,
]
JSON = click.option("--json", "as_json", is_flag=True, help="The document as JSON, the last line of standard output.")
REPORT = click.option("--report", type=click.Path(path_type=Path), metavar="FILE.html|DIR", help="A page with plots, self-contained.")
MODES = click.Choice(["both", "throughput", "latency"])
_INSTEAD = {
    "detect.interval": "use --interval (quality: --intervals), which all that is compared obeys",
    "detect.imgsz": "use --imgsz (scale: its axis imgsz), which all that is compared obeys",
    "stride": "what the full job is held against passes over no frame; leave it out",
}


def settings_of(changes: Iterable[str], *refused: str) -> dict[str, Any]:
    """--set KEY=VALUE, … -> {KEY: value}. UsageError for one of `refused`, which would make the comparison one of unlike things."""
    from pipeline.config import settings_from_changes

    settings = settings_from_changes(changes)
    for key in set(refused) & settings.keys():
        raise UsageError(f"--set {key}={settings[key]} cannot be measured here: {_INSTEAD[key]}")
    return settings


def with_options(options: list[Callable[..., Any]]) -> Callable[..., Any]:
    """Gives a command all of `options`, in this order."""
    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(options):
            function = one(function)
        return function

    return wrap
