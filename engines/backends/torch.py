"""PyTorch, on CPU and CUDA, from the same ONNX file as every other backend (see torch_program)."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from engines.backends.base import LARGE_SAMPLE, TensorSpec, in_parts, small_batch
from engines.errors import EngineError, UsageError
from engines.onnx_file import read_onnx

try:
    import torch
except ImportError as _error:
    raise EngineError("the backend torch is not installed; pip install 'fer-stream[torch]', or leave backend at auto") from _error

log = logging.getLogger(__name__)

_AUTOCAST = {"f32": None, "bf16": torch.bfloat16, "f16": torch.float16}
_SIDES = (384, 640)
"""Height and width of the picture that precisions are measured on: a 16:9 video at 640."""


class TorchBackend:
    """An .onnx, or an Ultralytics .pt that the caller vouched for, on a torch device.

    `precision` None: on CUDA the fastest of f32, f16 and bf16 that is exact enough, measured when the model is opened; on the CPU
    f32, since OpenVINO is what is fast there and torch is what it is checked against. On CUDA convolutions in f32 use TF32,
    torch's own default. `threads` sets torch's threads for the whole process, as torch knows no other way.

    `compile`: the model goes through torch.compile (inductor; on the CPU it needs a C++ compiler), which takes seconds to minutes
    for each shape of input, at its first use. `cuda_graphs`: see torch_cuda.
    """

    name = "torch"
    OPTIONS: ClassVar = {"compile": (False, True), "cuda_graphs": (True, False)}

    def __init__(
        self, prepare: Callable[[tuple[tuple[int, ...], ...]], Callable[[list[Any]], Any]], inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...], place: torch.device, precision: str, name: str, *, cuda_graphs: bool = True,
    ) -> None:
        """`prepare`: shapes of the inputs -> what computes the outputs of such tensors."""
        self.inputs, self.outputs, self.device, self._name = inputs, outputs, str(place), name
        self.precision = precision
        self._prepare: Callable[..., Any] | None = prepare
        self._place, self._dtype, self._lock = place, _AUTOCAST[precision], threading.Lock()
        self._gpu: Any = None
        if place.type == "cuda":
            from engines.backends.torch_cuda import CudaRunner

            self._gpu = CudaRunner(place, prepare, graphs=cuda_graphs)

    @classmethod
    def open(
        cls, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str | None = None, requests: int = 1,
        compile: bool = False, cuda_graphs: bool = True,
    ) -> Self:  # fmt: skip
        if precision not in (None, *_AUTOCAST):
            raise UsageError(f"precision must be one of {', '.join(_AUTOCAST)}, got {precision!r}")
        place = torch.device("cpu" if device == "auto" else device)
        if place.type == "cuda" and not torch.cuda.is_available():
            raise EngineError(f"this torch cannot use {device}; install its CUDA build, or use device cpu")
        if threads is not None:
            torch.set_num_threads(threads)
        suffix = path.suffix.lower()
        if suffix == ".pt":
            if compile:
                raise UsageError(f"the option compile is for .onnx, got {path.name}; export it with: fer-build export detector {path.name}")
            return cls._of_checkpoint(path, place, precision)
        if suffix != ".onnx":
            raise EngineError(f"the backend torch reads .onnx, got {path.name}; use backend openvino for an .xml")
        of = functools.partial(cls._of_onnx, path, place, compiles=compile, cuda_graphs=cuda_graphs)
        return of(precision or "f32") if precision or place.type == "cpu" else cls._fastest(path, place, of)

    @classmethod
    def _of_onnx(cls, path: Path, place: torch.device, precision: str, *, compiles: bool, cuda_graphs: bool) -> Self:
        from engines.backends.torch_program import OnnxProgram

        graph = read_onnx(path)
        program = OnnxProgram(graph, place, _AUTOCAST[precision])
        known: dict[Any, Any] = {}

        def prepare(shapes: tuple[tuple[int, ...], ...]) -> Callable[[list[Any]], Any]:
            run = functools.partial(program.run, program.prepare(shapes))
            if not compiles:
                return run
            if shapes not in known:
                known[shapes] = _compiled(run, program.zeros(shapes), path.name)
            return known[shapes]

        inputs, outputs = (tuple(TensorSpec(t.name, t.dtype, t.shape) for t in tensors) for tensors in (graph.inputs, graph.outputs))
        return cls(prepare, inputs, outputs, place, precision, path.name, cuda_graphs=cuda_graphs)

    @classmethod
    def _fastest(cls, path: Path, place: torch.device, of: Callable[..., Self]) -> Self:
        """The precision for a GPU, measured on one picture or eight crops: what is fast there depends on the GPU and the model."""
        from engines.backends.torch_cuda import fastest_exact, timed
        from engines.build.measure import example_batch

        measured = {}
        for precision in ("f32", "f16", "bf16"):
            one = of(precision, compiles=False)  # compiling three times would take minutes
            sample = example_batch(one.inputs[0].shape, 1, _SIDES)
            sample = sample if sample[0].size >= LARGE_SAMPLE else example_batch(one.inputs[0].shape, 8, _SIDES)
            if one.inputs[0].dtype != np.uint8:
                sample = (sample / 255).astype(one.inputs[0].dtype)
            measured[precision] = timed(functools.partial(one.infer, [sample]))
            one.close()
        best = fastest_exact(measured)
        times = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, (seconds, _) in measured.items())
        log.info("torch computes %s in %s (%s)", path.name, best, times)
        return of(best)

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
        return cls(lambda shapes: run, inputs, outputs, place, precision or "f32", path.name, cuda_graphs=False)

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(arrays) != len(self.inputs) or len(arrays[0]) == 0:
            raise EngineError(f"{self._name} takes {len(self.inputs)} inputs of at least one sample, got {len(arrays)} arrays")
        fixed = self.inputs[0].shape[0] if self.inputs[0].shape else None
        return in_parts(self._once, arrays, fixed or (len(arrays[0]) if arrays[0][0].size >= LARGE_SAMPLE else small_batch(arrays[0])))

    def _once(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        prepare = self._prepare
        if prepare is None:
            raise EngineError(f"{self._name} was closed and can no longer be run; load it again")
        # Without the cache: weights are in their precision already, and what it keeps must not be in a CUDA graph.
        cast = contextlib.nullcontext() if self._dtype is None else torch.autocast(self._place.type, self._dtype, cache_enabled=False)
        try:
            with torch.inference_mode(), cast:
                if self._gpu is not None:
                    return list(self._gpu.run(arrays))
                with self._lock:
                    run = prepare(tuple(tuple(array.shape) for array in arrays))
                return [answer.float().numpy() for answer in run([torch.from_numpy(array) for array in arrays])]
        except RuntimeError as error:  # out of memory, a lost device
            raise EngineError(f"torch failed on {self._name}, {self.device}: {str(error).splitlines()[0][:200]}") from error

    def close(self) -> None:
        self._prepare = None
        if self._gpu is not None:
            self._gpu.close()


def _compiled(run: Callable[[list[Any]], Any], zeros: list[Any], name: str) -> Callable[[list[Any]], Any]:
    """`run` as one compiled graph for inputs of these shapes; compiled here and now.

    Traced first: Dynamo would guard each of the list's 300 calls, and count all shapes as recompilations of the same code, of
    which it takes eight.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    traced = make_fx(lambda *tensors: run(list(tensors)))(*zeros)
    compiled = torch.compile(traced, dynamic=False)
    try:
        compiled(*zeros)
    except Exception as error:  # inductor, Triton and the C++ compiler raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EngineError(f"torch cannot compile {name} ({reason}); install a C++ compiler, or leave the option compile out") from error
    return lambda tensors: compiled(*tensors)
