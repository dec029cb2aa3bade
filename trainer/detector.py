"""The face detector: YOLO11n fine-tuned through ultralytics, with what makes that bearable on CPU cores.

Measured on two cores with AMX, 16 images at 320 px, forward and backward: float32 .83 s, bf16 autocast with channels-last .39 s;
ultralytics leaves one of two cores idle unless the thread count is set after its own set-up (1.65 times).

The shipped detector replaces SiLU by HardSwish before fine-tuning. In OpenVINO an expanded SiLU costs more than the int8 convolution
before it and about a third of the bf16 graph; HardSwish is fused into the convolution. The swap alone takes YOLO11n at 640×384 to .70 of
its time on one core and costs 2.3 points of AP50, which fine-tuning returns.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from engines.errors import EngineError, UsageError
from engines.select import cores
from engines.silent import import_silently
from trainer.recipes import read_recipe, recipe_from_json, settle

_SPLITS = ("train", "val")
_FOLDERS = tuple(f"{kind}/{split}" for kind in ("images", "labels") for split in _SPLITS)


class DetectorRecipe(BaseModel):
    """Settings of one run of the detector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    start: str | None = Field(None, description="the run that it goes on from; none: the checkpoint that is given (reproduce only)")
    activation: str = Field("Hardswish", description="class of torch.nn that stands in for the start's activations")
    imgsz: int = Field(640, ge=64, multiple_of=32, description="side of the square training image, pixels")
    epochs: int = Field(10, ge=1)
    batch: int = Field(16, ge=1)
    lr: float = Field(0.001, gt=0, description="first learning rate of AdamW; falls linearly")
    final_lr: float = Field(0.02, gt=0, le=1, description="last learning rate as a share of the first")
    warmup_epochs: float = Field(0.3, ge=0)
    close_mosaic: int = Field(2, ge=0, description="so many last epochs see whole images instead of mosaics of four")
    scale: float = Field(0.5, ge=0, lt=1, description="random zoom 1 ± so much")
    box: float = Field(7.5, gt=0, description="weight of the boxes' overlap in the loss; ultralytics' own is 7.5")
    dfl: float = Field(1.5, gt=0, description="weight of the edges' distribution in the loss; ultralytics' own is 1.5")
    equal_faces: bool = Field(False, description="in the loss of boxes a small face weighs as much as a large one")
    degrees: float = Field(10.0, ge=0, le=180, description="random rotation ± so much")
    fraction: float = Field(1.0, gt=0, le=1, description="share of the images to train on")
    freeze: int = Field(0, ge=0, description="so many first layers stay as they are")
    ema: float = Field(0.0, ge=0, lt=1, description="decay, by update, of the running mean of the weights; 0: ultralytics' own ramp")
    keep: float = Field(0.0, ge=0, lt=1, description="share of the weights it started from in those that are exported")
    conf: float = Field(0.45, gt=0, lt=1, description="score from which the exported model counts a box as a face")
    iou: float = Field(0.5, gt=0, lt=1, description="overlap from which the exported model takes two boxes for one face")
    vote: float = Field(0.0, ge=0, lt=1, description="overlap from which a box shifts the edges of the one that is kept; 0: none does")
    mirror: bool = Field(False, description="the exported model looks at still pictures twice, the second time mirrored")
    seed: int = 1


def load_detector_recipe(path: Path, changes: Sequence[str]) -> DetectorRecipe:
    """As trainer.recipes.load_recipe."""
    return read_recipe(DetectorRecipe, path, changes)


def train_detector(recipe: DetectorRecipe, start: Path, data: Path, run: Path, console: Console) -> Path:
    """Fine-tune `start` on the train split of `data`, from the last epoch in `run` where there is one; returns the checkpoint, at once
    where the run has come to its end.

    `start` is an Ultralytics checkpoint, a pickle: unpickling runs code, so give only one of your own. `data` holds *train*.tar and
    *val*.tar, or images/{train,val} with labels/{train,val} in Ultralytics' form. Raises UsageError for what is missing and where `run`
    holds one of another recipe or other data, EngineError without ultralytics.
    """
    run = run.resolve()  # a relative folder is one under ultralytics' own runs to ultralytics
    if not start.is_file():
        raise UsageError(f"there is no checkpoint {start}; give the path of an Ultralytics .pt file with --start")
    try:
        import torch

        ultralytics_trainer = import_silently("ultralytics.engine.trainer")
        YOLO = import_silently("ultralytics").YOLO
    except ImportError as error:
        raise EngineError(f"training the detector needs {error.name}: pip install 'fer-stream[train]'") from error

    run.mkdir(parents=True, exist_ok=True)
    last = last_checkpoint(run)
    _mend(last, console)
    if last.exists() and (was := recipe_from_json(DetectorRecipe, run / "recipe.json").epochs) < recipe.epochs:
        more = f"give a new one that starts from it: --run OTHER --start {last}"
        raise UsageError(f"{run} is a run of {was} epochs, and ultralytics adds none to it, got epochs={recipe.epochs}; {more}")
    seen = pictures_of(data)
    settle(run, recipe, seen, begun=last.exists())
    if recipe.keep and not (run / "start.pt").exists():
        _copy(start, run / "start.pt")
    dataset, pictures = run / "data.yaml", faces_folder(data, run, seen)
    dataset.write_text(yaml.safe_dump({"path": str(pictures), **{s: f"images/{s}" for s in _SPLITS}, "names": ["face"]}))
    if last.exists() and epochs_of(last) >= recipe.epochs:
        console.print(f"{run} has all of its {recipe.epochs} epochs")
        return last

    from trainer.detector_loss import EqualFacesLoss
    from trainer.precision import cpu_has_bf16

    # Its trainer refuses bf16 off CUDA, and `amp=True` means fp16 there: the context manager is the one place to say otherwise.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    halves = device == "cuda" or cpu_has_bf16()
    ultralytics_trainer.autocast = lambda *_, **__: torch.autocast(device, dtype=torch.bfloat16, enabled=halves)

    def on_start(trainer: object) -> None:
        torch.set_num_threads(cores())
        # A model's yaml has a key for this, but the head's class branch does not heed it.
        for network in (trainer.model, trainer.ema.ema):
            for layer in list(network.modules()):
                if isinstance(getattr(layer, "act", None), torch.nn.SiLU):
                    layer.act = getattr(torch.nn, recipe.activation)()
        if recipe.ema:  # its own, .9999 (1 - exp(-updates / 2000)), averages over so few updates in a short run that it does nothing
            trainer.ema.decay = lambda updates: recipe.ema
        if recipe.equal_faces:
            trainer.model.criterion = trainer.model.init_criterion()
            trainer.model.criterion.bbox_loss = EqualFacesLoss(trainer.model.model[-1].reg_max).to(device)
        trainer.model.to(memory_format=torch.channels_last)
        inner = trainer.preprocess_batch

        def channels_last(batch: dict) -> dict:
            batch = inner(batch)
            batch["img"] = batch["img"].to(memory_format=torch.channels_last)
            return batch

        trainer.preprocess_batch = channels_last
        trainer.began = time.monotonic()

    def on_epoch(trainer: object) -> None:
        losses = trainer.label_loss_items(trainer.tloss, prefix="train")
        seconds, trainer.began = time.monotonic() - trainer.began, time.monotonic()
        with open(run / "log.jsonl", "a") as log:
            log.write(json.dumps({"epoch": trainer.epoch + 1, **losses, "seconds": round(seconds, 1)}) + "\n")
        console.print(f"epoch {trainer.epoch + 1}/{trainer.epochs}: {losses}, {seconds:.0f} s")

    def on_save(trainer: object) -> None:
        _copy(trainer.last, _spare(last))
        trainer.best.unlink(missing_ok=True)  # nobody's: the last epoch counts, and a torn one would end the run in an error

    model = YOLO(str(last if last.exists() else start))
    if last.exists():
        console.print(f"going on from {last}")
    workers = 1 if device == "cpu" else 8
    model.add_callback("on_pretrain_routine_start", lambda trainer: setattr(trainer.args, "workers", workers))
    model.add_callback("on_train_start", on_start)
    model.add_callback("on_train_epoch_end", on_epoch)
    model.add_callback("on_model_save", on_save)
    model.train(
        data=str(dataset), imgsz=recipe.imgsz, epochs=recipe.epochs, batch=recipe.batch, nbs=2 * recipe.batch, optimizer="AdamW",
        lr0=recipe.lr, lrf=recipe.final_lr, warmup_epochs=recipe.warmup_epochs, close_mosaic=recipe.close_mosaic, scale=recipe.scale,
        degrees=recipe.degrees, hsv_s=0.5, mosaic=1.0, box=recipe.box, dfl=recipe.dfl, fraction=recipe.fraction, freeze=recipe.freeze,
        single_cls=True, amp=False, val=False, plots=False, device="0" if device == "cuda" else "cpu", project=str(run),
        name="ultralytics", exist_ok=True, verbose=False, cache="ram", seed=recipe.seed, resume=last.exists(),
    )  # fmt: skip
    _spare(last).unlink(missing_ok=True)
    return last


def _spare(last: Path) -> Path:
    """The copy of the last epoch that is whole: ultralytics writes its own in place, and a kill meanwhile leaves half of it."""
    return last.with_name("whole.pt")


def _mend(last: Path, console: Console) -> None:
    """Puts the whole copy in the place of a checkpoint that was torn; without one, the run begins anew."""
    if not last.exists():
        return
    try:
        epochs_of(last)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):  # torch's, by where it was cut off
        if _spare(last).exists():
            _copy(_spare(last), last)
            console.print(f"{last} was cut off as it was written: going on from the copy before it")
        else:
            os.replace(last, last.with_name("torn.pt"))
            console.print(f"{last} was cut off as it was written (now torn.pt), and there is no copy before it: starting anew")


def _copy(source: Path, target: Path) -> None:
    """Under a temporary name first: a kill at any moment leaves the old file or the new one."""
    part = target.with_suffix(".part")
    shutil.copyfile(source, part)
    os.replace(part, target)


def epochs_of(checkpoint: Path) -> int:
    """How many epochs are in a checkpoint of ultralytics. (The log is ahead of it by one where a run was killed between the two.)"""
    saved = _load(checkpoint)
    return int(saved["epoch"]) + 1 or int(saved["train_args"]["epochs"])  # -1: stripped, at the end of the run


def _load(checkpoint: Path) -> dict[str, Any]:
    import torch

    import_silently("ultralytics")  # whose classes are in the pickle
    return torch.load(checkpoint, map_location="cpu", weights_only=False)


def last_checkpoint(run: Path) -> Path:
    """Where ultralytics keeps a run's newest state; at the end, its averaged weights."""
    return run / "ultralytics" / "weights" / "last.pt"


def final_checkpoint(run: Path) -> Path:
    """What a run comes to: its last checkpoint, with the share that its recipe keeps of the weights it started from (`run`/kept.pt).

    As with the classifier, the two lie in one basin, and their mean does what neither does alone (Wortsman et al. 2022). The start's
    activations do not count.
    """
    import torch

    from trainer.models import blend

    share = recipe_from_json(DetectorRecipe, run / "recipe.json").keep
    if not share:
        return last_checkpoint(run)
    last, first = (_load(path) for path in (last_checkpoint(run), run / "start.pt"))
    model, start = ((saved.get("ema") or saved["model"]).float() for saved in (last, first))
    model.load_state_dict(blend(model.state_dict(), start.state_dict(), share))
    torch.save(last | {"model": model.half(), "ema": None}, run / "kept.pt")
    return run / "kept.pt"


def faces_folder(data: Path, run: Path, seen: Mapping[str, Any]) -> Path:
    """The folder with images/{train,val}: `data` itself, or its .tar files unpacked under the run once. `seen`: their pictures_of()."""
    if _is_tree(data):
        return data.resolve()
    target, whole = (run / "faces").resolve(), seen["fingerprint"]
    complete = target / "complete"
    if not complete.exists() or complete.read_text() not in ("", whole):  # of other data; empty: from before it said of which
        shutil.rmtree(target, ignore_errors=True)
        for archive in _archives(data):
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
        complete.write_text(whole)
    return next(path.parent for path in target.rglob("images"))


def pictures_of(data: Path) -> dict[str, Any]:
    """What tells pictures and labels of one folder, or of its .tar files, from others: how many pictures and faces there are to train on,
    and what all names, sizes and labels come to. Raises UsageError where there are none."""
    files = sorted(_files(data))
    pictures = sum(name.startswith("images/train/") for name, _ in files)
    faces = sum(len(held.split(b"\n")) for name, held in files if name.startswith("labels/train/") and isinstance(held, bytes) and held)
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    return {"name": data.resolve().name, "pictures": pictures, "faces": faces, "fingerprint": digest}


def _files(data: Path) -> Iterator[tuple[str, bytes | int]]:
    """("labels/train/a.txt", its text) and ("images/train/a.jpg", its bytes' number), wherever they lie; nothing of what lies beside."""
    if _is_tree(data):
        for path in (path for folder in _FOLDERS for path in (data / folder).glob("*") if path.is_file()):
            yield "/".join(path.parts[-3:]), path.read_bytes().strip() if path.suffix == ".txt" else path.stat().st_size
        return
    for archive in _archives(data):
        with tarfile.open(archive) as tar:
            for member in (member for member in tar if member.isfile() and "/".join(Path(member.name).parts[-3:-1]) in _FOLDERS):
                text = tar.extractfile(member) if member.name.endswith(".txt") else None
                yield "/".join(Path(member.name).parts[-3:]), text.read().strip() if text else member.size


def _is_tree(data: Path) -> bool:
    return all((data / "images" / split).is_dir() for split in _SPLITS)


def _archives(data: Path) -> list[Path]:
    archives = [path for split in _SPLITS for path in sorted(data.glob(f"*{split}*.tar"))]
    if not archives:
        raise UsageError(f"{data} holds no face images; expected images/{{train,val}} with labels beside, or *train*.tar and *val*.tar")
    return archives
