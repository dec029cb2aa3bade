"""The training loop: one function from data to checkpoint, resumable at any moment.

All randomness comes from (seed, epoch, batch), and the state is saved at the end of every epoch: one that was cut off
is repeated from its start with the same result.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.augment import random_views
from trainer.data import load_fer2013
from trainer.evaluate import evaluate_model
from trainer.losses import two_heads
from trainer.models import Ema, EmotionCNN, parameters
from trainer.recipes import Recipe


def runs_folder() -> Path:
    """`$FER_RUNS`, else ~/.cache/fer-runs."""
    return Path(os.environ.get("FER_RUNS") or Path.home() / ".cache" / "fer-runs")


def train(recipe: Recipe, data: Path, run: Path, console: Console, limit: int | None = None) -> dict:
    """Train to the end of the recipe, from the last checkpoint in `run` where there is one; returns the last metrics."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.json").write_text(recipe.model_dump_json(indent=2))
    sets = load_fer2013(data)
    faces = sets["Training"]
    if limit:
        faces = faces.take(torch.randperm(len(faces), generator=torch.Generator().manual_seed(recipe.seed))[:limit].numpy())
    images, label, crowd = torch.from_numpy(faces.images), torch.from_numpy(faces.label), torch.from_numpy(faces.crowd)

    torch.set_num_threads(len(os.sched_getaffinity(0)))  # what taskset leaves us
    fabric = Fabric(accelerator="auto", devices=1, precision=recipe.precision)
    torch.manual_seed(recipe.seed)
    bare = EmotionCNN(tuple(recipe.widths), recipe.dropout).to(memory_format=torch.channels_last)
    decay = [p for p in bare.parameters() if p.ndim > 1]
    rest = [p for p in bare.parameters() if p.ndim <= 1]  # BatchNorm and biases are not decayed
    optimizer = torch.optim.SGD(
        [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=recipe.lr,
        momentum=0.9,
        nesterov=True,
    )
    model, optimizer = fabric.setup(bare, optimizer)
    ema = Ema(bare, recipe.ema)
    steps = len(faces) // recipe.batch
    console.print(f"{len(faces)} faces, {parameters(bare):,} parameters, {steps} steps an epoch, {recipe.precision} on {fabric.device}")

    first, metrics = 0, {}
    checkpoint = run / "last.ckpt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        bare.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.shadow, first, metrics = state["ema"], state["epoch"], state["metrics"]
        console.print(f"resumed after epoch {first} from {checkpoint}")

    for epoch in range(first, recipe.epochs):
        began = time.monotonic()
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)  # dropout
        order = torch.randperm(len(faces), generator=generator)
        model.train()
        losses = 0.0
        with Progress(
            TextColumn(f"epoch {epoch + 1}/{recipe.epochs}"),
            BarColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as progress:
            bar = progress.add_task("", total=steps, loss="")
            for step in range(steps):
                index = order[step * recipe.batch : (step + 1) * recipe.batch]
                at = epoch * steps + step
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(at, recipe, steps)
                views = random_views(images[index], recipe.input_size, generator).to(fabric.device, memory_format=torch.channels_last)
                crowd_logits, original_logits = model(views)
                loss = two_heads(
                    crowd_logits,
                    original_logits,
                    crowd[index].to(fabric.device),
                    label[index].to(fabric.device),
                    recipe.smoothing,
                    recipe.crowd_weight,
                )
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
                optimizer.step()
                ema.update(bare, at)
                losses += loss.item()
                progress.update(bar, advance=1, loss=f"loss {losses / (step + 1):.3f}")
        metrics = evaluate_model(averaged(bare, ema, recipe), sets["PublicTest"], recipe.input_size)
        metrics |= {"epoch": epoch + 1, "loss": losses / max(steps, 1), "seconds": time.monotonic() - began}
        with open(run / "log.jsonl", "a") as log:
            log.write(json.dumps(metrics) + "\n")
        console.print(
            f"epoch {epoch + 1}: loss {metrics['loss']:.3f}, PublicTest fer2013 {metrics['fer2013_accuracy']:.4f}, "
            f"crowd {metrics['crowd_accuracy']:.4f}, {metrics['seconds']:.0f} s"
        )
        state = {"model": bare.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.shadow, "epoch": epoch + 1, "metrics": metrics}
        torch.save(state, run / "last.ckpt.part")
        os.replace(run / "last.ckpt.part", checkpoint)
    return metrics


def averaged(model: EmotionCNN, ema: Ema, recipe: Recipe) -> EmotionCNN:
    """A copy in evaluation mode with the averaged weights."""
    copy = EmotionCNN(tuple(recipe.widths), recipe.dropout)
    copy.load_state_dict(ema.shadow)
    return copy.eval()


def learning_rate(step: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017)."""
    total = recipe.epochs * steps_per_epoch
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup_steps) / max(total - recipe.warmup_steps, 1)))
