"""The full job, annotated video and rows, for minutes on end on a long clip with two faces: how much memory, and is it flat?

    python -m benchmarks.memory --minutes 10 --width 1920 --height 1080 --plot out/memory.png
    python -m benchmarks.memory --minutes 2 --paced --json      (at the clip's 30 fps instead of as fast as possible)

`fer-stream` runs in a process of its own and is looked at once a second. Judged are the most memory it ever had (≤ 900 MB) and
the slope after the first minute (< 1 MB a minute, as `soak` takes it). Exit code 1 when a verdict is bad.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.clips import long_clip
from benchmarks.looks import MOST_MB_PER_MINUTE, Look, Verdict, curve_of, growth, judged, settled_s, start, summary_of, tell, watch
from benchmarks.tables import console
from engines.errors import FerError, UsageError

MOST_MB = 900.0
_RATE = 30
_FASTEST, _PIXELS_PER_S = 1000, 4e8
"""Frames a second that the clip is long enough for; of the clip."""


def judge(looks: Sequence[Look], most_mb: float = MOST_MB, most_mb_per_minute: float = MOST_MB_PER_MINUTE) -> list[Verdict]:
    """`most_mb`: MB of 10^6 bytes. Looks are a second apart."""
    peak_mb = max(max(one.rss_mb, one.peak_mb) for one in looks)
    return [Verdict("most memory", f"{peak_mb:.0f} MB", f"<= {most_mb:g}", peak_mb <= most_mb), growth(looks, most_mb_per_minute)]


def measure_memory(
    minutes: float, width: int = 1920, height: int = 1080, paced: bool = False, changes: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Runs and judges; `minutes` of wall clock. BenchError when the run failed, UsageError for a picture that cannot be encoded."""
    from benchmarks import host

    if width % 2 or height % 2:
        raise UsageError(f"H.264 in 4:2:0 takes even sizes, got {width}×{height}; e.g. {width + width % 2}×{height + height % 2}")
    about, total_s = host.manifest(), minutes * 60
    with tempfile.TemporaryDirectory(prefix="fer-memory-") as name:
        folder = Path(name)
        say(f"composing a clip of {width}×{height}")
        fastest = min(_FASTEST, _PIXELS_PER_S / (width * height))
        seconds = total_s * (1.0 if paced else fastest / _RATE)
        clip = long_clip(folder / "two faces.mp4", 2, seconds, width=width, height=height, rate=_RATE)
        more = [*(["--realtime"] if paced else []), *(part for change in changes for part in ("--set", change))]
        errors = folder / "errors.txt"
        process = start(["--source", str(clip), "--output", f"{folder}/out.mp4", "--events", f"{folder}/rows.jsonl", *more], errors)
        looks: list[Look] = []
        try:
            with _progress() as bar:
                task = bar.add_task("memory", total=total_s, now="")
                for one in watch(process, total_s, errors, may_end=True):
                    looks.append(one)
                    bar.update(task, completed=one.t_s, now=f"{one.rss_mb:.0f} MB")
            summary = summary_of(process, errors)
        finally:
            process.kill()
            process.wait()
    return {
        "bench": "memory", "minutes": round(looks[-1].t_s / 60, 2), "width": width, "height": height, "paced": paced, "changes": [*changes],
        "frames": summary["frames"], "fps": summary["fps"], **judged(looks, judge(looks)), "settled_s": settled_s(looks), "host": about,
    }  # fmt: skip


def _progress() -> Progress:
    on = console()
    return Progress(TextColumn("[bold]memory"), BarColumn(), TextColumn("{task.fields[now]}"), TimeRemainingColumn(),
                    console=on, transient=True, disable=not on.is_terminal)  # fmt: skip


def plot(document: dict[str, Any], path: Path) -> None:
    """The curve as PNG."""
    from benchmarks import plots

    columns = curve_of(document)
    path.write_bytes(plots.memory([t_s / 60 for t_s in columns["t_s"]], columns["rss_mb"], MOST_MB, document["settled_s"] / 60))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Of wall clock.")
@click.option("--width", type=click.IntRange(64, 7680), default=1920, show_default=True, help="Pixels.")
@click.option("--height", type=click.IntRange(64, 4320), default=1080, show_default=True, help="Pixels.")
@click.option("--paced", is_flag=True, help="At the clip's 30 fps instead of as fast as possible.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="One setting of the run, e.g. detect.interval=3.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the curve.")
@click.option("--json", "as_json", is_flag=True, help="The document with the whole curve, the last line of standard output.")
def main(minutes: float, width: int, height: int, paced: bool, changes: tuple[str, ...], picture: Path | None, as_json: bool) -> None:
    """The full job on a long clip with two faces: how much memory, and is it flat?"""
    try:
        if picture is not None and not picture.absolute().parent.is_dir():
            raise UsageError(f"--plot {picture}: the folder {picture.parent} does not exist; make it first")
        document = measure_memory(minutes, width, height, paced, changes, lambda text: click.echo(text, err=True))
    except FerError as error:
        click.echo(error, err=True)
        sys.exit(error.exit_code)
    title = f"{document['minutes']:g} minutes of {width}×{height}, {document['frames']} frames, {document['fps']:.1f} FPS"
    tell(document, title, plot, picture, as_json)


if __name__ == "__main__":
    main()
