"""The training loop: one function from data to checkpoint, resumable at any moment.

All randomness comes from (seed, epoch, batch), and the state is saved at the end of every epoch: one that was cut off
is repeated from its start with the same result.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from engines.contract import HEADS
from engines.errors import UsageError
from engines.select import cores
from trainer.augment import mix, planes, random_views
from trainer.checkpoint import network_of, save
from trainer.data import DataWarning, FaceSet, class_weights, crowd_targets, fingerprint, load_for, stratified_split
from trainer.distill import Teachers, learned_from, load_unlabelled
from trainer.duplicates import pixel_hashes
from trainer.evaluate import evaluate_model
from trainer.losses import smoothed, soft_loss
from trainer.models import Ema, blend, build_model, parameters, read_state
from trainer.precision import chosen
from trainer.recipes import Recipe, settle


@dataclass
class Progressed:
    """What decides the learning rate and the end, beside the step."""

    best: float = -1.0
    """The best score so far: mean accuracy of the heads that learn."""
    since: int = 0
    """Epochs without a better one."""
    fall: float = 1.0
    """What the plateau schedule has multiplied the learning rate by."""
    waited: int = 0
    """Epochs without a better score since that last fell."""


def train(recipe: Recipe, data: Path, run: Path, console: Console, limit: int | None = None) -> dict:
    """Train to the end of the recipe, from the last checkpoint in `run` where there is one; returns the best epoch's metrics.

    Raises UsageError where `run` holds one of another recipe, limit, teachers or other data (more epochs than it was begun with are the
    same run), or a checkpoint that was cut off, and where the loss is no number any more.
    """
    fabric = Fabric(accelerator="auto", devices="auto" if torch.cuda.is_available() else 1, precision=chosen(recipe.precision))
    fabric.launch()
    torch.set_num_threads(max(1, cores() // fabric.world_size))  # what taskset leaves us
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", DataWarning)
        faces, validation, about = face_sets(recipe, data, limit)
    for note in notes:
        console.print(f"note: {note.message}", markup=False, soft_wrap=True)
    bare = build_model(recipe.model, recipe.data).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(bare, recipe)
    model, optimizer = fabric.setup(bare, optimizer)
    ema, state, first, metrics = Ema(bare, recipe.ema), Progressed(), 0, {}
    start = {k: v.clone() for k, v in ema.shadow.items()}
    teachers = fabric.to_device(Teachers(recipe)) if recipe.distill.teachers else None
    unlabelled = load_unlabelled(recipe) if recipe.distill.unlabelled else None
    images, targets = planes(faces.images), targets_of(faces, recipe)
    weights = None if recipe.loss.class_weights == 0 else fabric.to_device(loss_weights(faces, recipe.loss.class_weights))
    steps = max(1, len(faces) // recipe.batch)
    learned = sum(p.numel() for p in bare.parameters() if p.requires_grad)
    network = f"{parameters(bare):,} parameters ({learned:,} learn)"
    console.print(f"{len(faces)} faces, {network}, {steps} steps an epoch, {chosen(recipe.precision)} on {fabric.device}")

    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "last.ckpt"
    settle(run, recipe, about | learned_from(recipe), begun=checkpoint.exists(), rising=["epochs"])
    if checkpoint.exists():
        saved = read_state(checkpoint, fabric.device)
        bare.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if saved.get("precision"):  # where a loss is scaled, by how much
            fabric.strategy.precision.load_state_dict(saved["precision"])
        ema.shadow, first, metrics, state = saved["ema"], saved["epoch"], saved["metrics"], Progressed(**saved["progressed"])
        console.print(f"resumed after epoch {first} from {checkpoint}")

    for epoch in range(first, recipe.epochs):
        if recipe.patience and state.since >= recipe.patience:
            console.print(f"no better score in {recipe.patience} epochs: stopped after epoch {epoch}")
            break
        began, cpu_began = time.monotonic(), time.process_time()
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)  # dropout
        order = torch.randperm(len(faces), generator=generator)
        train_mode(model, bare)
        losses = 0.0
        with _progress(console, f"epoch {epoch + 1}/{recipe.epochs}") as progress:
            bar = progress.add_task("", total=steps, loss="")
            for step in range(steps):
                index = order[step * recipe.batch : (step + 1) * recipe.batch][fabric.global_rank :: fabric.world_size]
                at = epoch * steps + step
                for group in optimizer.param_groups:
                    group["lr"] = state.fall * learning_rate(at, recipe, steps)
                batch, wanted = images[index], [target[index] for target in targets]
                if unlabelled is not None:
                    more = torch.randint(len(unlabelled), (round(len(index) * recipe.distill.unlabelled_share),), generator=generator)
                    batch = torch.cat([batch, unlabelled[more]])
                    wanted = [F.pad(target, (0, 0, 0, len(more))) for target in wanted]
                views = random_views(batch, recipe.input_size, recipe.augment, generator)
                views, wanted = mix(views, wanted, recipe.augment, generator)
                views = views.to(fabric.device, memory_format=torch.channels_last)
                with fabric.autocast():
                    taught = teachers(views) if teachers else None
                loss = loss_of(model(views), [target.to(fabric.device) for target in wanted], taught, weights, recipe)
                losses += loss.item()
                if not math.isfinite(losses):
                    lower = "lower optimizer.lr or set optimizer.clip, and give another folder (--run)"
                    raise UsageError(f"the loss is {loss.item()} in epoch {epoch + 1}, and {run} keeps the epochs before: {lower}")
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
                if recipe.optimizer.clip:
                    fabric.clip_gradients(model, optimizer, max_norm=recipe.optimizer.clip)
                optimizer.step()
                ema.update(bare, at)
                progress.update(bar, advance=1, loss=f"loss {losses / (step + 1):.3f}")
        counts = blend(ema.shadow, start, recipe.model.keep)
        metrics = evaluate_model(network_of(recipe, counts).to(memory_format=torch.channels_last), validation, recipe)
        metrics |= {"epoch": epoch + 1, "loss": losses / steps}
        metrics |= {"seconds": time.monotonic() - began, "cpu_s": time.process_time() - cpu_began}
        better = advance(state, metrics, recipe)
        if fabric.is_global_zero:
            saved = {"model": bare.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.shadow, "epoch": epoch + 1}
            saved |= {"metrics": metrics, "progressed": asdict(state), "precision": fabric.strategy.precision.state_dict()}
            if better:
                save({"ema": counts, "epoch": epoch + 1, "metrics": metrics}, run / "best.ckpt")
            _record(run, console, metrics)  # before the checkpoint: an epoch that is repeated is a row too many, and counts once
            save(saved, checkpoint)
        fabric.barrier()
    return read_state(run / "best.ckpt")["metrics"] if (run / "best.ckpt").exists() else metrics


def face_sets(recipe: Recipe, data: Path, limit: int | None = None) -> tuple[FaceSet, FaceSet, dict]:
    """What a recipe trains on (`limit` of it, drawn by the seed), what it is judged by after each epoch, and of which data both are."""
    sets = load_for(recipe, data)
    faces = sets["Training"]
    if recipe.data.validation:
        faces, validation = _apart(faces, *stratified_split(faces.label, recipe.data.validation, recipe.seed), recipe.data.drop_duplicates)
    else:
        validation = sets["PublicTest"]
    if limit and limit < len(faces):
        faces = faces.take(torch.randperm(len(faces), generator=torch.Generator().manual_seed(recipe.seed))[:limit].numpy())
    else:
        limit = None
    about = {"name": sets.name, "votes": bool(faces.crowd.any()), "limit": limit, "faces": len(faces), "validation": len(validation)}
    return faces, validation, about | {"fingerprint": fingerprint(faces, validation)}


def _apart(faces: FaceSet, kept: np.ndarray, aside: np.ndarray, drop_duplicates: bool) -> tuple[FaceSet, FaceSet]:
    """Training as the part that is trained on and the part that it is judged by, with equal images of the two told or dropped."""
    hashes = pixel_hashes(faces.images)
    if drop_duplicates:
        kept = kept[~np.isin(hashes[kept], hashes[aside])]
    validation = replace(faces.take(aside), in_training=np.isin(hashes[aside], hashes[kept]))
    return faces.take(kept), validation


def targets_of(faces: FaceSet, recipe: Recipe) -> list[Tensor]:
    """Per head, in the order of HEADS, what each face should be answered: rows of probabilities; for one that does not learn, anything.

    Data without FER+ votes teaches both heads its labels: an untrained head would answer at random.
    """
    classes = len(faces.classes)
    original = smoothed(torch.from_numpy(faces.label), classes, recipe.loss.smoothing)
    if not faces.crowd.any() or recipe.loss.crowd == "none":
        return [original, original]
    return [torch.from_numpy(crowd_targets(faces, recipe.loss.crowd)), original]


def loss_weights(faces: FaceSet, exponent: float) -> Tensor:
    """Inverse class frequency to the power of `exponent` > 0, of mean 1 over the classes that are there: (C,)."""
    weights = torch.from_numpy(class_weights(faces.label, len(faces.classes))) ** exponent
    return weights / weights[weights > 0].mean()


def loss_of(
    logits: tuple[Tensor, ...], wanted: list[Tensor], taught: list[Tensor] | None, weights: Tensor | None, recipe: Recipe
) -> Tensor:
    """The heads' losses, each a mean of what the labels say and what the teachers say (Hinton et al. 2015, T² on the latter)."""
    total, share, t = torch.zeros((), device=logits[0].device), recipe.distill.weight, recipe.distill.temperature
    crowd = recipe.loss.crowd_weight if "crowd" in recipe.heads else 0.0  # 0, not left out: several GPUs want a gradient of every head
    for k, importance in enumerate((crowd, 1.0)):
        loss = soft_loss(logits[k], wanted[k], weights, recipe.loss.focal_gamma)
        if taught is not None:
            loss = (1 - share) * loss + share * t * t * soft_loss(logits[k] / t, taught[k])
        total = total + importance * loss
    return total


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Only what learns; BatchNorm and biases are not decayed."""
    learn = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learn if p.ndim > 1], "weight_decay": recipe.optimizer.weight_decay},
        {"params": [p for p in learn if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer.name == "sgd":
        return torch.optim.SGD(groups, lr=recipe.optimizer.lr, momentum=0.9, nesterov=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer.name]
    return kind(groups, lr=recipe.optimizer.lr)


def learning_rate(step: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017), falls at fixed epochs, or nothing (plateau: Progressed)."""
    schedule, peak = recipe.schedule, recipe.optimizer.lr
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.name == "cosine":
        total = recipe.epochs * steps_per_epoch
        return peak * 0.5 * (1 + math.cos(math.pi * (step - schedule.warmup_steps) / max(total - schedule.warmup_steps, 1)))
    if schedule.name == "step":
        return peak * schedule.factor ** (step // steps_per_epoch // schedule.step_epochs)
    return peak


def advance(state: Progressed, metrics: dict, recipe: Recipe) -> bool:
    """Note an epoch's score; True where it is the best so far."""
    score = (metrics["fer2013_accuracy"] + metrics.get("crowd_accuracy", metrics["fer2013_accuracy"])) / 2
    if score > state.best:
        state.best, state.since, state.waited = score, 0, 0
        return True
    state.since, state.waited = state.since + 1, state.waited + 1
    if recipe.schedule.name == "plateau" and state.waited >= recipe.schedule.patience:
        state.fall, state.waited = state.fall * recipe.schedule.factor, 0
    return False


def train_mode(model: nn.Module, bare: nn.Module) -> None:
    """Training mode, but for frozen blocks: their BatchNorm keeps the statistics that their weights were made with."""
    model.train()
    for module in bare.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()


def _record(run: Path, console: Console, metrics: dict) -> None:
    with open(run / "log.jsonl", "a") as log:
        log.write(json.dumps(metrics) + "\n")
    figures = ", ".join(f"{head} {metrics[key]:.4f}" for head in HEADS if (key := f"{head}_accuracy") in metrics)
    console.print(f"epoch {metrics['epoch']}: loss {metrics['loss']:.3f}, {figures}, {metrics['seconds']:.0f} s")


def _progress(console: Console, title: str) -> Progress:
    columns = TextColumn(title), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
