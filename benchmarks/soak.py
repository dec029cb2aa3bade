"""Two paced files and a camera that is restarted every 20 s, for minutes on end: threads, sockets and memory must stay flat.

    python -m benchmarks.soak --minutes 20 --plot out/soak.png      (from a checkout, with the developers' tools)

The camera is a real RTSP server (tests/servers); the job is `fer-stream` in a process of its own, looked at once a second from beside
through /proc. What leaks here leaks per reconnect (a decoder, a socket, a thread), per frame or per row. The first third, at most a
minute, is not judged: models, arenas and caches fill. Exit code 1 when a verdict is bad.
"""

from __future__ import annotations

import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from benchmarks.child import BenchError
from benchmarks.clips import long_clip
from benchmarks.looks import MOST_MB_PER_MINUTE, Look, Verdict, curve_of, growth, judged, said, settled_s, start, summary_of, tell, watch
from engines.errors import FerError, UsageError

_SETTINGS = {"live.backoff_s": 0.2, "live.backoff_max_s": 1.0, "detect.interval": 3}
"""The camera is found again soon; two cores keep the pace with room to spare."""
_RATE = 15
_START_S = 300.0


def judge(
    looks: Sequence[Look], restarts: Sequence[float], summary: dict[str, Any], camera_starts: int,
    most_mb_per_minute: float = MOST_MB_PER_MINUTE,
) -> list[Verdict]:  # fmt: skip
    """`restarts`: when the camera was restarted, on the clock of the looks; `camera_starts`: how often its picture began.

    Counts are compared between cycles of the camera, by the median of each one's second half, when it is back.
    """
    end, settled = looks[-1].t_s, settled_s(looks)
    bounds = [0.0, *restarts, end + 1]
    cycles = [[one for one in looks if max(settled, (a + b) / 2) <= one.t_s < b] for a, b in pairwise(bounds)]
    verdicts = []
    for what in ("threads", "sockets", "files"):
        counts = [statistics.median_low([getattr(one, what) for one in cycle]) for cycle in cycles if cycle]
        told = "–".join(dict.fromkeys((str(min(counts)), str(max(counts)))))
        verdicts.append(Verdict(f"{what} in {len(counts)} cycles of the camera", told, "the same", min(counts) == max(counts)))
    verdicts.append(growth(looks, most_mb_per_minute))
    wrong = [name for name, one in summary["sources"].items() if one["decoded"] != one["shown"] + sum(one["dropped"].values())]
    shown = sum(one["shown"] for one in summary["sources"].values())
    verdicts.append(Verdict("ledger", f"{shown} shown, {len(wrong)} sources unbalanced", "0 unbalanced", not wrong and shown > 0))
    due = len(restarts) + 1
    verdicts.append(Verdict("the camera's picture began", f"{camera_starts} times", f"{due} at least", camera_starts >= due))
    return verdicts


def run_soak(
    minutes: float, restart_s: float = 20.0, most_mb_per_minute: float = MOST_MB_PER_MINUTE, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Runs and judges. BenchError when the run ended early or never began, UsageError where there can be no camera."""
    from benchmarks import host

    server_class = _server_class()
    total_s = minutes * 60
    with tempfile.TemporaryDirectory(prefix="fer-soak-") as name:
        folder = Path(name)
        say("composing two clips")
        clips = [str(long_clip(folder / f"{faces} faces.mp4", faces, total_s + _START_S, rate=_RATE)) for faces in (1, 2)]
        server, errors = server_class(), folder / "errors.txt"
        server.start()
        process = start(_arguments([*clips, server.url()], folder / "rows"), errors)
        try:
            _wait_for_camera(process, folder / "rows", errors)
            say(f"{minutes:g} minutes of two files and a camera that is restarted every {restart_s:g} s")
            looks, restarts = _watch(process, server, total_s, restart_s, errors)
            summary = summary_of(process, errors)
        finally:
            process.kill()
            server.kill()
        starts = _camera_starts(folder / "rows")
    verdicts = judge(looks, restarts, summary, starts, most_mb_per_minute)
    return {
        "bench": "soak", "minutes": minutes, "restart_s": restart_s, **judged(looks, verdicts), "restarts": restarts,
        "frames": summary["frames"], "host": host.manifest(),
    }  # fmt: skip


def _watch(
    process: subprocess.Popen[str], server: Any, total_s: float, restart_s: float, errors: Path
) -> tuple[list[Look], list[float]]:
    looks, restarts = [], []
    for one in watch(process, total_s, errors):
        looks.append(one)
        due = (len(restarts) + 1) * restart_s
        if one.t_s >= due and due <= total_s - restart_s:  # the last one has a whole cycle to come back in
            restarts.append(one.t_s)
            server.kill()
            server.start()
    return looks, restarts


def _arguments(sources: Sequence[str], rows: Path) -> list[str]:
    parts = [part for source in sources for part in ("--source", source)]
    changes = [part for key, value in _SETTINGS.items() for part in ("--set", f"{key}={value}")]
    return [*parts, "--realtime", "--events", f"{rows}/", *changes]


def _rows_of_camera(rows: Path) -> list[str]:
    return [line for path in rows.glob("*") if "faces" not in path.name for line in path.read_text().splitlines()]


def _camera_starts(rows: Path) -> int:
    return sum('"source_state"' in line and "RUNNING" in line for line in _rows_of_camera(rows))


def _wait_for_camera(process: subprocess.Popen[str], rows: Path, errors: Path) -> None:
    limit = time.monotonic() + _START_S
    while not (rows.is_dir() and _camera_starts(rows)):
        if process.poll() is not None or time.monotonic() > limit:
            raise BenchError(f"fer-stream showed no picture of the camera within {_START_S:.0f} s: {said(errors)}")
        time.sleep(0.2)


def _server_class() -> Any:
    path = Path(__file__).resolve().parents[1] / "tests" / "servers" / "rtsp.py"
    if not path.is_file():
        raise UsageError(f"the soak's camera is in tests/servers of a checkout, and there is none around {Path(__file__).name}")
    try:
        servers = runpy.run_path(str(path))
    except ImportError as error:
        raise UsageError(f"the soak's camera needs the developers' tools ({error}); run make test, or pip install -e '.[dev]'") from error
    if reason := servers["missing"]():
        raise UsageError(f"the soak has no camera: {reason}")
    return servers["RtspServer"]


def plot(document: dict[str, Any], path: Path) -> None:
    """Threads, sockets and memory over time; the camera's restarts as lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = curve_of(document)
    figure = Figure(figsize=(9, 6), layout="constrained")
    minutes = [t_s / 60 for t_s in columns["t_s"]]
    for axes, (name, unit) in zip(figure.subplots(3, sharex=True), (("threads", ""), ("sockets", ""), ("rss_mb", "MB")), strict=True):
        axes.plot(minutes, columns[name], linewidth=1.5)
        for t_s in document["restarts"]:
            axes.axvline(t_s / 60, color="#e3e6ea", linewidth=1, zorder=0)
        axes.set_ylabel(f"resident memory, {unit}" if unit else name)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("minutes; grey: the camera is restarted")
    FigureCanvasAgg(figure).print_figure(path, dpi=110)


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.5), default=20.0, show_default=True)
@click.option("--restart-s", type=click.FloatRange(min=5), default=20.0, show_default=True, help="Seconds between restarts of the camera.")
@click.option("--most-mb-per-minute", type=float, default=MOST_MB_PER_MINUTE, show_default=True, help="Growth of memory that is allowed.")
@click.option("--json", "as_json", is_flag=True, help="The document with the whole curve, the last line of standard output.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw the curve (.png).")
def main(minutes: float, restart_s: float, most_mb_per_minute: float, as_json: bool, picture: Path | None) -> None:
    """Two paced files and a restarted camera: are threads, sockets and memory flat?"""
    try:
        document = run_soak(minutes, restart_s, most_mb_per_minute, lambda text: click.echo(text, err=True))
    except FerError as error:
        click.echo(error, err=True)
        sys.exit(error.exit_code)
    tell(document, f"soak of {minutes:g} minutes, {document['frames']} frames", plot, picture, as_json)


if __name__ == "__main__":
    main()
