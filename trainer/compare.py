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
from trainer.recipes import Recipe, load_recipe

_BATCH = 8
_RUNS = 30


def compare(recipes: Sequence[Path], data: Path, changes: Sequence[str], limit: int | None, output: Path, console: Console) -> str:
    """Trains each recipe with the same changes, measures each, and writes rows.json, table.md and accuracy_over_cost.png to `output`.

    A finished row is kept, so that a stopped comparison goes on. Returns the table; UsageError where `output` holds another recipe's run.
    """
    output.mkdir(parents=True, exist_ok=True)
    stored = output / "rows.json"
    known = json.loads(stored.read_text())["rows"] if stored.exists() else []
    judged = "PublicTest, one centre window, averaged weights"
    protocol = {"data": data.resolve().name, "changes": list(changes), "limit": limit, "judged_on": judged}
    rows = []
    for path in recipes:
        recipe = load_recipe(path, changes)
        row = next((r for r in known if r["recipe"] == recipe.model_dump(mode="json") and r["limit"] == limit), None)
        if row is None:
            console.rule(path.stem)
            row = _row(recipe, data, limit, output / path.stem, console)
        rows.append(row)
        kept = [r for r in known if r["name"] not in {row["name"] for row in rows}]
        stored.write_text(json.dumps({"protocol": protocol, "rows": [*rows, *kept]}, indent=2))
    table = as_markdown(rows, protocol)
    (output / "table.md").write_text(table)
    draw(rows, output / "accuracy_over_cost.png")
    return table


def _row(recipe: Recipe, data: Path, limit: int | None, run: Path, console: Console) -> dict[str, Any]:
    if (run / "recipe.json").exists() and json.loads((run / "recipe.json").read_text()) != recipe.model_dump(mode="json"):
        raise UsageError(f"{run} holds a run of another recipe; give another --output, or delete it")
    metrics = train(recipe, data, run, console, limit)
    seconds = sum(json.loads(line)["seconds"] for line in (run / "log.jsonl").read_text().splitlines())
    model, _, _ = load_run(run)
    exported = run / "model.onnx"
    write_onnx(model, recipe, exported)
    return {
        "name": recipe.name, "recipe": recipe.model_dump(mode="json"), "limit": limit, "parameters": parameters(model),
        "megabytes": exported.stat().st_size / 1e6, "ms_per_face": ms_per_face(exported), "train_s": seconds,
        "fer2013_accuracy": metrics["fer2013_accuracy"], "fer2013_accuracy_unseen": metrics.get("fer2013_accuracy_unseen"),
        "fer2013_macro_f1": metrics["fer2013_macro_f1"], "fer2013_disgust_f1": metrics.get("fer2013_disgust_f1"),
        "crowd_accuracy": metrics.get("crowd_accuracy"),
    }  # fmt: skip


def ms_per_face(path: Path) -> float:
    """Median time of a face in a batch of eight on one CPU core, through the engine that a pipeline would run it with."""
    from engines.backends.openvino import OpenVinoBackend

    engine = OpenVinoBackend.open(path, threads=1)
    faces = np.random.default_rng(1).integers(0, 255, (_BATCH, *engine.inputs[0].shape[1:]), np.uint8)
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        engine.infer([faces])
        times.append(time.perf_counter() - began)
    engine.close()
    return float(np.median(times[3:])) * 1000 / _BATCH


def as_markdown(rows: Sequence[dict[str, Any]], protocol: dict[str, Any]) -> str:
    """The table, best first, and the protocol in a sentence."""
    said = ", ".join(protocol["changes"]) or "as the recipes say"
    limit = f", {protocol['limit']} training faces" if protocol["limit"] else ""
    share = lambda value: "" if value is None else f"{value:.3f}".removeprefix("0")  # noqa: E731
    lines = [
        f"Protocol: {protocol['data']}{limit}; {said}; judged on {protocol['judged_on']}; ms a face: OpenVINO, one core, batch of 8.",
        "",
        "| recipe | fer2013 / unseen | macro F1 | disgust F1 | crowd | parameters | MB | ms a face | training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["fer2013_accuracy"]):
        accuracy = f"{share(row['fer2013_accuracy'])} / {share(row['fer2013_accuracy_unseen'])}"
        quality = [accuracy, *(share(row[key]) for key in ("fer2013_macro_f1", "fer2013_disgust_f1", "crowd_accuracy"))]
        size = f"{row['parameters'] / 1e6:.2f} M", f"{row['megabytes']:.1f}"
        cost = [*size, f"{row['ms_per_face']:.2f}", f"{row['train_s'] / 60:.1f} min"]
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
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=140)
