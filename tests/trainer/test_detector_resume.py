"""A detector's run that goes on: from a torn checkpoint, in a relative folder, and not as another run than it was."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install -e '.[train]'")
pytest.importorskip("ultralytics", reason="training the detector needs ultralytics: pip install -e '.[train]'")

import torch
from drawn_faces import write_pictures
from rich.console import Console

from engines.errors import UsageError
from engines.manifest import shipped
from trainer.detector import epochs_of, faces_folder, last_checkpoint, pictures_of, train_detector
from trainer.detector_score import _data_line, export_detector
from trainer.recipes import run_data, settle

from .test_detector import RECIPE, Stopped, StopsIn, epochs, pictures, start  # noqa: F401

THREE = RECIPE.model_copy(update={"epochs": 3})


def trained(run: Path, start: Path, pictures: Path, recipe=RECIPE) -> str:  # noqa: F811
    said = io.StringIO()
    train_detector(recipe, start, pictures, run, Console(file=said, width=400))
    return said.getvalue()


def cut(run: Path, start: Path, pictures: Path, epoch: int) -> None:  # noqa: F811
    with pytest.raises(Stopped):
        train_detector(THREE, start, pictures, run, Console(file=StopsIn(epoch), width=200))


@pytest.mark.parametrize("left", [0, 3, 1000, 50_000])
def test_a_torn_checkpoint_is_replaced_by_the_copy_before_it(left: int, pictures: Path, start: Path, tmp_path: Path) -> None:  # noqa: F811
    cut(tmp_path, start, pictures, 2)
    last = last_checkpoint(tmp_path)
    last.write_bytes(last.read_bytes()[:left])
    last.with_name("best.pt").write_bytes(b"PK")
    assert "going on from the copy before it" in trained(tmp_path, start, pictures, THREE)
    assert epochs(tmp_path) == [1, 2, 2, 3]
    assert epochs_of(last) == 3
    assert [path.name for path in last.parent.iterdir()] == ["last.pt"]  # the copy has done its work


def test_a_torn_checkpoint_without_a_copy_starts_anew(pictures: Path, start: Path, tmp_path: Path) -> None:  # noqa: F811
    last = last_checkpoint(tmp_path)
    last.parent.mkdir(parents=True)
    last.write_bytes(b"PK")
    assert "starting anew" in trained(tmp_path, start, pictures)
    assert epochs(tmp_path) == [1, 2]


def test_a_finished_run_takes_no_more_epochs_and_says_what_to_do(pictures: Path, start: Path, tmp_path: Path) -> None:  # noqa: F811
    trained(tmp_path, start, pictures)
    weights = last_checkpoint(tmp_path).read_bytes()
    with pytest.raises(UsageError, match=r"run of 2 epochs.*epochs=3.*--run OTHER --start .*last\.pt"):
        trained(tmp_path, start, pictures, THREE)
    assert last_checkpoint(tmp_path).read_bytes() == weights
    assert "has all of its 2 epochs" in trained(tmp_path, start, pictures)


def test_another_recipe_or_other_pictures_do_not_go_on(pictures: Path, start: Path, tmp_path: Path) -> None:  # noqa: F811
    run = tmp_path / "run"
    trained(run, start, pictures)
    before = (run / "recipe.json").read_text()
    with pytest.raises(UsageError, match=r"lr was 0\.001, now 0\.01; seed was 1, now 9"):
        trained(run, start, pictures, RECIPE.model_copy(update={"lr": 0.01, "seed": 9}))
    relabelled = Path(shutil.copytree(pictures, tmp_path / "relabelled"))
    (relabelled / "labels" / "val" / "0.txt").write_text("")
    with pytest.raises(UsageError, match=r"the data were .*pictures 8, faces 8, .* now relabelled"):
        trained(run, start, relabelled)
    assert (run / "recipe.json").read_text() == before
    assert "has all of its 2 epochs" in trained(run, start, Path(shutil.copytree(pictures, tmp_path / "moved")))


def test_the_manifest_names_the_pictures_that_it_was_trained_on(pictures: Path, start: Path, tmp_path: Path) -> None:  # noqa: F811
    trained(tmp_path / "run", start, pictures, RECIPE.model_copy(update={"epochs": 1}))
    assert export_detector(tmp_path / "run", pictures, tmp_path, "tiny").data == f"{pictures.name} (8 pictures, 8 faces)"


def test_the_shipped_detectors_pictures_are_known_by_their_counts(data: Path, tmp_path: Path) -> None:
    seen = pictures_of(data)
    settle(tmp_path, RECIPE, seen, begun=False)
    assert _data_line(run_data(tmp_path)) == shipped()["yolo11n_face"].data


def test_archives_are_unpacked_again_where_they_are_others(pictures: Path, tmp_path: Path) -> None:  # noqa: F811
    others = write_pictures(tmp_path / "others", 3, 2)
    for name, tree in (("one", pictures), ("two", others)):
        (tmp_path / name).mkdir()
        for split in ("train", "val"):
            with tarfile.open(tmp_path / name / f"faces_{split}.tar", "w") as archive:
                for kind in ("images", "labels"):
                    archive.add(tree / kind / split, f"faces/{kind}/{split}")
    for name, count in (("one", 12), ("one", 12), ("two", 5)):
        folder = faces_folder(tmp_path / name, tmp_path / "run", pictures_of(tmp_path / name))
        assert len(list(folder.glob("images/*/*.png"))) == len(list(folder.glob("labels/*/*.txt"))) == count


def test_archives_and_their_unpacked_folder_are_the_same_pictures(pictures: Path, tmp_path: Path) -> None:  # noqa: F811
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"faces_{split}.tar", "w") as archive:
            for kind in ("images", "labels"):
                archive.add(pictures / kind / split, f"faces/{kind}/{split}")
            archive.add(__file__, "faces/data.yaml")
            archive.add(__file__, f"faces/labels/{split}.cache")
    assert {**pictures_of(tmp_path), "name": ""} == {**pictures_of(pictures), "name": ""}


@pytest.mark.parametrize("content", [None, "{", '{"name": "r", "data": {}}'])
def test_a_run_without_a_detectors_recipe_is_one_sentence(
    content: str | None, pictures: Path, start: Path, tmp_path: Path  # noqa: F811
) -> None:
    last = last_checkpoint(tmp_path)
    last.parent.mkdir(parents=True)
    torch.save({**torch.load(start, weights_only=False), "epoch": 0}, last)
    if content:
        (tmp_path / "recipe.json").write_text(content)
    for does in (lambda: export_detector(tmp_path, pictures, tmp_path, "tiny"), lambda: trained(tmp_path, start, pictures)):
        with pytest.raises(UsageError, match=r"recipe\.json") as caught:
            does()
        assert "\n" not in str(caught.value)


def test_a_relative_run_lies_where_it_is_said(
    pictures: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.chdir(tmp_path)
    last = train_detector(RECIPE.model_copy(update={"epochs": 1}), start, pictures, Path("runs/mine"), Console(file=io.StringIO()))
    assert last == tmp_path / "runs" / "mine" / "ultralytics" / "weights" / "last.pt"
    assert epochs_of(last) == 1


def test_a_copy_of_the_start_that_was_cut_off_is_not_taken_for_it(
    pictures: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    def half(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.detector.shutil.copyfile", half)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, start, pictures, RECIPE.model_copy(update={"keep": 0.25}))
    assert not (tmp_path / "start.pt").exists()
