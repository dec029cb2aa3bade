"""fer-stream in a process of its own, looked at once a second from beside through /proc; and whether its memory is flat.

What `soak` and `memory` share. Linux only. Memory in MB of 10^6 bytes, as everywhere in the bench.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.child import BenchError

MOST_MB_PER_MINUTE = 1.0
_MAIN = "from pipeline.cli import main; main()"
_END_S = 60.0


@dataclass(frozen=True)
class Look:
    """The process at one instant."""

    t_s: float
    """Seconds since the first look was due."""
    threads: int
    sockets: int
    files: int
    """Open file descriptors, sockets among them."""
    rss_mb: float
    """Resident memory, MB."""
    anon_mb: float
    """The part of it that no file stands behind: what can leak."""
    peak_mb: float = 0.0
    """Most resident memory up to now, between looks too."""


@dataclass(frozen=True)
class Verdict:
    what: str
    value: str
    allowed: str
    ok: bool


def start(arguments: Sequence[str], errors: Path) -> subprocess.Popen[str]:
    """`fer-stream` with `arguments`; its summary is the last line of its standard output, what it says goes to `errors`."""
    command = [sys.executable, "-c", _MAIN, *arguments, "--json", "--quiet"]
    with errors.open("w") as sink:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True)


def look(pid: int, t_s: float) -> Look:
    """OSError or KeyError when the process is gone or about to be."""
    process = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    targets = []
    for link in (process / "fd").iterdir():
        try:
            targets.append(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
    sockets = sum(target.startswith("socket:") for target in targets)
    rss_mb, anon_mb, peak_mb = (round(int(status[name].split()[0]) * 1024 / 1e6, 2) for name in ("VmRSS", "RssAnon", "VmHWM"))
    return Look(round(t_s, 2), int(status["Threads"]), sockets, len(targets), rss_mb, anon_mb, peak_mb)


def watch(process: subprocess.Popen[str], total_s: float, errors: Path, may_end: bool = False) -> Iterator[Look]:
    """A look a second for `total_s` seconds; BenchError where the process ends before, unless it `may_end` with exit code 0."""
    began = time.monotonic()
    while (t_s := time.monotonic() - began) < total_s:
        if process.poll() is not None:
            if may_end and process.returncode == 0:
                return
            raise BenchError(f"fer-stream ended after {t_s:.0f} s of {total_s:.0f}: {said(errors)}")
        try:
            one = look(process.pid, t_s)
        except (OSError, KeyError):  # it ends at this very moment: the next turn says how
            process.wait()
            continue
        yield one
        time.sleep(1 - (time.monotonic() - began) % 1)


def summary_of(process: subprocess.Popen[str], errors: Path) -> dict[str, Any]:
    """Ends it as Ctrl-C does; what it says of itself."""
    process.send_signal(signal.SIGINT)
    try:
        out, _ = process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        raise BenchError(f"fer-stream did not end within {_END_S:.0f} s of SIGINT") from None
    if process.returncode:
        raise BenchError(f"fer-stream ended with {process.returncode}: {said(errors)}")
    return json.loads(out.splitlines()[-1])


def said(errors: Path) -> str:
    """The end of what the process wrote to its standard error."""
    return errors.read_text().strip()[-300:]


def settled_s(looks: Sequence[Look]) -> float:
    """From when on memory is judged, seconds: models, arenas and caches fill in the first third, at most a minute."""
    return min(60.0, looks[-1].t_s / 3)


def slope_mb(looks: Sequence[Look]) -> tuple[float, float, float]:
    """MB a minute once settled, and its 95 % interval: Theil and Sen's (median of the slopes of all pairs), which outliers don't move."""
    from scipy.stats import theilslopes

    after = [one for one in looks if one.t_s >= settled_s(looks)]
    slope, _, low, high = theilslopes([one.rss_mb for one in after], [one.t_s / 60 for one in after])
    return float(slope), float(low), float(high)


def growth(looks: Sequence[Look], most_mb_per_minute: float = MOST_MB_PER_MINUTE) -> Verdict:
    """Is memory flat?"""
    slope, low, high = slope_mb(looks)
    grows = f"{slope:+.2f} ({low:+.2f}…{high:+.2f}) MB a minute"
    return Verdict(f"memory after {settled_s(looks):.0f} s", grows, f"< {most_mb_per_minute:g}", slope < most_mb_per_minute)


def judged(looks: Sequence[Look], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What every document of looks has."""
    return {
        "ok": all(one.ok for one in verdicts), "verdicts": [asdict(one) for one in verdicts],
        "curve": {"columns": [one.name for one in fields(Look)], "rows": [astuple(one) for one in looks]},
    }  # fmt: skip


def curve_of(document: dict[str, Any]) -> dict[str, Sequence[float]]:
    """The columns of its curve by name."""
    return dict(zip(document["curve"]["columns"], zip(*document["curve"]["rows"], strict=True), strict=True))


def tell(
    document: dict[str, Any], title: str, plot: Callable[[dict[str, Any], Path], None], picture: Path | None, as_json: bool
) -> NoReturn:
    """The verdicts as a table, the curve where a picture of it is wanted, the document as the last line; exit code 1 when one is bad."""
    from benchmarks.tables import console, table_of

    rows = [[one["what"], one["value"], one["allowed"], "ok" if one["ok"] else "BAD"] for one in document["verdicts"]]
    console().print(table_of(title, ["what", "value", "allowed", ""], rows))
    if picture is not None:
        plot(document, picture)
    if as_json:
        print(json.dumps(document))
    sys.exit(0 if document["ok"] else 1)
