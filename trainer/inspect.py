"""What one should know of labelled faces before training on them: `fer-train data inspect`.

Counts that are not the original's, a class without a picture, faces that stand in both splits, labels that the crowd
does not share: each has made a published figure mean something else than it says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engines.contract import LABELS
from engines.errors import UsageError
from trainer.kaggle import DataPath

if TYPE_CHECKING:
    from trainer.data_sources import Rows

_COLUMNS = 12


def inspect_data(
    path: Path,
    output: Path | None = None,
    *,
    votes: Path | None = None,
    near: bool = False,
    size: int = 48,
    colour: str = "grey",
    seed: int = 1,
) -> dict[str, Any]:
    """All rows of `path` (what load_faces takes), counted before anything is left out; JSON-ready.

    `splits`: per split the faces, counts and weights per class. `left_out`: rows of Training that load_faces does not return.
    `duplicates`: groups of equal images within a split ("Training") and across two ("Training+PublicTest"); `near_duplicates`:
    pairs that look alike, equal ones included, None unless `near`. `pictures`: what the files hold, commonest first.
    `crowd`: how many rows have FER+ votes and a unique majority, and the share of those whose majority is the label; None without
    votes. `output` is a PNG of sample faces, a row per class. UsageError as load_faces, and where the PNG cannot be written.
    """
    from trainer.data import differences, held_out, not_a_face, with_votes
    from trainer.data_sources import read_rows, splits_of
    from trainer.duplicates import count_exact, count_pairs, near_duplicates, pixel_hashes

    if output and (output.suffix.lower() != ".png" or output.resolve().is_relative_to(path.resolve())):
        raise UsageError(f"the picture must be a .png outside of {path}, got {output}")
    rows = with_votes(read_rows(path, size, colour), path, votes)
    split = held_out(rows, seed)
    splits = {name: _counts(rows.label[split == name]) for name in splits_of(split)}
    hashes = pixel_hashes(rows.images)
    training = split == "Training"
    found = {
        "path": str(path),
        "faces": len(rows.label),
        "classes": list(LABELS),
        "size": size,
        "colour": colour,
        "pictures": dict(rows.pictures.most_common(8)),
        "splits": splits,
        "left_out": {
            "lossy": int((training & rows.lossy).sum()),
            "not_a_face": int((training & ~rows.lossy & not_a_face(rows.votes)).sum()),
        },
        "duplicates": count_exact(hashes, split),
        "near_duplicates": count_pairs(near_duplicates(rows.images), split) if near else None,
        "crowd": _agreement(rows),
        "warnings": differences(rows) + _absent(splits),
    }
    if output:
        _picture(rows, output, f"{path.name}: {len(rows.label):,} faces", seed)
    return found


def _counts(label: Any) -> dict[str, Any]:
    from trainer.data import class_counts, class_weights

    return {
        "faces": len(label),
        "counts": dict(zip(LABELS, class_counts(label).tolist(), strict=True)),
        "weights": {name: round(float(weight), 4) for name, weight in zip(LABELS, class_weights(label), strict=True)},
    }


def _absent(splits: dict[str, Any]) -> list[str]:
    absent = {split: [name for name, n in found["counts"].items() if not n] for split, found in splits.items()}
    return [f"{split} has no {', '.join(names)}: weight 0, and nothing can be said about it" for split, names in absent.items() if names]


def _agreement(rows: Rows) -> dict[str, Any] | None:
    from trainer.data import crowd_majority

    if not rows.votes.any():
        return None
    majority = crowd_majority(rows.votes)
    known = majority >= 0
    return {
        "voted": int(rows.votes.any(1).sum()),
        "majority": int(known.sum()),
        "agreement": round(float((majority == rows.label)[known].mean()), 4) if known.any() else None,
    }


def _picture(rows: Rows, output: Path, title: str, seed: int) -> None:
    """Faces of every class, drawn by `seed`; under a temporary name first, then renamed."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_COLUMNS + 1.6, len(LABELS) + 0.8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15)
    for row, cells in enumerate(figure.subplots(len(LABELS), _COLUMNS)):
        there = np.flatnonzero(rows.label == row)
        chosen = np.random.default_rng([seed, row]).permutation(there)[:_COLUMNS]
        for cell in cells:
            cell.set(xticks=[], yticks=[])
            cell.set_frame_on(False)
        for cell, index in zip(cells, chosen, strict=False):
            cell.imshow(rows.images[index], cmap="gray", vmin=0, vmax=255)
        cells[0].set_ylabel(f"{LABELS[row]}\n{len(there):,}", rotation=0, ha="right", va="center", fontsize=13)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(output)
    except OSError as error:
        raise UsageError(f"the picture {output} cannot be written: {error.strerror}") from error


data_group = click.Group("data", help="Look at training data.")


@data_group.command("inspect")
@click.argument("path", type=DataPath())
@click.option("--votes", type=click.Path(path_type=Path), help="FER+ votes for a CSV, joined by row: Microsoft's fer2013new.csv.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE.png", help="Write sample faces, a row per class.")
@click.option("--near", is_flag=True, help="Count near-duplicates too: another brightness or encoding of the same picture.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def inspect_command(path: Path, votes: Path | None, picture: Path | None, near: bool, as_json: bool) -> None:
    """Count classes, duplicates and disagreements in PATH before training on it.

    PATH is FER2013 as Kaggle's CSV (plain, .gz or .zip), the .npz with FER+ votes, or a folder of pictures:
    train/CLASS/… beside test/CLASS/… or val/CLASS/…, or CLASS/… alone; or kaggle:OWNER/NAME, fetched where the network allows.

    \b
    Examples:
      fer-train data inspect fer2013.csv
      fer-train data inspect fer2013.csv.gz --votes fer2013new.csv
      fer-train data inspect faces/ --picture samples.png --near
      fer-train data inspect kaggle:msambare/fer2013
      fer-train data inspect fer2013.npz --json | jq .splits.Training.weights
    """
    found = inspect_data(path, picture, votes=votes, near=near)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found)
        if picture:
            click.echo(f"samples in {picture}")


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"{found['path']}: {found['faces']:,} faces", title_justify="left")
    table.add_column("class")
    for split in found["splits"]:
        table.add_column(split, justify="right")
        table.add_column("weight", justify="right", style="dim")
    for name in LABELS:
        cells = [cell for s in found["splits"].values() for cell in (f"{s['counts'][name]:,}", f"{s['weights'][name]:.2f}")]
        table.add_row(name, *cells)
    table.add_section()
    table.add_row("all", *[cell for s in found["splits"].values() for cell in (f"{s['faces']:,}", "")])
    console.print(table)
    lines = {"pictures": ", ".join(f"{kind} {n:,}" for kind, n in found["pictures"].items())}
    if any(found["left_out"].values()):
        lines["left out of Training"] = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in found["left_out"].items())
    lines["equal images, groups"] = _pairs(found["duplicates"])
    if found["near_duplicates"] is not None:
        lines["alike images, pairs"] = _pairs(found["near_duplicates"])
    if crowd := found["crowd"]:
        share = "none" if crowd["agreement"] is None else f"{crowd['agreement']:.1%}"
        lines["FER+ majority"] = f"of {crowd['majority']:,} faces, {share} agree with the label"
    for name, text in lines.items():
        console.print(f"{name}: {text}", markup=False)
    for text in found["warnings"]:
        console.print(f"warning: {text}", markup=False, style="yellow")


def _pairs(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())
