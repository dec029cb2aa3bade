"""Milliseconds per image of engines beside each other: in turns, so that what else the machine does meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def ms_per_image(
    runs: Mapping[str, Callable[[], object]], images: int, *, rounds: int = 7, budget_s: float = 20.0
) -> dict[str, float]:
    """Name -> median over the rounds of the best of three calls, in milliseconds over `images`; each is called once before.

    `budget_s`: no round begins after so many seconds; one is always made.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    ends = time.perf_counter() + budget_s
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(min(_seconds(run) for _ in range(3)))
        if time.perf_counter() > ends:
            break
    return {name: statistics.median(values) * 1e3 / images for name, values in times.items()}


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def example_batch(shape: Sequence[int | None], batch: int, sides: tuple[int, int]) -> np.ndarray:
    """A smooth uint8 picture in the shape of a model's input; `sides` (height, width) where it leaves them free."""
    import cv2

    free = iter(sides)
    sizes = [size or next(free) for size in shape[1:]]
    channels_last = sizes[-1] == 3
    height, width = sizes[:2] if channels_last else sizes[1:]
    channels = sizes[-1] if channels_last else sizes[0]
    noise = np.random.default_rng(0).integers(0, 255, (batch, 6, 10, channels), dtype=np.uint8)
    pictures = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels) for one in noise])
    return pictures if channels_last else np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
