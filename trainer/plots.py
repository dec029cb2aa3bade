"""The pictures of a report, one function each: figures in, a matplotlib Figure out. One style, white paper, no pyplot."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

COLOURS = {
    "angry": "#d55e00", "disgust": "#009e73", "fear": "#cc79a7", "happy": "#d1a800", "sad": "#207ecc", "surprise": "#56b4e9",
    "neutral": "#7a828c",
}  # fmt: skip
"""The overlay's, darker where they would vanish on white."""
_MAIN, _SECOND, _GREY, _WRONG = "#207ecc", "#d55e00", "#8a93a0", "#c0392b"
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlepad": 10, "axes.labelcolor": "#1b1f24", "axes.edgecolor": "#8a93a0", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e6e9ed", "axes.axisbelow": True, "xtick.color": "#3b424c", "ytick.color": "#3b424c",
    "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8, "figure.facecolor": "white",
    "figure.constrained_layout.use": True, "savefig.dpi": 150,
}  # fmt: skip
_SIZE = (6.4, 5.2)
"""Inches, of every chart."""


def png(draw: Callable[..., Figure], *args: Any, **kwargs: Any) -> bytes:
    """What `draw` makes of its arguments, in the report's style, as a PNG; the same figures give the same bytes."""
    with matplotlib.rc_context(_STYLE):
        out = io.BytesIO()
        draw(*args, **kwargs).savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def confusion_counts(figures: Mapping[str, Any]) -> Figure:
    return _confusion(figures, "counts", "Confusion matrix, faces")


def confusion_rates(figures: Mapping[str, Any]) -> Figure:
    return _confusion(figures, "rates", "Confusion matrix, share of each true label")


def roc(figures: Mapping[str, Any]) -> Figure:
    """One label against the others, a curve for each that can have one."""
    figure, axes = _chart("ROC, one label against the others", "False-positive rate", "True-positive rate")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1.2, label="chance  .500")
    for i, (label, row) in enumerate(figures["labels"].items()):
        if label in figures["roc"]:
            curve = figures["roc"][label]
            rates = curve["false_positive_rate"], curve["true_positive_rate"]
            axes.plot(*rates, color=_colour(label, i), label=f"{label}  {_short(row['auc'])}")
        else:
            axes.plot([], [], color=_colour(label, i), label=f"{label}  none: not among the faces")
    axes.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal")
    axes.legend(title=f"AUC (macro {_short(figures['macro_auc'])})", alignment="left", loc="lower right")
    return figure


def reliability(figures: Mapping[str, Any]) -> Figure:
    """How often answers of a probability are right, above how many there are."""
    found = figures["reliability"]
    edges, count = np.array(found["edges"]), np.array(found["count"])
    middles, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    confidence, accuracy = (np.array(found[name], float) for name in ("confidence", "accuracy"))
    figure = Figure(figsize=_SIZE)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(middles, np.nan_to_num(accuracy), width * 0.94, color="#b5d3ee", label="right answers")
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1.2, label="perfect")
    upper.plot(confidence, accuracy, "o", color=_MAIN, markersize=5, label="at the bin's mean probability")
    upper.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1.02))
    upper.set_title(f"Reliability, expected calibration error {_short(figures['ece'])}", pad=28)
    upper.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, columnspacing=1.2, handlelength=1.6)
    lower.bar(middles, count, width * 0.94, color=_GREY)
    lower.set(xlabel="Probability of the answer", ylabel="Faces")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def risk_coverage(figures: Mapping[str, Any]) -> Figure:
    """What answering fewer faces buys; the model's own threshold of "uncertain" on it."""
    found = figures["risk_coverage"]
    title = f"Risk over coverage, area {_short(found['area'])}"
    figure, axes = _chart(title, "Coverage: share of faces answered, surest first", "Risk: share of wrong answers")
    axes.plot(found["coverage"], found["risk"], color=_MAIN)
    axes.fill_between(found["coverage"], found["risk"], color=_MAIN, alpha=0.12, linewidth=0)
    at = found["uncertain"]
    if at and at["accuracy"] is not None:
        axes.axvline(at["coverage"], color=_SECOND, linestyle="--", linewidth=1.2)
        axes.plot([at["coverage"]], [1 - at["accuracy"]], "o", color=_SECOND)
        text = f"answers from {at['threshold']:.2f} on:\n{at['coverage']:.1%} covered,\n{at['accuracy']:.1%} of them right"
        axes.annotate(
            text, (at["coverage"], 1 - at["accuracy"]), (-12, 24), textcoords="offset points", color=_SECOND, ha="right", va="bottom"
        )
    axes.set(xlim=(0, 1.005), ylim=(0, max(found["risk"][-1] * 1.8, max(found["risk"]) * 1.05, 0.02)))
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    return figure


def f1_bars(figures: Mapping[str, Any]) -> Figure:
    rows = figures["labels"]
    macro = figures["macro"]["f1"]
    figure, axes = _chart(f"F1 of each label, macro average {_short(macro)}", "F1", "")
    names = [f"{label}  ({row['support']:,})" for label, row in rows.items()]
    values = [row["f1"] for row in rows.values()]
    axes.barh(names, [value or 0.0 for value in values], color=[_colour(label, i) for i, label in enumerate(rows)], height=0.7)
    axes.axvline(macro, color=_GREY, linestyle=":", linewidth=1.4)
    for i, value in enumerate(values):
        axes.text((value or 0.0) + 0.012, i, "not among the faces" if value is None else _short(value), va="center")
    axes.set(xlim=(0, 1.08), xticks=np.arange(0, 1.01, 0.2))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure


def training_curves(log: Sequence[Mapping[str, Any]]) -> Figure:
    """The rows of a run's log.jsonl: losses beside accuracies and F1, over epochs."""
    figure = Figure(figsize=(2 * _SIZE[0], 4.8))
    figure.suptitle("Training", x=0.012, ha="left", fontweight="bold")
    wanted = {"Loss": ("loss",), "Score on the validation faces": ("accuracy", "f1")}
    for axes, (ylabel, words) in zip(figure.subplots(1, 2), wanted.items(), strict=True):
        names = [name for name, value in log[-1].items() if isinstance(value, int | float) and any(word in name for word in words)]
        for i, name in enumerate(names):
            points = [(row["epoch"], row[name]) for row in log if row.get(name) is not None]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=f"C{i}", label=name.replace("_", " "))
        axes.set(xlabel="Epoch", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if names:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    return figure


def face_grid(title: str, rows: Mapping[str, Sequence[tuple[np.ndarray, str, bool]]], columns: int) -> Figure:
    """A row per label of (picture (H, W) or (H, W, 3) uint8, caption, whether it is right); an empty row says "none"."""
    figure = Figure(figsize=(1.18 * columns + 1.1, 1.62 * len(rows) + 0.55))
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for (label, pictures), line in zip(rows.items(), grid, strict=True):
        line[0].text(-0.12, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontweight="bold", fontsize=10)
        if not pictures:
            line[0].text(0.02, 0.5, "none", transform=line[0].transAxes, va="center", color=_GREY)
        for axes, (picture, caption, right) in zip(line, pictures, strict=False):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
            axes.set_title(caption, fontsize=8, fontweight="normal", loc="center", pad=3, color="#1b1f24" if right else _WRONG)
    return figure


def _chart(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def _confusion(figures: Mapping[str, Any], kind: str, title: str) -> Figure:
    found = figures["confusion"]
    rates = np.array([[np.nan if v is None else v for v in row] for row in found["rates"]], float)
    figure, axes = _chart(title, found["columns"].capitalize(), found["rows"].capitalize())
    axes.grid(visible=False)
    axes.imshow(np.nan_to_num(rates), cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(found[kind]):
        for j, value in enumerate(row):
            text = "–" if value is None else f"{value:,}" if kind == "counts" else f"{100 * value:.0f}%"
            axes.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if rates[i, j] > 0.55 else "#1b1f24")
    places = range(len(found["labels"]))
    axes.set_xticks(places, found["labels"], rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, found["labels"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _colour(label: str, i: int) -> str:
    return COLOURS.get(label, f"C{i % 10}")


def _short(value: float | None) -> str:
    """.823, as the project's tables have it."""
    return "none" if value is None else f"{value:.3f}".removeprefix("0")
