"""TensorRT and TensorRT-RTX: runs engines that `fer-build engine` made (see build/tensorrt_from_onnx.py).

One CUDA stream an engine, and for each shape of input page-locked buffers and a CUDA graph; calls from several threads take turns.
Nothing else ever runs in its place: an engine that does not fit this machine is an error that says what differs.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines.backends.base import LARGE_SAMPLE, TensorSpec, in_parts, small_batch
from engines.backends.cuda import Cuda
from engines.errors import EngineError, UsageError
from engines.fit import PRECISION
from engines.sidecar import Machine, Sidecar, check_machine, read_sidecar

log = logging.getLogger(__name__)

_MOST_SHAPES = 16
"""Most input shapes kept; the least recently used one goes."""


class TensorRtBackend:
    """A `.engine` on an NVIDIA GPU."""

    name = "tensorrt"
    _module = "tensorrt"

    def __init__(self, engine: Any, cuda: Cuda, sidecar: Sidecar, device: str, path: Path) -> None:
        self._engine, self._cuda, self.sidecar, self.device, self._path = engine, cuda, sidecar, device, path
        assert sidecar.profile is not None
        self._profile = sidecar.profile
        self._lock = threading.Lock()
        self._runs: OrderedDict[tuple[int, ...], _Run] = OrderedDict()
        trt = importlib.import_module(self._module)
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        specs = [TensorSpec(n, np.dtype(trt.nptype(engine.get_tensor_dtype(n))), _shape(engine.get_tensor_shape(n))) for n in names]
        taken = [engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names]
        self.inputs = tuple(spec for spec, is_input in zip(specs, taken, strict=True) if is_input)
        found = {spec.name: spec for spec, is_input in zip(specs, taken, strict=True) if not is_input}
        self.outputs = tuple(found[n] for n in sidecar.outputs if n in found)  # in the order of the ONNX

    @classmethod
    def open(
        cls, path: Path, *, device: str = "cuda:0", threads: int | None = None, precision: str | None = None, requests: int = 1
    ) -> Self:
        """`threads` is for CPUs and ignored; `precision` must be the engine's own or None."""
        if path.suffix.lower() != ".engine":
            raise EngineError(
                f"the backend {cls.name} runs engines, got {path.name}; build one with: fer-build engine {path.stem} --backend {cls.name}"
            )
        if not device.startswith("cuda"):
            raise EngineError(f"the backend {cls.name} runs on NVIDIA GPUs, got device {device!r}; use backend openvino for a CPU")
        sidecar = read_sidecar(path)
        if sidecar.profile is None:
            raise EngineError(f"the .json beside {path.name} describes no TensorRT engine; build it with: fer-build engine")
        if PRECISION.get(precision or "", precision) not in (None, sidecar.precision):
            raise UsageError(f"{path.name} was built in {sidecar.precision}, got precision {precision!r}; leave it out, or build another")
        try:
            trt = importlib.import_module(cls._module)
        except ImportError as error:
            raise EngineError(f"the backend {cls.name} is not installed; pip install 'fer-stream[{cls.name}]'") from error
        cuda = Cuda(int(device.partition(":")[2] or 0))
        check_machine(path, sidecar, Machine(cls.name, trt.__version__, cuda.name, cuda.compute_capability))
        with cuda.current():
            # Deserialising runs what the file says: its hash was checked against the sidecar above.
            engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
            if engine is None:
                raise EngineError(f"{cls.name} {trt.__version__} cannot load {path.name} on {cuda.name}; build it anew on this machine")
            return cls(engine, cuda, sidecar, device, path)

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(arrays) != 1 or len(arrays[0]) == 0:
            raise EngineError(f"{self._path.name} takes one input of at least one sample, got {len(arrays)} arrays")
        profile, array = self._profile, arrays[0]
        for size, least, most in zip(array.shape[1:], profile.min[1:], profile.max[1:], strict=True):
            if not least <= size <= most:
                raise EngineError(
                    f"{self._path.name} was built for {_text(profile.min[1:])} to {_text(profile.max[1:])}, got {_text(array.shape[1:])}; "
                    "build it with another --imgsz"
                )
        crops = array[0].size < LARGE_SAMPLE  # padded to few sizes, each of which has its graph
        wanted = small_batch(array, profile.max[0]) if crops else len(array)
        size = min(profile.max[0], max(profile.min[0], wanted))
        with self._lock, self._cuda.current():
            return in_parts(self._once, arrays, size, fill=crops or len(array) < profile.min[0] or profile.min[0] > 1)

    def close(self) -> None:
        with self._lock:
            if self._engine is None:
                return
            with self._cuda.current():
                for run in self._runs.values():
                    run.free()
                self._runs.clear()
                self._engine = None
            self._cuda.close()

    def _once(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        if self._engine is None:
            raise EngineError(f"{self._path.name} was closed and can no longer be run; load it again")
        shape = tuple(arrays[0].shape)
        if shape not in self._runs:
            if len(self._runs) == _MOST_SHAPES:
                self._runs.popitem(last=False)[1].free()
            self._runs[shape] = _Run(self._engine, self._cuda, self.inputs[0], self.outputs, shape, self._path.name)
        self._runs.move_to_end(shape)
        return self._runs[shape](arrays[0])


class TensorRtRtxBackend(TensorRtBackend):
    """The same with TensorRT for RTX: one engine for several generations of GPUs."""

    name = "tensorrt-rtx"
    _module = "tensorrt_rtx"


class _Run:
    """One shape of input: page-locked memory, buffers on the GPU, and a CUDA graph from copy to copy.

    It has a context of its own: a graph must not be launched once the context that it was recorded with was given another shape.
    Calls are made with the GPU's context current, by one thread at a time.
    """

    def __init__(
        self, engine: Any, cuda: Cuda, taken: TensorSpec, given: tuple[TensorSpec, ...], shape: tuple[int, ...], name: str
    ) -> None:
        self._cuda, self._name, self._graph = cuda, name, 0
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"TensorRT cannot start {name} for {_text(shape)}: not enough GPU memory; close what else uses the GPU")
        if not self._context.set_input_shape(taken.name, shape):
            raise EngineError(f"{name} does not take an input of {_text(shape)}; see its .json for what it takes")
        self._input = _Buffer(cuda, shape, taken.dtype)
        self._outputs = [_Buffer(cuda, tuple(self._context.get_tensor_shape(spec.name)), spec.dtype) for spec in given]
        for spec, buffer in zip((taken, *given), (self._input, *self._outputs), strict=True):
            self._context.set_tensor_address(spec.name, buffer.device)
        self._enqueue()  # what TensorRT puts off to the first run must not be in the graph
        cuda.wait()
        try:
            self._graph = cuda.record(self._enqueue)
        except EngineError as error:
            log.warning("%s runs without a CUDA graph, which is slower and as exact: %s", name, error)

    def __call__(self, array: np.ndarray) -> list[np.ndarray]:
        self._input.array[...] = array
        if self._graph:
            self._cuda.launch(self._graph)
        else:
            self._enqueue()
        self._cuda.wait()
        return [buffer.array.copy() for buffer in self._outputs]

    def free(self) -> None:
        if self._graph:
            self._cuda.free_graph(self._graph)
        self._context = None
        for buffer in (self._input, *self._outputs):
            buffer.free()

    def _enqueue(self) -> None:
        self._cuda.copy_in(self._input.device, self._input.host, self._input.size)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise EngineError(f"TensorRT failed on {self._name}; check nvidia-smi for memory and errors")
        for buffer in self._outputs:
            self._cuda.copy_out(buffer.host, buffer.device, buffer.size)


class _Buffer:
    """An array in page-locked memory, and as many bytes on the GPU."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: Any) -> None:
        self._cuda, self.size = cuda, int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory, self.host = cuda.page_locked(self.size)
        self.array = memory.view(dtype).reshape(shape)
        self.device = cuda.device_memory(self.size)

    def free(self) -> None:
        del self.array
        self._cuda.free_host(self.host)
        self._cuda.free_device(self.device)


def _shape(dims: Any) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else int(size) for size in dims)


def _text(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
