"""The whole chain from data to a file that ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from engines.errors import UsageError


def reproduce_classifier(
    name: str, recipe_path: Callable[[str], Path], data: Path, runs: Path, models: Path, console: Console, changes: Sequence[str] = (),
    epochs: int | None = None, limit: int | None = None,
) -> dict:  # fmt: skip
    """Teachers that are no finished run's folder, then the model, then its export to `models`; returns the metrics of that.

    `changes` are of the model's recipe alone; `epochs` and `limit` (of training faces) are its teachers' too. Runs lie in `runs`.
    """
    from trainer.export import export
    from trainer.loop import train
    from trainer.recipes import load_recipe, runs_folder

    shorter = [f"epochs={epochs}"] if epochs else []
    recipe = load_recipe(recipe_path(name), [*changes, *shorter])
    for teacher in recipe.distill.teachers:
        if not Path(teacher).expanduser().is_dir():
            train(load_recipe(recipe_path(teacher), shorter), data, runs / teacher, console, limit)
    if runs != runs_folder():  # where names of teachers are looked for
        known = recipe.distill.teachers
        teachers = [teacher if Path(teacher).expanduser().is_dir() else str((runs / teacher).resolve()) for teacher in known]
        recipe = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"teachers": teachers})})
    train(recipe, data, runs / name, console, limit)
    return export(runs / name, data, models, name)


def reproduce_detector(
    name: str, recipe_path: Callable[[str], Path], data: Path, start: Path | None, runs: Path, models: Path, console: Console,
    changes: Sequence[str] = (), epochs: int | None = None,
) -> dict:  # fmt: skip
    """Fine-tunes `start`, an Ultralytics checkpoint, and exports it to `models`; returns the metrics of that."""
    if start is None:
        raise UsageError("the detector is fine-tuned: give the checkpoint that it starts from with --start")
    from trainer.detector import load_detector_recipe, train_detector
    from trainer.detector_score import export_detector

    recipe = load_detector_recipe(recipe_path(name), [*changes, *([f"epochs={epochs}"] if epochs else [])])
    train_detector(recipe, start, data, runs / name, console)
    return export_detector(runs / name, data, models, name).metrics
