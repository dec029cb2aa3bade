"""TensorRT and TensorRT-RTX: runs engines that `fer-build engine` made (see build/tensorrt_from_onnx.py).

One CUDA stream and one pair of page-locked buffers an engine, grown to what is asked; calls from several threads take turns.
Nothing else ever runs in its place: an engine that does not fit this machine is an error that says what differs.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines.backends.base import TensorSpec, in_parts
from engines.backends.cuda import Cuda
from engines.errors import EngineError, UsageError
from engines.sidecar import Machine, Sidecar, check_machine, read_sidecar


class TensorRtBackend:
    """A `.engine` on an NVIDIA GPU."""

    name = "tensorrt"
    _module = "tensorrt"

    def __init__(self, engine: Any, cuda: Cuda, sidecar: Sidecar, device: str, path: Path) -> None:
        self._engine, self._cuda, self.sidecar, self.device, self._path = engine, cuda, sidecar, device, path
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"TensorRT cannot start {path.name}: not enough GPU memory; close what else uses {device}")
        assert sidecar.profile is not None
        self._profile = sidecar.profile
        self._lock = threading.Lock()
        self._buffers: dict[str, _Buffer] = {}
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
        if precision not in (None, sidecar.precision):
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
        size = min(profile.max[0], max(profile.min[0], len(array)))
        with self._lock, self._cuda.current():
            return in_parts(self._once, arrays, size, fill=len(array) < profile.min[0] or profile.min[0] > 1)

    def close(self) -> None:
        with self._lock:
            if self._context is None:
                return
            with self._cuda.current():
                for buffer in self._buffers.values():
                    buffer.free()
                self._buffers.clear()
                self._context = self._engine = None
            self._cuda.close()

    def _once(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        context, cuda = self._context, self._cuda
        if context is None:
            raise EngineError(f"{self._path.name} was closed and can no longer be run; load it again")
        name, array = self.inputs[0].name, arrays[0]
        if not context.set_input_shape(name, array.shape):
            raise EngineError(f"{self._path.name} does not take an input of {_text(array.shape)}; see its .json for what it takes")
        host = self._buffer(name, array.nbytes)
        host.view(array.shape, array.dtype)[...] = array
        context.set_tensor_address(name, host.device)
        cuda.copy_in(host.device, host.host, array.nbytes)
        shapes = {spec.name: tuple(context.get_tensor_shape(spec.name)) for spec in self.outputs}
        for spec in self.outputs:
            needed = int(np.prod(shapes[spec.name])) * np.dtype(spec.dtype).itemsize
            context.set_tensor_address(spec.name, self._buffer(spec.name, needed).device)
        if not context.execute_async_v3(cuda.stream):
            raise EngineError(f"TensorRT failed on {self._path.name}, {self.device}; check nvidia-smi for memory and errors")
        for spec in self.outputs:
            buffer = self._buffers[spec.name]
            cuda.copy_out(buffer.host, buffer.device, int(np.prod(shapes[spec.name])) * np.dtype(spec.dtype).itemsize)
        cuda.wait()
        return [self._buffers[spec.name].view(shapes[spec.name], spec.dtype).copy() for spec in self.outputs]

    def _buffer(self, name: str, size: int) -> _Buffer:
        have = self._buffers.get(name)
        if have is None or have.size < size:
            if have is not None:
                have.free()
            self._buffers[name] = _Buffer(self._cuda, size)
        return self._buffers[name]


class TensorRtRtxBackend(TensorRtBackend):
    """The same with TensorRT for RTX: one engine for several generations of GPUs."""

    name = "tensorrt-rtx"
    _module = "tensorrt_rtx"


class _Buffer:
    """The same number of bytes on both sides."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda, self.size = cuda, size
        self._bytes, self.host = cuda.page_locked(size)
        self.device = cuda.device_memory(size)

    def view(self, shape: tuple[int, ...], dtype: Any) -> Any:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._bytes[:count].view(dtype).reshape(shape)

    def free(self) -> None:
        self._cuda.free_host(self.host)
        self._cuda.free_device(self.device)


def _shape(dims: Any) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else int(size) for size in dims)


def _text(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
