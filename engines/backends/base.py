"""What a runtime is to the rest: a file is opened, arrays go in, arrays come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of an opened model."""

    name: str
    dtype: Any
    """numpy dtype; None where numpy has none."""
    shape: tuple[int | None, ...]
    """None: free."""


class Backend(Protocol):
    """An opened model. One object may be called from several threads at once; every call gets its own right answer."""

    name: str
    """As in `backend=`: "openvino", "torch", …"""
    device: str
    """Where it runs: "cpu", "cuda:0"."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def open(
        cls, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str | None = None, requests: int = 1
    ) -> Self:
        """Reads `path`. Nothing is compiled yet: that happens per input shape, at its first use.

        `threads`: CPU threads, None = the runtime's choice. `precision`: "f32", "bf16", "f16", None = the fastest that the
        device has.
        `requests`: pictures of a batch to run side by side, each on its share of the threads; a runtime that gains nothing by it
        runs them as it likes. Further keywords are the backend's own: its OPTIONS names them and their values.
        Raises ModelError for a file that cannot be read, EngineError for a runtime or device that is not there.
        """
        ...

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One array per input, axis 0 the batch -> one array per output, owned by the caller.

        A backend to which each new shape is dear may have an infer_any_shape() beside it, for pictures of ever other shapes.
        Raises EngineError where the runtime fails or the shapes do not fit, or after close().
        """
        ...

    def close(self) -> None:
        """Frees what was opened; idempotent."""
        ...


LARGE_SAMPLE = 50_000
"""Values per sample from which it is a picture, not a crop."""


def small_batch(array: np.ndarray, largest: int = 32) -> int:
    """Samples per run for crops: the next power of two, at most `largest`, so that few shapes are ever compiled."""
    return min(largest, 1 << (len(array) - 1).bit_length())


def in_parts(
    run: Callable[[list[np.ndarray]], list[np.ndarray]], arrays: Sequence[np.ndarray], size: int, *, fill: bool = True
) -> list[np.ndarray]:
    """Runs a batch as several of `size` samples, the last one filled with zeros (unless `fill` is off), and joins the answers."""
    count = len(arrays[0])
    parts = []
    for start in range(0, count, size):
        part = [np.ascontiguousarray(array[start : start + size]) for array in arrays]
        have = len(part[0])
        filled = fill and have < size
        if filled:
            part = [np.concatenate([a, np.zeros((size - have, *a.shape[1:]), a.dtype)]) for a in part]
        answers = run(part)  # cut where filled alone: SCRFD's answers for one picture have no axis of the batch
        parts.append([answer[:have] for answer in answers] if filled else answers)
    return parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
