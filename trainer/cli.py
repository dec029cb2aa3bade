"""`fer-train`: from data to the weights that ship."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from engines.errors import FerError

_DATA = click.option("--data", type=click.Path(path_type=Path), required=True, help="fer2013.npz: FER2013 with FER+ votes.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train, judge and export the expression classifier.

    \b
    Examples:
      fer-train train configs/train/emotion_cnn.yaml --data fer2013.npz
      fer-train train configs/train/emotion_cnn.yaml --data fer2013.npz --set epochs=60 --run ~/runs/long
      fer-train evaluate emotion_cnn --data fer2013.npz --json
      fer-train export ~/runs/long --data fer2013.npz

    A run stopped at any moment goes on with the same command: a cut epoch is repeated with the same result.
    """


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@_DATA
@click.option("--run", type=click.Path(path_type=Path), help="Folder of the run. Default: $FER_RUNS/RECIPE, else ~/.cache/fer-runs/RECIPE.")
@click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")
@click.option("--limit", type=click.IntRange(256), help="Train on so many faces only.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe.")
def train(recipe: Path, data: Path, run: Path | None, epochs: int | None, limit: int | None, changes: tuple[str, ...]) -> None:
    """Train by RECIPE (a YAML file), or go on with a run that was stopped."""
    from rich.console import Console

    from trainer.loop import runs_folder
    from trainer.loop import train as run_training
    from trainer.recipes import load_recipe

    values = dict(change.split("=", 1) for change in changes if "=" in change)
    if epochs:
        values["epochs"] = str(epochs)
    run_training(load_recipe(recipe, **values), data, run or runs_folder() / recipe.stem, Console(stderr=True), limit)


@cli.command()
@click.argument("model")
@_DATA
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def evaluate(model: str, data: Path, as_json: bool) -> None:
    """Judge MODEL (a shipped name or an ONNX file) on PublicTest, as it runs when it is used."""
    from trainer.evaluate import evaluate_engine

    metrics = evaluate_engine(model, data)
    if as_json:
        click.echo(json.dumps(metrics))
    else:
        for name, value in metrics.items():
            click.echo(f"{name:28s} {value:.4f}")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@_DATA
@click.option("--name", default="emotion_cnn", show_default=True, help="Name in engines/models.")
def export(run: Path, data: Path, name: str) -> None:
    """Calibrate a RUN on PublicTest and write it to engines/models."""
    from trainer.export import export as write

    models = Path(__file__).resolve().parents[1] / "engines" / "models"
    for key, value in write(run, data, models, name).items():
        click.echo(f"{key:28s} {value}")


def main() -> None:
    """Entry point: errors are one sentence."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except (FerError, FileNotFoundError, ValueError) as error:
        click.echo(f"fer-train: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
