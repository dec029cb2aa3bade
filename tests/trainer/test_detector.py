"""The detector's training through ultralytics, on drawn faces and a network of a few convolutions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("ultralytics", reason="training the detector needs ultralytics: pip install -e '.[train]'")

import torch
from drawn_faces import write_pictures
from rich.console import Console
from tiny_yolo import TINY

from engines.errors import UsageError
from trainer import precision
from trainer.detector import DetectorRecipe, epochs_of, final_checkpoint, last_checkpoint, train_detector
from trainer.detector_loss import equal_weights
from trainer.detector_score import export_detector, score_detectors
from trainer.reproduce import reproduce_detector

RECIPE = DetectorRecipe(name="tiny", imgsz=96, epochs=2, batch=4, warmup_epochs=0, close_mosaic=0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures to train on and four to judge by, one drawn face each."""
    return write_pictures(tmp_path_factory.mktemp("faces"), 8, 4)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("start")
    (folder / "yolo11tiny.yaml").write_text(TINY)
    torch.manual_seed(0)
    YOLO(str(folder / "yolo11tiny.yaml")).save(str(folder / "start.pt"))
    return folder / "start.pt"


def epochs(run: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_swaps_activations_goes_on_where_it_was_cut_and_becomes_an_engine(pictures: Path, start: Path, tmp_path: Path) -> None:
    run, said = tmp_path / "run", io.StringIO()
    recipe = RECIPE.model_copy(update={"epochs": 3, "mirror": True})
    with pytest.raises(Stopped):
        train_detector(recipe, start, pictures, run, Console(file=StopsIn(2), width=200))
    assert epochs(run) == [1, 2]
    assert epochs_of(last_checkpoint(run)) == 1  # the log is ahead of it, and must not end the run
    train_detector(recipe, start, pictures, run, Console(file=said, width=200))
    assert "going on from" in said.getvalue()
    assert epochs(run) == [1, 2, 2, 3]  # the cut one is repeated
    assert epochs_of(last_checkpoint(run)) == 3

    network = torch.load(last_checkpoint(run), weights_only=False)["model"]
    kinds = {type(layer.act).__name__ for layer in network.modules() if hasattr(layer, "act")}
    assert "Hardswish" in kinds
    assert "SiLU" not in kinds

    entry = export_detector(run, pictures, tmp_path, "tiny", conf=0.3)
    assert (entry.contract.conf, entry.contract.mirror) == (0.3, True)
    assert set(entry.metrics["ap50"]) == set(entry.metrics["ap50, also mirrored"]) == {f"faces >= {side} px" for side in (8, 16, 32, 64)}
    table = score_detectors([str(entry.path)], pictures)
    assert set(table) == {"tiny"}
    assert all(0 <= row["ap50"] <= 1 for row in table["tiny"].values())


class Stopped(Exception):
    """A stop between two epochs leaves what a kill leaves: the last checkpoint."""


class StopsIn(io.StringIO):
    """A console's file that ends a training in an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def write(self, text: str) -> int:
        if f"epoch {self.epoch}/" in text:
            raise Stopped
        return super().write(text)


def test_what_is_missing_is_one_sentence(pictures: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint"):
        train_detector(RECIPE, tmp_path / "none.pt", pictures, tmp_path / "run", Console(file=io.StringIO()))
    with pytest.raises(UsageError, match="holds no face images"):
        train_detector(RECIPE, start, tmp_path, tmp_path / "run", Console(file=io.StringIO()))


@pytest.mark.parametrize("has", [True, False])
def test_autocast_is_on_where_the_cpu_has_bf16(
    has: bool, pictures: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ultralytics.engine.trainer as ultralytics_trainer

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has)
    monkeypatch.setattr(ultralytics_trainer, "autocast", ultralytics_trainer.autocast)  # is put back afterwards
    train_detector(RECIPE.model_copy(update={"epochs": 1}), start, pictures, tmp_path, Console(file=io.StringIO()))
    with ultralytics_trainer.autocast():
        assert torch.is_autocast_enabled("cpu") is has


def test_a_recipe_goes_on_from_the_run_before_it_and_nothing_is_trained_twice(
    pictures: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_RUNS", str(tmp_path / "runs"))
    common = "imgsz: 96\nepochs: 1\nbatch: 4\nwarmup_epochs: 0\nclose_mosaic: 0\n"
    (tmp_path / "first.yaml").write_text(f"{common}lr: 0.01\nkeep: 0.25\n")
    (tmp_path / "second.yaml").write_text(f"{common}lr: 1.0e-9\nstart: first\n")
    for turn in range(2):
        said = io.StringIO()
        console = Console(file=said, width=400)
        reproduce_detector("second", lambda name: tmp_path / f"{name}.yaml", pictures, start, tmp_path / "models", console)
        assert said.getvalue().count("has all of its 1 epochs") == 2 * turn
    first, second = (final_checkpoint(tmp_path / "runs" / name) for name in ("first", "second"))
    assert moved(first, second) < 0.01 * moved(start, first)


def moved(before: Path, after: Path, layer: str = "") -> float:
    """The farthest that a weight of the convolutions (of those of `layer`) went between two checkpoints."""
    a, b = (dict(torch.load(path, weights_only=False)["model"].float().named_parameters()) for path in (before, after))
    return max((a[name] - b[name]).abs().max().item() for name, tensor in a.items() if tensor.ndim == 4 and name.startswith(layer))


def test_first_layers_stay_and_the_mean_of_the_weights_lags_where_the_recipe_says_so(pictures: Path, start: Path, tmp_path: Path) -> None:
    def distances(**changes: float) -> tuple[float, float]:
        run = tmp_path / "-".join(changes)
        last = train_detector(RECIPE.model_copy(update=changes), start, pictures, run, Console(file=io.StringIO()))
        return moved(start, last, "model.0."), moved(start, last, "model.1.")

    first, second = distances(lr=0.01)
    assert first > 0
    assert distances(lr=0.01, freeze=1)[0] == 0
    assert 0 < distances(lr=0.01, ema=0.99)[1] < 0.2 * second


def test_a_small_face_weighs_as_much_as_a_large_one_and_a_tiny_one_by_its_side() -> None:
    large, small, tiny, none = [0.0, 0, 80, 80], [100.0, 100, 116, 116], [5.0, 5, 13, 13], [0.0] * 4
    boxes = torch.tensor([[large] * 6 + [small, small, none], [large] * 2 + [tiny] + [none] * 6])
    assigned = boxes.sum(-1) > 0
    weights = assigned[..., None] * torch.tensor([0.9] * 3 + [0.6] * 5 + [0.0])[None, :, None]
    shared = equal_weights(weights, boxes, assigned)[..., 0]
    first, second, third, fourth = shared[0, :6].sum(), shared[0, 6:8].sum(), shared[1, :2].sum(), shared[1, 2]
    assert torch.allclose(torch.stack([second, third, 2 * fourth]), first)  # the large ones of two pictures are two faces
    assert torch.allclose(shared.sum(), weights.sum())
    assert torch.allclose(shared[0, 0] / shared[0, 5], torch.tensor(1.5))  # within a face the better place counts more
    assert not shared[~assigned].any()
    assert not equal_weights(weights, boxes, torch.zeros_like(assigned)).any()


def test_equal_faces_and_weights_of_the_loss_reach_the_training(pictures: Path, start: Path, tmp_path: Path) -> None:
    def trained(**changes: object) -> Path:
        recipe = RECIPE.model_copy(update={"epochs": 1, "lr": 0.01, **changes})
        return train_detector(recipe, start, pictures, tmp_path / "-".join(["run", *changes]), Console(file=io.StringIO()))

    plain = trained()
    assert moved(plain, trained(seed=RECIPE.seed)) == 0
    assert all(moved(plain, trained(**change)) > 0 for change in ({"equal_faces": True}, {"box": 15.0}, {"dfl": 4.0}))


def test_what_is_exported_keeps_its_share_of_what_the_run_started_from(pictures: Path, start: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 1, "keep": 0.25})
    last = train_detector(recipe, start, pictures, tmp_path / "run", Console(file=io.StringIO()))
    export_detector(tmp_path / "run", pictures, tmp_path, "tiny")
    trained, before, kept = (
        torch.load(path, weights_only=False)["model"].float().state_dict() for path in (last, start, tmp_path / "run" / "kept.pt")
    )
    for name, tensor in kept.items():
        if tensor.dtype.is_floating_point:
            assert torch.allclose(tensor, 0.75 * trained[name] + 0.25 * before[name], atol=2e-3, rtol=2e-3)
