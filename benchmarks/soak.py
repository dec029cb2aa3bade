"""Two paced files and a camera that is restarted every 20 s, for minutes on end: threads, sockets and memory must stay flat.

    python -m benchmarks.soak --minutes 20 --plot out/soak.png      (from a checkout, with the developers' tools)

The camera is a real RTSP server (tests/servers); the job is `fer-stream` in a process of its own, looked at once a second from beside
through /proc. What leaks here leaks per reconnect (a decoder, a socket, a thread), per frame or per row. The first third, at most a
minute, is not judged: models, arenas and caches fill. Exit code 1 when a verdict is bad.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from benchmarks.child import BenchError
from engines.errors import FerError, UsageError

_MAIN = "from pipeline.cli import main; main()"
_SETTINGS = {"live.backoff_s": 0.2, "live.backoff_max_s": 1.0, "detect.interval": 3}
"""The camera is found again soon; two cores keep the pace with room to spare."""
_RATE = 15
_START_S, _END_S = 300.0, 60.0
_MOST_MB_PER_MINUTE = 1.0


@dataclass(frozen=True)
class Look:
    """The process at one instant."""

    t_s: float
    """Seconds since the camera's first row."""
    threads: int
    sockets: int
    files: int
    """Open file descriptors, sockets among them."""
    rss_mb: float
    """Resident memory, MiB."""
    anon_mb: float
    """The part of it that no file stands behind: what can leak."""


@dataclass(frozen=True)
class Verdict:
    what: str
    value: str
    allowed: str
    ok: bool


def look(pid: int, t_s: float) -> Look:
    """Linux only. FileNotFoundError when the process is gone."""
    process = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    targets = []
    for link in (process / "fd").iterdir():
        try:
            targets.append(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
    sockets = sum(target.startswith("socket:") for target in targets)
    rss_mb, anon_mb = (round(int(status[name].split()[0]) / 1024, 2) for name in ("VmRSS", "RssAnon"))
    return Look(round(t_s, 2), int(status["Threads"]), sockets, len(targets), rss_mb, anon_mb)


def judge(
    looks: Sequence[Look], restarts: Sequence[float], summary: dict[str, Any], camera_starts: int,
    most_mb_per_minute: float = _MOST_MB_PER_MINUTE,
) -> list[Verdict]:  # fmt: skip
    """`restarts`: when the camera was restarted, on the clock of the looks; `camera_starts`: how often its picture began.

    Counts are compared between cycles of the camera, by the median of each one's second half, when it is back. Memory is the
    slope of Theil and Sen (median of the slopes of all pairs of looks), which a few outliers don't move.
    """
    from scipy.stats import theilslopes

    end = looks[-1].t_s
    settled = min(60.0, end / 3)
    bounds = [0.0, *restarts, end + 1]
    cycles = [[one for one in looks if max(settled, (a + b) / 2) <= one.t_s < b] for a, b in pairwise(bounds)]
    verdicts = []
    for what in ("threads", "sockets", "files"):
        counts = [statistics.median_low([getattr(one, what) for one in cycle]) for cycle in cycles if cycle]
        told = "–".join(dict.fromkeys((str(min(counts)), str(max(counts)))))
        verdicts.append(Verdict(f"{what} in {len(counts)} cycles of the camera", told, "the same", min(counts) == max(counts)))
    after = [one for one in looks if one.t_s >= settled]
    slope, _, low, high = theilslopes([one.rss_mb for one in after], [one.t_s / 60 for one in after])
    grows = f"{slope:+.2f} ({low:+.2f}…{high:+.2f}) MB a minute"
    verdicts.append(Verdict(f"memory after {settled:.0f} s", grows, f"< {most_mb_per_minute:g}", bool(slope < most_mb_per_minute)))
    wrong = [name for name, one in summary["sources"].items() if one["decoded"] != one["shown"] + sum(one["dropped"].values())]
    shown = sum(one["shown"] for one in summary["sources"].values())
    verdicts.append(Verdict("ledger", f"{shown} shown, {len(wrong)} sources unbalanced", "0 unbalanced", not wrong and shown > 0))
    due = len(restarts) + 1
    verdicts.append(Verdict("the camera's picture began", f"{camera_starts} times", f"{due} at least", camera_starts >= due))
    return verdicts


def run_soak(
    minutes: float, restart_s: float = 20.0, most_mb_per_minute: float = _MOST_MB_PER_MINUTE, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Runs and judges. BenchError when the run ended early or never began, UsageError where there can be no camera."""
    from benchmarks import host

    server_class = _server_class()
    total_s = minutes * 60
    with tempfile.TemporaryDirectory(prefix="fer-soak-") as name:
        folder = Path(name)
        say("composing two clips")
        clips = [_clip(folder, faces, total_s + _START_S) for faces in (1, 2)]
        server, errors = server_class(), folder / "errors.txt"
        server.start()
        with errors.open("w") as sink:
            process = subprocess.Popen(_command([*clips, server.url()], folder / "rows"), stdout=subprocess.PIPE, stderr=sink, text=True)
        try:
            _wait_for_camera(process, folder / "rows", errors)
            say(f"{minutes:g} minutes of two files and a camera that is restarted every {restart_s:g} s")
            looks, restarts = _watch(process, server, total_s, restart_s, errors)
            process.send_signal(signal.SIGINT)
            try:
                out, _ = process.communicate(timeout=_END_S)
            except subprocess.TimeoutExpired:
                raise BenchError(f"fer-stream did not end within {_END_S:.0f} s of SIGINT") from None
        finally:
            process.kill()
            server.kill()
        if process.returncode:
            raise BenchError(f"fer-stream ended with {process.returncode}: {errors.read_text().strip()[-300:]}")
        summary, starts = json.loads(out.splitlines()[-1]), _camera_starts(folder / "rows")
    verdicts = judge(looks, restarts, summary, starts, most_mb_per_minute)
    return {
        "bench": "soak", "minutes": minutes, "restart_s": restart_s, "ok": all(one.ok for one in verdicts),
        "verdicts": [asdict(one) for one in verdicts], "restarts": restarts,
        "curve": {"columns": [one.name for one in fields(Look)], "rows": [astuple(one) for one in looks]},
        "frames": summary["frames"], "host": host.manifest(),
    }  # fmt: skip


def _watch(
    process: subprocess.Popen[str], server: Any, total_s: float, restart_s: float, errors: Path
) -> tuple[list[Look], list[float]]:
    began, looks, restarts = time.monotonic(), [], []
    while (t_s := time.monotonic() - began) < total_s:
        if process.poll() is not None:
            raise BenchError(f"fer-stream ended after {t_s:.0f} s of {total_s:.0f}: {errors.read_text().strip()[-300:]}")
        looks.append(look(process.pid, t_s))
        due = (len(restarts) + 1) * restart_s
        if t_s >= due and due <= total_s - restart_s:  # the last one has a whole cycle to come back in
            restarts.append(round(t_s, 2))
            server.kill()
            server.start()
        time.sleep(1 - (time.monotonic() - began) % 1)
    return looks, restarts


def _command(sources: Sequence[str], rows: Path) -> list[str]:
    parts = [part for source in sources for part in ("--source", source)]
    changes = [part for key, value in _SETTINGS.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-c", _MAIN, *parts, "--realtime", "--events", f"{rows}/", "--json", "--quiet", *changes]


def _clip(folder: Path, faces: int, seconds: float) -> str:
    """Ten seconds of swaying portraits, again and again: packets are copied, so that length costs nothing."""
    import av

    from benchmarks.clips import compose_faces

    short, long = folder / f"short{faces}.mp4", folder / f"{faces} faces.mp4"
    compose_faces(short, faces, width=640, height=360, frames=10 * _RATE)
    with av.open(str(short)) as source, av.open(str(long), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        count = 0
        while count < seconds * _RATE:
            source.seek(0)
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream, packet.time_base = stream, Fraction(1, _RATE)
                    packet.pts = packet.dts = count
                    packet.duration = 1
                    out.mux(packet)
                    count += 1
    return str(long)


def _rows_of_camera(rows: Path) -> list[str]:
    return [line for path in rows.glob("*") if "faces" not in path.name for line in path.read_text().splitlines()]


def _camera_starts(rows: Path) -> int:
    return sum('"source_state"' in line and "RUNNING" in line for line in _rows_of_camera(rows))


def _wait_for_camera(process: subprocess.Popen[str], rows: Path, errors: Path) -> None:
    limit = time.monotonic() + _START_S
    while not (rows.is_dir() and _camera_starts(rows)):
        if process.poll() is not None or time.monotonic() > limit:
            raise BenchError(f"fer-stream showed no picture of the camera within {_START_S:.0f} s: {errors.read_text().strip()[-300:]}")
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

    columns = dict(zip(document["curve"]["columns"], zip(*document["curve"]["rows"], strict=True), strict=True))
    figure = Figure(figsize=(9, 6), layout="constrained")
    minutes = [t_s / 60 for t_s in columns["t_s"]]
    for axes, (name, unit) in zip(figure.subplots(3, sharex=True), (("threads", ""), ("sockets", ""), ("rss_mb", "MiB")), strict=True):
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
@click.option("--most-mb-per-minute", type=float, default=_MOST_MB_PER_MINUTE, show_default=True, help="Growth of memory that is allowed.")
@click.option("--json", "as_json", is_flag=True, help="The document with the whole curve, the last line of standard output.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw the curve (.png).")
def main(minutes: float, restart_s: float, most_mb_per_minute: float, as_json: bool, picture: Path | None) -> None:
    """Two paced files and a restarted camera: are threads, sockets and memory flat?"""
    from benchmarks.tables import console, table_of

    try:
        document = run_soak(minutes, restart_s, most_mb_per_minute, lambda text: click.echo(text, err=True))
    except FerError as error:
        click.echo(error, err=True)
        sys.exit(error.exit_code)
    rows = [[one["what"], one["value"], one["allowed"], "ok" if one["ok"] else "BAD"] for one in document["verdicts"]]
    console().print(table_of(f"soak of {minutes:g} minutes, {document['frames']} frames", ["what", "value", "allowed", ""], rows))
    if picture is not None:
        plot(document, picture)
    if as_json:
        print(json.dumps(document))
    sys.exit(0 if document["ok"] else 1)


if __name__ == "__main__":
    main()
