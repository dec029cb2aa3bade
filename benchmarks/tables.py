"""The document of `fer-bench pipeline` as tables for people, on standard error."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDTH = 160
"""Columns where standard error is no terminal: a table in a log should not be cut."""
_SENTENCE = 30
"""Cells longer than this are words and may wrap."""


def console() -> Console:
    """On standard error."""
    found = Console(stderr=True)
    return found if found.is_terminal else Console(stderr=True, width=_WIDTH)


_P = "p50\u00a0/\u00a095\u00a0/\u00a099"


def print_document(document: dict[str, Any], console: Console) -> None:
    """Whatever it is of."""
    {"pipeline": print_pipeline, "latency": print_latency}.get(document["bench"], print_tables)(document, console)


def print_tables(document: dict[str, Any], console: Console) -> None:
    """Documents that bring their tables along, see `report.generic`."""
    from benchmarks.host import describe

    console.print(describe(document["host"]), highlight=False, soft_wrap=True)
    for one in document["tables"]:
        console.print()
        console.print(table_of(one["title"], one["head"], one["rows"]))
        if one.get("sentence"):
            console.print(one["sentence"], highlight=False, soft_wrap=True)
    for warning in document.get("warnings", ()):
        console.print(f"[yellow]warning[/yellow] {warning}", highlight=False, soft_wrap=True)


def print_pipeline(document: dict[str, Any], console: Console) -> None:
    """Headline, stages, queues, threads, latency, bottleneck."""
    from benchmarks.host import describe

    d, s = document, document["settings"]
    say = lambda text: console.print(text, highlight=False, soft_wrap=True)  # noqa: E731
    say(describe(d["host"]))
    say(
        f"{s['source']}: {s['width']}×{s['height']}, {s['frames']} frames, {s['faces_per_frame']} faces a frame; detection on every "
        f"{'' if s['interval'] == 1 else str(s['interval']) + '. '}frame at {s['imgsz']}, outputs: {s['outputs']}; {s['runs']} rounds"
    )
    say(f"\n[bold]throughput[/bold] {d['fps']:.1f} FPS {_range(d['fps_spread'], 1)}, start-up included {d['fps_whole']:.1f}")
    own = "our default detector is the kept one" if d["own_detector_is_the_kept_one"] else "over the chain with our detector"
    say(
        f"[bold]efficiency[/bold] {d['efficiency']:.3f} {_range(d['efficiency_spread'], 3)} of the bare chain's {d['bare_fps']:.1f} FPS; "
        f"efficiency_own {d['efficiency_own']:.3f} ({own}); by CPU time {d['cpu_efficiency']:.3f} {_range(d['cpu_efficiency_spread'], 3)}"
    )
    say(f"CPU {d['cpu_ms_per_frame']:.1f} ms a frame, {d['cpu_share']:.0%} of the cores; peak memory {d['peak_mb']:.0f} MB"
        + (f"; GPU {d['gpu_share']:.0%}, {d['gpu_peak_mb']:.0f} MB" if d["gpu_share"] is not None else ""))  # fmt: skip
    if d.get("start_s") is not None:
        say(f"start of the process to the first row {d['start_s']:.2f} s {_range(d['start_s_spread'], 2)}")
    console.print(table_of("throughput, by stage", *stage_rows(d["stages"])))
    console.print(_queue_table(d))
    if d.get("latency"):
        print_latency(d["latency"], console)
    say(f"[bold]bottleneck[/bold] {d['bottleneck']['sentence']}")
    for warning in d["warnings"]:
        say(f"[yellow]warning[/yellow] {warning}")


def print_latency(d: dict[str, Any], console: Console) -> None:
    """The paced run: ages, drops, stages."""
    age, frames = d["age_ms"], d["age_frames"]
    said = "not one frame came through after the warm-up"
    if age is not None:
        said = f"age p50 {age['p50']:.1f}, p95 {age['p95']:.1f}, p99 {age['p99']:.1f} ms ({frames['p95']:.2f} frames at p95)"
    looked = "" if d["looked_share"] is None else f"; detector looked at {d['looked_share']:.1%} of the frames"
    console.print(
        f"\n[bold]latency[/bold] at {d['source_fps']:g} fps through a live lane: {said}, {d['drops']} drops after the warm-up, "
        f"{d['drops_in_warm_up']} in it; CPU {d['cpu_share']:.0%}; reader late by {d['late_ms']['p95']:.1f} ms at p95{looked}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print(table_of("latency, by stage", *stage_rows(d["stages"])))


def stage_rows(stages: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and one row per stage; the engines inside are indented."""
    columns = f"stage,busy,starved,blocked,ms per frame {_P},ms per batch {_P},batch,queue wait {_P},ms of a frame"
    rows = []
    for name, one in stages.items():
        inner = one["inside"] is not None
        cells = [_share(one[what]) if not inner or what == "busy" else "" for what in ("busy", "starved", "blocked")]
        cells += [_three(one["per_frame_ms"]), _three(one["per_batch_ms"]), _sizes(one["batch_sizes"]), _three(one["queue_wait_ms"])]
        rows.append([("  " if inner else "") + name, *cells, f"{one['ms_per_run_frame']:.2f}"])
    return columns.split(","), rows


def table_of(title: str, head: list[str], rows: list[list[Any]]) -> Table:
    """Numbers to the right and whole, the first column to the left; sentences wrap."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(head):
        longest = max((len(str(row[i])) for row in rows), default=0)
        table.add_column(name, justify="right" if i and longest <= _SENTENCE else "left", no_wrap=longest <= _SENTENCE, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    return table


def _queue_table(d: dict[str, Any]) -> Table:
    queues = [(name, f"{q['mean']:.1f}", str(q["max"]), str(q["capacity"])) for name, q in d["queues"].items()]
    threads = [
        (f"  {name}", f"{t['cpu_ms_per_frame']:.2f}", f"{t['waited_for_core_ms_per_frame']:.2f}")
        for name, t in d["threads"].items() if t["cpu_ms_per_frame"] >= 0.01
    ]  # fmt: skip
    rows = [
        [*(queues[i] if i < len(queues) else ("",) * 4), *(threads[i] if i < len(threads) else ("",) * 3)]
        for i in range(max(len(queues), len(threads)))
    ]
    head = ["queue of", "mean", "max", "of", "thread", "CPU ms a frame", "ready but no core"]
    return table_of("queues (batches in them, frames in the lane) and threads (CPU)", head, rows)


def _share(value: float | None) -> str:
    return "paced" if value is None else f"{value:.0%}"


def _three(values: dict[str, float] | None) -> str:
    return "–" if values is None else " / ".join(f"{values[name]:.{1 if values[name] >= 10 else 2}f}" for name in ("p50", "p95", "p99"))


def _sizes(sizes: dict[str, int]) -> str:
    if not sizes:
        return "–"
    return next(iter(sizes)) if len(sizes) == 1 else f"{min(map(int, sizes))}…{max(map(int, sizes))}"


def _range(values: list[float], digits: int) -> str:
    return f"({values[0]:.{digits}f}…{values[1]:.{digits}f})"
