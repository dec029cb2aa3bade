"""PyTorch, on CPU and CUDA, from the same ONNX file as every other backend (see torch_program)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines.backends.base import LARGE_SAMPLE, TensorSpec, in_parts, small_batch
from engines.errors import EngineError, UsageError
from engines.onnx_file import read_onnx

try:
    import torch
except ImportError as _error:
    raise EngineError("the backend torch is not installed; pip install 'fer-stream[torch]', or leave backend at auto") from _error

_AUTOCAST = {"f32": None, "bf16": torch.bfloat16, "f16": torch.float16}


class TorchBackend:
    """An .onnx, or an Ultralytics .pt that the caller vouched for, on a torch device.

    fp32 unless `precision` says otherwise (then autocast); on CUDA convolutions use TF32, torch's own default. `threads` sets
    torch's threads for the whole process, as torch knows no other way.
    """

    name = "torch"

    def __init__(
        self, run: Callable[[list[Any]], Any], inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], device: str,
        precision: str | None, name: str,
    ) -> None:
        self._run: Callable[[list[Any]], Any] | None = run
        self.inputs, self.outputs, self.device, self._name = inputs, outputs, device, name
        self._dtype = _AUTOCAST[precision or "f32"]

    @classmethod
    def open(
        cls, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str | None = None, requests: int = 1
    ) -> Self:
        if precision not in (None, *_AUTOCAST):
            raise UsageError(f"precision must be one of {', '.join(_AUTOCAST)}, got {precision!r}")
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be 1 or more, got {threads}")
        device = "cpu" if device == "auto" else device
        place = torch.device(device)
        if place.type == "cuda" and not torch.cuda.is_available():
            raise EngineError(f"this torch cannot use {device}; install its CUDA build, or use device cpu")
        if threads is not None:
            torch.set_num_threads(threads)
        suffix = path.suffix.lower()
        if suffix == ".pt":
            return cls._of_checkpoint(path, place, precision)
        if suffix != ".onnx":
            raise EngineError(f"the backend torch reads .onnx, got {path.name}; use backend openvino for an .xml")
        return cls._of_onnx(path, place, precision)

    @classmethod
    def _of_onnx(cls, path: Path, place: torch.device, precision: str | None) -> Self:
        from engines.backends.torch_program import OnnxProgram

        graph = read_onnx(path)
        program = OnnxProgram(graph, place)
        lock = threading.Lock()

        def run(tensors: list[Any]) -> list[Any]:
            with lock:
                plan = program.prepare(tuple(tuple(t.shape) for t in tensors))
            return program.run(plan, tensors)

        inputs, outputs = (tuple(TensorSpec(t.name, t.dtype, t.shape) for t in tensors) for tensors in (graph.inputs, graph.outputs))
        return cls(run, inputs, outputs, str(place), precision, path.name)

    @classmethod
    def _of_checkpoint(cls, path: Path, place: torch.device, precision: str | None) -> Self:
        from engines.build.onnx_from_checkpoint import graph_from_checkpoint

        module = graph_from_checkpoint(path).to(place)
        lock = threading.Lock()  # Ultralytics' head keeps its anchors between calls

        def run(tensors: list[Any]) -> list[Any]:
            with lock:
                return [module(*tensors)]

        inputs = (TensorSpec("images", np.dtype(np.uint8), (None, None, None, 3)),)
        outputs = (TensorSpec("boxes", np.dtype(np.float32), (None, 5, None)),)
        return cls(run, inputs, outputs, str(place), precision, path.name)

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(arrays) != len(self.inputs) or len(arrays[0]) == 0:
            raise EngineError(f"{self._name} takes {len(self.inputs)} inputs of at least one sample, got {len(arrays)} arrays")
        fixed = self.inputs[0].shape[0] if self.inputs[0].shape else None
        return in_parts(self._once, arrays, fixed or (len(arrays[0]) if arrays[0][0].size >= LARGE_SAMPLE else small_batch(arrays[0])))

    def _once(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        run = self._run
        if run is None:
            raise EngineError(f"{self._name} was closed and can no longer be run; load it again")
        place = torch.device(self.device)
        cast = contextlib.nullcontext() if self._dtype is None else torch.autocast(place.type, self._dtype)
        try:
            with torch.inference_mode(), cast:
                answers = run([torch.from_numpy(array).to(place) for array in arrays])
                return [answer.float().cpu().numpy() for answer in answers]
        except RuntimeError as error:  # out of memory, a lost device
            raise EngineError(f"torch failed on {self._name}, {self.device}: {str(error).splitlines()[0][:200]}") from error

    def close(self) -> None:
        self._run = None
