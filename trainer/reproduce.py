"""The whole chain from data to a file that ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from engines.errors import UsageError


def reproduce_classifier(
    name: str, recipe_path: Callable[[str], Path], data: Path, pictures: Path | None, models: Path, console: Console,
    changes: Sequence[str] = (), epochs: int | None = None, limit: int | None = None,
) -> dict:  # fmt: skip
    """Faces without labels, teachers and theirs, the model, then its export to `models`; what the runs folder holds is not made again.

    `pictures` are those that faces without labels are cut from. `changes` are of the model's recipe alone; `epochs` and `limit` (of
    training faces) are its teachers' too. Returns the metrics of the export; UsageError where `pictures` are wanted and not given.
    """
    from engines.build.crop_margin import FER2013_MARGIN
    from trainer.export import export
    from trainer.loop import train
    from trainer.recipes import Recipe, in_runs, load_recipe
    from trainer.unlabelled import faces_from_pictures

    shorter = [f"epochs={epochs}"] if epochs else []

    def make(run: str, recipe: Recipe) -> None:
        if recipe.distill.unlabelled and not (faces := in_runs(recipe.distill.unlabelled)).is_file():
            if pictures is None:
                raise UsageError(f"{run} learns from faces without labels, too; give pictures to cut them from with --pictures")
            console.print(f"{faces}: {faces_from_pictures(pictures, faces, FER2013_MARGIN)} faces")
        for teacher in recipe.distill.teachers:
            if not Path(teacher).expanduser().is_absolute():  # one by name lies under $FER_RUNS
                make(teacher, load_recipe(recipe_path(teacher), shorter))
        train(recipe, data, in_runs(run), console, limit)

    make(name, load_recipe(recipe_path(name), [*changes, *shorter]))
    return export(in_runs(name), data, models, name)


def reproduce_detector(
    name: str, recipe_path: Callable[[str], Path], data: Path, start: Path | None, models: Path, console: Console,
    changes: Sequence[str] = (), epochs: int | None = None,
) -> dict:  # fmt: skip
    """Fine-tunes `start`, an Ultralytics checkpoint, as often as the recipe's chain of runs says, and exports the last to `models`.

    `changes` are of the last run's recipe alone, `epochs` of all. Returns the metrics of the export; UsageError without `start`.
    """
    if start is None:
        raise UsageError("the detector is fine-tuned: give the checkpoint that it starts from with --start")
    from trainer.detector import DetectorRecipe, final_checkpoint, load_detector_recipe, train_detector
    from trainer.detector_score import export_detector
    from trainer.recipes import in_runs

    shorter = [f"epochs={epochs}"] if epochs else []

    def make(run: str, recipe: DetectorRecipe) -> None:
        before = start
        if recipe.start:
            make(recipe.start, load_detector_recipe(recipe_path(recipe.start), shorter))
            before = final_checkpoint(in_runs(recipe.start))
        train_detector(recipe, before, data, in_runs(run), console)

    make(name, load_detector_recipe(recipe_path(name), [*changes, *shorter]))
    return export_detector(in_runs(name), data, models, name).metrics
