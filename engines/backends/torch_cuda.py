"""PyTorch on a GPU: page-locked memory, buffers that stay where they are, a stream of the engine's own, a CUDA graph per shape.

A detector is some 300 small kernels, and Python launches them more slowly than a GPU runs them; a CUDA graph is one launch. It
reads and writes the addresses that it was recorded with, hence the buffers.

The race between streams and PyTorch's caching allocator: a tensor's memory belongs to the stream that it was allocated on, and
once the tensor is gone, the next one asked for on that stream gets it at once, in the order of that stream alone. If another
stream (another thread's, or the default one) still reads the old tensor, it reads the new one's numbers. Here that cannot
happen: all that an engine has on the GPU, weights included, is allocated, used and freed on its one stream, by one thread at a
time (the lock), which has waited for the stream before it lets go. Only NumPy arrays go in and out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)

Call = Callable[[list[Any]], list[Any]]
Shapes = tuple[tuple[int, ...], ...]

_MOST_SHAPES = 16
"""Most input shapes kept, each with buffers and a graph; the least recently used one goes."""
_WARM_UP = 3
"""Runs before a graph is recorded: cuDNN chooses its kernels and inductor compiles, neither of which may be in it."""
EXACT_ENOUGH = 0.02
"""Largest deviation of an output's row (a box's side, the scores, a class's logits) from fp32, relative, both in their norm."""
_WORTH_IT = 0.95
"""A lower precision must take less of fp32's time than this."""

_recording = threading.Lock()
"""Of the process: a recording begins with a wait for the whole GPU, which another recording forbids."""


class CudaRunner:
    """What one engine runs on a GPU. May be called from several threads, which take turns."""

    def __init__(self, place: torch.device, prepare: Callable[[Shapes], Call], *, graphs: bool) -> None:
        """`prepare`: input shapes -> what computes the outputs of such tensors; called on this runner's stream, once a shape."""
        self._place, self._prepare, self._graphs = place, prepare, graphs
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream(place)
        # Graphs of one pool may lie over each other: they never run together, and what they say is copied out at once.
        self._pool = torch.cuda.graph_pool_handle() if graphs else None
        self._shapes: OrderedDict[Shapes, _Shape] = OrderedDict()

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One array per input -> one float32 array per output. Inside torch.inference_mode(), and autocast where it is wanted."""
        key = tuple(tuple(array.shape) for array in arrays)
        with self._lock, torch.cuda.device(self._place), torch.cuda.stream(self._stream):
            if key not in self._shapes:
                self._shapes[key] = _Shape(self._prepare(key), arrays, self._place, self._stream, self._pool)
                if len(self._shapes) > _MOST_SHAPES:
                    self._shapes.popitem(last=False)
            self._shapes.move_to_end(key)
            return self._shapes[key].run(arrays)

    def close(self) -> None:
        with self._lock:
            self._stream.synchronize()
            self._shapes.clear()


class _Shape:
    """Buffers for inputs of one shape, and what runs between them."""

    def __init__(self, call: Call, arrays: Sequence[np.ndarray], place: torch.device, stream: Any, pool: Any) -> None:
        self._stream, self._graph = stream, None
        self._host_in = [torch.from_numpy(np.ascontiguousarray(array)).pin_memory() for array in arrays]
        self._inputs = [host.to(place) for host in self._host_in]
        self._call = lambda: [answer.float() for answer in call(self._inputs)]
        for _ in range(_WARM_UP if pool is not None else 1):
            self._outputs = self._call()
        stream.synchronize()
        if pool is not None:
            self._record(stream, pool)
        self._host_out = [torch.empty(output.shape, dtype=output.dtype, pin_memory=True) for output in self._outputs]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        for host, device, array in zip(self._host_in, self._inputs, arrays, strict=True):
            host.copy_(torch.from_numpy(np.ascontiguousarray(array)))
            device.copy_(host, non_blocking=True)
        if self._graph is None:
            self._outputs = self._call()
        else:
            self._graph.replay()
        for host, output in zip(self._host_out, self._outputs, strict=True):
            host.copy_(output, non_blocking=True)
        self._stream.synchronize()
        return [host.numpy().copy() for host in self._host_out]

    def _record(self, stream: Any, pool: Any) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: what other threads do on the GPU meanwhile (another engine's copies) does not break the recording
            with _recording, torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                outputs = self._call()
        except RuntimeError as error:
            reason = (str(error).splitlines() or ["no reason is given"])[0][:160]
            log.warning("torch runs without a CUDA graph, which is slower and as exact: it cannot be recorded (%s)", reason)
            return
        self._graph, self._outputs = graph, outputs


def timed(run: Callable[[], list[np.ndarray]], rounds: int = 10) -> tuple[float, list[np.ndarray]]:
    """Seconds of the fastest of some runs, copies included, and the answer. The first run, which prepares, does not count."""
    answer, best = run(), float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        answer = run()
        best = min(best, time.perf_counter() - started)
    return best, answer


def fastest_exact(measured: Mapping[str, tuple[float, Sequence[np.ndarray]]]) -> str:
    """Precision -> (seconds, outputs), with "f32" among them: the fastest that is worth it and within EXACT_ENOUGH of f32."""
    best_s, reference = measured["f32"]
    best, limit = "f32", best_s * _WORTH_IT
    for precision, (seconds, outputs) in measured.items():
        deviation = max(_deviation(output, exact) for output, exact in zip(outputs, reference, strict=True))
        if precision != "f32" and seconds < min(best_s, limit) and deviation <= EXACT_ENOUGH:
            best, best_s = precision, seconds
    return best


def _deviation(output: np.ndarray, exact: np.ndarray) -> float:
    """Largest relative deviation of a row (axis 1), NaN where one is no number, which is never within a limit."""
    rows = [np.moveaxis(np.atleast_2d(a).astype(np.float64), 1, 0) for a in (output, exact)]
    rows = [a.reshape(len(a), -1) for a in rows]
    norms = np.maximum(np.linalg.norm(rows[1], axis=1), np.finfo(np.float32).tiny)
    return float((np.linalg.norm(rows[0] - rows[1], axis=1) / norms).max())
