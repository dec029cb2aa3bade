"""Recipes under one protocol, one table: what each network buys for its cost."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from engines.errors import UsageError
from trainer.checkpoint import load_run
from trainer.export import write_onnx
from trainer.loop import train
from trainer.models import parameters
from trainer.recipes import Recipe, load_recipe, recipe_from_json
from trainer.report import read_log

_BATCH = 8
_ROUNDS = 10
_RUNS = 4
"""Timed runs of an engine in each round."""


def compare(recipes: Sequence[Path], data: Path, changes: Sequence[str], limit: int | None, output: Path, console: Console) -> str:
    """Trains each recipe with the same changes, times all, and writes rows.json, table.md and accuracy_over_cost.png to `output`.

    A finished row is not trained again, so that a stopped comparison goes on; the time of a face is measured anew at the end of every
    call. Returns the table; UsageError where `output` holds a comparison under another protocol or another recipe's run.
    """
    output.mkdir(parents=True, exist_ok=True)
    stored = output / "rows.json"
    judged = "PublicTest, one centre window"
    protocol = {"data": data.resolve().name, "changes": list(changes), "limit": limit, "judged_on": judged}
    known = _known(stored, protocol)
    rows: list[dict[str, Any]] = []

    def store() -> None:
        others = [row for row in known if row["name"] not in {row["name"] for row in rows}]
        stored.write_text(json.dumps({"protocol": protocol, "rows": [*rows, *others]}, indent=2))

    store()
    for path in recipes:
        recipe = load_recipe(path, changes)
        row = next((row for row in known if Recipe(**row["recipe"]) == recipe), None)  # a setting that is new since has its default
        if row is None:
            console.rule(path.stem)
            row = _row(recipe, data, limit, output / path.stem, console)
        rows.append(row)
        store()
    console.print(f"timing {len(rows)} engines in turn")
    for row, ms in zip(rows, ms_per_face([output / path.stem / "model.onnx" for path in recipes]), strict=True):
        row["ms_per_face"] = ms
    store()
    table = as_markdown(rows, protocol)
    (output / "table.md").write_text(table)
    draw(rows, output / "accuracy_over_cost.png")
    return table


def _known(stored: Path, protocol: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that are there. Their runs know their recipes, but not how many faces of which data they saw."""
    if not stored.exists():
        return []
    before = json.loads(stored.read_text())
    was, asked = (f"{one['data']}, {one['limit'] or 'all'} faces" for one in (before["protocol"], protocol))
    if was != asked:
        raise UsageError(f"{stored.parent} holds a comparison on {was}, asked for {asked}; give another --output, or delete it")
    return before["rows"]


def _row(recipe: Recipe, data: Path, limit: int | None, run: Path, console: Console) -> dict[str, Any]:
    # One that goes on for more epochs has had another schedule than those of the other rows.
    if (run / "last.ckpt").exists() and (was := recipe_from_json(Recipe, run / "recipe.json").epochs) != recipe.epochs:
        raise UsageError(f"{run} holds a run of {was} epochs, asked for {recipe.epochs}; give another --output, or delete it")
    metrics = train(recipe, data, run, console, limit)
    model, _, _ = load_run(run)
    exported = run / "model.onnx"
    write_onnx(model, recipe, exported)
    return {
        "name": recipe.name, "recipe": recipe.model_dump(mode="json"), "parameters": parameters(model),
        "megabytes": exported.stat().st_size / 1e6, "train_cpu_s": sum(epoch["cpu_s"] for epoch in read_log(run / "log.jsonl")),
        "fer2013_accuracy": metrics["fer2013_accuracy"], "fer2013_accuracy_unseen": metrics.get("fer2013_accuracy_unseen"),
        "fer2013_macro_f1": metrics["fer2013_macro_f1"], "fer2013_disgust_f1": metrics.get("fer2013_disgust_f1"),
        "crowd_accuracy": metrics.get("crowd_accuracy"),
    }  # fmt: skip


def ms_per_face(paths: Sequence[Path]) -> list[float]:
    """Median time of a face in a batch of eight on one CPU core, for each network through the engine that a pipeline would run it with.

    They run in turn, round after round, so that whatever else the machine does slows all of them alike.
    """
    from engines.backends.openvino import OpenVinoBackend

    engines = [OpenVinoBackend.open(path, threads=1) for path in paths]
    random = np.random.default_rng(1)
    faces = [random.integers(0, 255, (_BATCH, *engine.inputs[0].shape[1:]), np.uint8) for engine in engines]
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(_ROUNDS):
        for engine, batch, mine in zip(engines, faces, times, strict=True):
            engine.infer([batch])  # compiles, and brings its weights back into the caches
            for _ in range(_RUNS):
                began = time.perf_counter()
                engine.infer([batch])
                mine.append(time.perf_counter() - began)
    for engine in engines:
        engine.close()
    return [float(np.median(mine)) * 1000 / _BATCH for mine in times]


def as_markdown(rows: Sequence[dict[str, Any]], protocol: dict[str, Any]) -> str:
    """The table, best first, and the protocol in a sentence."""
    said = ", ".join(protocol["changes"]) or "as the recipes say"
    limit = f", {protocol['limit']} training faces" if protocol["limit"] else ""
    share = lambda value: "" if value is None else f"{value:.3f}".removeprefix("0")  # noqa: E731
    lines = [
        f"Protocol: {protocol['data']}{limit}; {said}; judged on {protocol['judged_on']}; ms a face: OpenVINO, one core, batch of 8, "
        "all rows in turn after the last training; training: CPU time of the process.",
        "",
        "| recipe | fer2013 / unseen | macro F1 | disgust F1 | crowd | parameters | MB | ms a face | training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["fer2013_accuracy"]):
        accuracy = f"{share(row['fer2013_accuracy'])} / {share(row['fer2013_accuracy_unseen'])}"
        quality = [accuracy, *(share(row[key]) for key in ("fer2013_macro_f1", "fer2013_disgust_f1", "crowd_accuracy"))]
        size = f"{row['parameters'] / 1e6:.2f} M", f"{row['megabytes']:.1f}"
        cost = [*size, f"{row['ms_per_face']:.2f}", f"{row['train_cpu_s'] / 60:.1f} CPU min"]
        lines.append(f"| {' | '.join([row['name'], *quality, *cost])} |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over the time of a face, a dot per recipe as large as its file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        at = (row["ms_per_face"], 100 * row["fer2013_accuracy"])
        axes.scatter(*at, s=20 + 8 * row["megabytes"], alpha=0.6)
        axes.annotate(row["name"], at, xytext=(6, 6), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="ms a face (OpenVINO, one core, batch of 8)", ylabel="PublicTest accuracy, original labels, %")
    axes.set_title("Accuracy over cost (area: size of the file)", fontsize=10)
    axes.margins(0.25, 0.12)  # names stand right of their dots
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:.1g}")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=140)
