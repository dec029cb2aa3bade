"""`fer-train`: from data to the weights that ship."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from engines.errors import FerError, UsageError
from trainer.inspect import data_group
from trainer.kaggle import DataPath, data_option
from trainer.report_cli import evaluate_command

_RECIPES = Path(__file__).resolve().parents[1] / "configs" / "train"
_MODELS = Path(__file__).resolve().parents[1] / "engines" / "models"

_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_faces = click.option("--data", type=_PATH, required=True, help="*train*.tar and *val*.tar, or images/{train,val} with labels beside.")
_run = click.option("--run", type=_FOLDER, help="Folder of the run. Default: $FER_RUNS/RECIPE, else ~/.cache/fer-runs/RECIPE.")
_set = click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe: --set loss.focal_gamma=2.")
_name = click.option("--name", help="Name in engines/models; one that is there is replaced. Default: that of the run's folder.")
_epochs = click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def cli(debug: bool) -> None:
    """Train, judge and export the expression classifier and the face detector.

    \b
    Examples:
      fer-train data inspect fer2013.npz --picture samples.png
      fer-train train emotion_cnn_teacher --data fer2013.npz
      fer-train train resnet18 --data fer2013.npz --set optimizer.lr=0.05 --run ~/runs/r18
      fer-train evaluate --model emotion_cnn --data fer2013.npz --report out/report
      fer-train compare emotion_cnn_teacher resnet18 googlenet_ce --data fer2013.npz --epochs 4
      fer-train export ~/runs/long --data fer2013.npz
      fer-train detector train yolo11n_face --start yolo11n_face.pt --data faces/
      fer-train reproduce emotion_cnn --data fer2013.npz --pictures faces/

    RECIPE is a YAML file, or the name of one in configs/train. A run stopped at any moment goes on with the same command: a
    cut epoch is repeated with the same result.
    """


cli.add_command(data_group)
cli.add_command(evaluate_command, "evaluate")


@data_group.command("faces")
@click.argument("pictures", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
def faces(pictures: Path, output: Path) -> None:
    """Cut the faces of detection PICTURES into OUTPUT (.npy), for teachers to judge (distill.unlabelled).

    \b
    Example:
      fer-train data faces faces/ ~/.cache/fer-runs/unlabelled_faces.npy
    """
    from engines.build.crop_margin import FER2013_MARGIN
    from trainer.unlabelled import faces_from_pictures

    if output.suffix != ".npy":
        raise UsageError(f"OUTPUT must end in .npy, got {output.name}")
    click.echo(f"{output}: {faces_from_pictures(pictures, output, FER2013_MARGIN)} faces")


@cli.command()
@click.argument("recipe")
@data_option
@_run
@_epochs
@click.option("--limit", type=click.IntRange(8), help="Train on so many faces only.")
@_set
def train(recipe: str, data: Path, run: Path | None, epochs: int | None, limit: int | None, changes: tuple[str, ...]) -> None:
    """Train by RECIPE, or go on with a run that was stopped.

    \b
    Examples:
      fer-train train emotion_cnn_teacher --data fer2013.npz
      fer-train train configs/train/googlenet_focal.yaml --data train.csv --epochs 2 --limit 2000
    """
    from rich.console import Console

    from trainer.loop import train as run_training
    from trainer.recipes import load_recipe

    path = recipe_path(recipe)
    loaded = load_recipe(path, [*changes, *([f"epochs={epochs}"] if epochs else [])])
    metrics = run_training(loaded, data, run or _folder(path.stem), Console(stderr=True), limit)
    click.echo(f"best epoch {metrics['epoch']}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k.endswith(("accuracy", "f1"))))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@data_option
@_name
def export(run: Path, data: Path, name: str | None) -> None:
    """Calibrate a RUN on PublicTest and write it to engines/models.

    \b
    Example:
      fer-train export ~/.cache/fer-runs/emotion_cnn --data fer2013.npz
    """
    from trainer.export import export as write

    name = name or run.resolve().name
    _report(write(run, data, _MODELS, name), name, _MODELS)


@cli.command()
@click.argument("recipes", nargs=-1, required=True)
@data_option
@_epochs
@click.option("--limit", type=click.IntRange(8), help="Train each on so many faces only.")
@_set
@click.option("--output", type=_FOLDER, help="Folder for table.md, rows.json and accuracy_over_cost.png.")
def compare(
    recipes: tuple[str, ...], data: Path, epochs: int | None, limit: int | None, changes: tuple[str, ...], output: Path | None
) -> None:
    """Train several RECIPES under one protocol, one after another, and put them into one table.

    The protocol is what the options say: the same data, epochs and changes for all. A row that is there already is not trained
    again; a stopped comparison goes on with the same command.

    \b
    Example:
      fer-train compare emotion_cnn_teacher plain_cnn resnet18 --data fer2013.npz --epochs 4 --output out/compare
    """
    from rich.console import Console

    from trainer.compare import compare as run_comparison

    shared = [*changes, *([f"epochs={epochs}"] if epochs else [])]
    output = output or _folder("compare")
    table = run_comparison([recipe_path(recipe) for recipe in recipes], data, shared, limit, output, Console(stderr=True))
    click.echo(table)
    click.echo(f"in {output}", err=True)


@cli.group()
def detector() -> None:
    """The face detector: train, judge, export."""


@detector.command("train")
@click.argument("recipe")
@_faces
@click.option("--start", type=_PATH, required=True, help="Ultralytics checkpoint to start from (a pickle: only your own).")
@_run
@_set
def train_detector(recipe: str, data: Path, start: Path, run: Path | None, changes: tuple[str, ...]) -> None:
    """Fine-tune YOLO11n by RECIPE, or go on from the last epoch of a run that was stopped.

    \b
    Example:
      fer-train detector train yolo11n_face --start yolo11n_face.pt --data faces/ --set epochs=4
    """
    from rich.console import Console

    from trainer import detector as detectors

    path = recipe_path(recipe)
    run = run or _folder(path.stem)
    click.echo(detectors.train_detector(detectors.load_detector_recipe(path, changes), start, data, run, Console(stderr=True)))


@detector.command("evaluate")
@click.argument("models", nargs=-1, required=True)
@_faces
@click.option("--rival", type=click.Path(path_type=Path), help="A YuNet's .onnx, to be compared with at its own number of false positives.")
@click.option("--mirror", is_flag=True, help="Look at each picture twice, the second time mirrored, as fer-stream does at still pictures.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def evaluate_detector(models: tuple[str, ...], data: Path, rival: Path | None, mirror: bool, as_json: bool) -> None:
    """AP50 and recall of MODELS on the validation pictures, by the smallest face that counts.

    \b
    Examples:
      fer-train detector evaluate yolo11n_face --data faces/
      fer-train detector evaluate yolo11n_face --data faces/ --mirror
      fer-train detector evaluate yolo11n_face scrfd_500m.onnx --data faces/ --rival face_detection_yunet_2023mar.onnx
    """
    import json

    from trainer.detector_score import score_detectors

    table = score_detectors(models, data, str(rival) if rival else None, lambda text: click.echo(text, err=True), mirror=mirror)
    if as_json:
        click.echo(json.dumps(table))
        return
    at_rival = f" {'at the rival´s FPs':>24s}" if rival else ""
    click.echo(f"{'model':32s} {'faces':>8s} {'AP50':>6s} {'recall at 1 FP / 20 images':>28s}{at_rival}")
    for model, by_side in table.items():
        for side, row in by_side.items():
            at_rival = f" {row['recall_at_rival']:>18.3f} ({row['false_positives']:3d})" if rival else ""
            click.echo(f"{model:32s} {f'≥ {side} px':>8s} {row['ap50']:6.3f} {row['recall']:28.3f}{at_rival}")


@detector.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@_faces
@click.option("--conf", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Score that makes a face, instead of the recipe's.")
@_name
def export_detector(run: Path, data: Path, conf: float | None, name: str | None) -> None:
    """Write a RUN to engines/models, measured on the validation pictures.

    \b
    Example:
      fer-train detector export ~/.cache/fer-runs/yolo11n_face --data faces/
    """
    from trainer.detector_score import export_detector as write

    name = name or run.resolve().name
    _report(write(run, data, _MODELS, name, conf).metrics, name, _MODELS)


@cli.command()
@click.argument("name", type=click.Choice(["emotion_cnn", "yolo11n_face"]))
@click.option("--data", type=DataPath(), required=True, help="What the model is trained on (see train, detector train).")
@click.option("--start", type=_PATH, help="The detector's start, an Ultralytics checkpoint.")
@click.option("--pictures", type=_PATH, help="The detector's pictures, for the classifier's faces without labels.")
@_epochs
@click.option("--limit", type=click.IntRange(8), help="Train the classifier on so many faces only.")
@_set
@click.option("--output", type=_FOLDER, help="Folder for the model and its runs, instead of engines/models and $FER_RUNS.")
def reproduce(
    name: str, data: Path, start: Path | None, pictures: Path | None, epochs: int | None, limit: int | None, changes: tuple[str, ...],
    output: Path | None,
) -> None:  # fmt: skip
    """The whole chain from data to the shipped artefact NAME: teachers first, then the model, then its export.

    What was changed (--epochs, --limit, --set) is not what ships, so it goes to a folder of its own (--output).

    \b
    Examples:
      fer-train reproduce emotion_cnn --data fer2013.npz --pictures faces/
      fer-train reproduce yolo11n_face --data faces/ --start yolo11n_face.pt
      fer-train reproduce emotion_cnn --data fer2013.npz --pictures faces/ --epochs 1 --limit 512 --output out/small
    """
    from rich.console import Console

    from trainer.reproduce import reproduce_classifier, reproduce_detector

    if (epochs or limit or changes) and output is None:
        raise UsageError("a changed chain does not make the model that ships; give a folder for what it makes with --output")
    if limit and name == "yolo11n_face":
        raise UsageError("--limit counts the classifier's faces; a share of the detector's pictures is --set fraction=0.1")
    models = output or _MODELS
    models.mkdir(parents=True, exist_ok=True)
    if output:
        os.environ["FER_RUNS"] = str(output.resolve() / "runs")  # so that recipes find each other's runs by name there
    if name == "yolo11n_face":
        found = reproduce_detector(name, recipe_path, data, start, models, Console(stderr=True), changes, epochs)
    else:
        found = reproduce_classifier(name, recipe_path, data, pictures, models, Console(stderr=True), changes, epochs, limit)
    _report(found, name, models)


def _report(metrics: Mapping[str, Any], name: str, models: Path) -> None:
    """What was measured of an exported model, and what is still to be done for it."""
    from engines.manifest import outdated_twin

    for key, value in metrics.items():
        click.echo(f"{key:44s} {value}")
    if outdated := outdated_twin(name, models):
        click.echo(f"note: {outdated}", err=True)


def recipe_path(text: str) -> Path:
    """A recipe's file, or that of a name in configs/train."""
    path = Path(text)
    return path if path.suffix in (".yaml", ".yml") else _RECIPES / f"{text}.yaml"


def _folder(name: str) -> Path:
    from trainer.recipes import in_runs

    return in_runs(name)


def main() -> None:
    """Entry point: errors are one sentence."""
    try:
        cli()
    except FerError as error:
        if "--debug" in sys.argv:
            raise
        click.echo(f"fer-train: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
