"""Plots of the report as PNG bytes. Through matplotlib's object interface: no display, no global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY, RED = "#2b6cb0", "#dd8452", "#4c9f70", "#b8bec7", "#c44e52"
_DPI = 110


def _figure(width: float = 7.2, height: float = 3.4) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    canvas, out = FigureCanvasAgg(figure), io.BytesIO()
    canvas.print_figure(out, dpi=_DPI, format="png")
    return out.getvalue()


def rounds(values: dict[str, Sequence[float]], labels: dict[str, str], unit: str) -> bytes:
    """Bars side by side, one group a round."""
    figure, axes = _figure()
    shown = {name: list(numbers) for name, numbers in values.items() if numbers}
    width = 0.8 / max(len(shown), 1)
    for i, ((name, numbers), colour) in enumerate(zip(shown.items(), (BLUE, GREY, ORANGE), strict=False)):
        bars = axes.bar([n + 1 + (i - (len(shown) - 1) / 2) * width for n in range(len(numbers))], numbers, width * 0.92, color=colour)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
        bars.set_label(labels[name])
    axes.set_xlabel("round")
    axes.set_ylabel(unit)
    axes.set_xticks(range(1, max(len(numbers) for numbers in shown.values()) + 1))
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return _png(figure)


def shares(stages: dict[str, dict[str, Any]]) -> bytes:
    """One line a thread: busy (its stages one after the other), starved, blocked."""
    threads: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, one in stages.items():
        if one["inside"] is None:
            threads.setdefault(one["thread"], []).append((name, one))
    figure, axes = _figure(height=1.1 + 0.42 * len(threads))
    blues = ("#2b6cb0", "#5a9bd5", "#9cc4ea", "#1d4f86")
    for row, members in enumerate(threads.values()):
        left = 0.0
        for i, (name, one) in enumerate(members):
            busy = one["busy"] or 0.0
            axes.barh(row, busy, left=left, color=blues[i % len(blues)], height=0.7)
            if busy > 0.09:
                axes.text(left + busy / 2, row, name, ha="center", va="center", fontsize=8, color="white")
            left += busy
        for what, colour in (("starved", "#e3e6ea"), ("blocked", ORANGE)):
            value = min(members[0][1][what], max(1 - left, 0))
            axes.barh(row, value, left=left, color=colour, height=0.7)
            if value > 0.12:
                axes.text(left + value / 2, row, what, ha="center", va="center", fontsize=8, color="#333")
            left += value
    axes.set_yticks(range(len(threads)), list(threads))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the time from the warm-up to the closed output")
    return _png(figure)


def cpu_by_thread(threads: dict[str, dict[str, float]], most: int = 10) -> bytes:
    """CPU milliseconds a frame, and beside them how long the thread was ready without getting a core."""
    chosen = [(name, t) for name, t in threads.items() if t["cpu_ms_per_frame"] >= 0.02][:most]
    figure, axes = _figure(height=1.2 + 0.4 * len(chosen))
    rows = list(range(len(chosen)))
    cpu = [t["cpu_ms_per_frame"] for _, t in chosen]
    bars = axes.barh(rows, cpu, color=BLUE, height=0.45, label="CPU")
    axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=3)
    waited = [t["waited_for_core_ms_per_frame"] for _, t in chosen]
    axes.barh([row + 0.36 for row in rows], waited, color=GREY, height=0.22, label="ready, no core free")
    axes.set_yticks(rows, [name for name, _ in chosen])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a frame")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _png(figure)


def age_curve(quantiles_ms: Sequence[float], frame_ms: float) -> bytes:
    """Share of the frames that are younger, over the age; dashed: one frame, two frames of the source."""
    figure, axes = _figure()
    axes.plot(quantiles_ms, [q / 100 for q in range(len(quantiles_ms))], color=BLUE, linewidth=2)
    axes.axhline(0.95, color=GREY, linewidth=1)
    for n, side in ((1, "right"), (2, "left")):
        axes.axvline(n * frame_ms, color=ORANGE, linewidth=1, linestyle="--")
        name = f"{n} frame{'s' * (n > 1)}"
        axes.text(n * frame_ms, 1.01, name, color=ORANGE, fontsize=8, ha=side, transform=axes.get_xaxis_transform())
    axes.set_xlim(0, max(quantiles_ms[-1], 2.2 * frame_ms) * 1.03)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("age when the last output takes the frame, ms")
    axes.set_ylabel("share of frames")
    return _png(figure)


def journey(stages: dict[str, dict[str, Any]]) -> bytes:
    """Median time of a paced frame: waiting before each stage, and inside it."""
    rows = [(name, one) for name, one in stages.items() if one["inside"] is None and one["queue_wait_ms"] is not None]
    figure, axes = _figure(height=1.1 + 0.4 * len(rows))
    for i, (_, one) in enumerate(rows):
        wait = one["queue_wait_ms"]["p50"]
        inside = (one["span_ms"] or one["per_batch_ms"] or {"p50": 0.0})["p50"]
        axes.barh(i, wait, color=ORANGE, height=0.6, label="waits before it" if not i else None)
        axes.barh(i, inside, left=wait, color=BLUE, height=0.6, label="inside it" if not i else None)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("median milliseconds")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _png(figure)


def curves(x: Sequence[float], lines: dict[str, tuple[Sequence[float], Sequence[float] | None, Sequence[float] | None]],
           x_label: str, y_label: str) -> bytes:  # fmt: skip
    """Lines with a band: name -> (median, low, high), low and high None without one."""
    figure, axes = _figure()
    for (name, (middle, low, high)), colour in zip(lines.items(), (BLUE, ORANGE, GREEN, RED), strict=False):
        axes.plot(x, middle, color=colour, marker="o", linewidth=2, label=name)
        if low is not None and high is not None:
            axes.fill_between(x, low, high, color=colour, alpha=0.15)
    axes.set_xticks(list(x))
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def bars(names: Sequence[str], values: Sequence[float], x_label: str, errors: Sequence[Sequence[float]] | None = None) -> bytes:
    """Horizontal bars; `errors`: how far below and above the value its range goes."""
    figure, axes = _figure(height=1.0 + 0.36 * len(names))
    drawn = axes.barh(range(len(names)), values, color=BLUE, height=0.6, xerr=errors, ecolor="#555")
    axes.bar_label(drawn, fmt="%.2f", fontsize=8, padding=4)
    axes.set_yticks(range(len(names)), list(names))
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    axes.grid(axis="y", visible=False)
    return _png(figure)


def memory(minutes: Sequence[float], rss_mb: Sequence[float], most_mb: float, settled: float) -> bytes:
    """Resident memory over time; dashed: what is allowed; grey: not judged for its slope."""
    figure, axes = _figure()
    axes.plot(minutes, rss_mb, color=BLUE, linewidth=1.5)
    axes.axhline(most_mb, color=ORANGE, linewidth=1, linestyle="--")
    axes.axvspan(0, settled, color="#eef0f3", zorder=0)
    axes.set_xlim(0, minutes[-1])
    axes.set_ylim(0, max(most_mb, *rss_mb) * 1.08)
    axes.set_xlabel("minutes; grey: models, arenas and caches fill; dashed: the most that is allowed")
    axes.set_ylabel("resident memory, MB")
    return _png(figure)
