"""OpenVINO on CPU: the default. bf16 where the CPU has it, one compiled model per input shape, and one for still pictures of any.

Measured on two Sapphire Rapids cores (AMX), the shipped detector at 640×384: bf16 12.3 ms, fp32 28.4 ms; compiled for free
shapes 13.6 ms. Batches: the classifier costs .66 ms a face one by one and .17 ms in eights; the detector gains nothing.
Hence large inputs run one by one, small ones in batches padded to a power of two, which also bounds the number of shapes
compiled. The answers for a sample do not depend on its batch (bit for bit, tested).

Two threads on one picture cost 14.7 ms of CPU where one costs 10.3 (two cores, the same measurement): for files, where a
second picture is always at hand, `requests` pictures side by side with one thread each give half as much again.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines.backends.base import LARGE_SAMPLE, TensorSpec, in_parts, small_batch
from engines.errors import EngineError, ModelError, UsageError
from engines.silent import import_silently

_COMPILED_SHAPES = 12
"""Most compiled models kept; the least recently used one goes (each holds its own copy of the weights)."""

_MOST_XML = 2**28
"""Bytes; the .xml of the largest networks has a few million."""

_LARGEST_BATCH = 8
"""Crops per run: at 16 a face costs no less (.21 ms against .23), and each further shape takes a tenth of a second to compile."""

_core: Any = None
_core_lock = threading.Lock()


def _shared_core() -> Any:
    """One Core a process: it holds the plug-ins and their threads."""
    global _core
    with _core_lock:
        if _core is None:
            try:
                openvino = import_silently("openvino")
            except ImportError as error:
                raise EngineError("the backend openvino is not installed; pip install openvino, or choose another backend") from error
            _core = openvino.Core()
        return _core


class OpenVinoBackend:
    """An .onnx or .xml opened by OpenVINO."""

    name = "openvino"
    device = "cpu"

    def __init__(self, model: Any, core: Any, config: dict[str, Any], path: Path, requests: int = 1) -> None:
        self._model, self._core, self._config, self._path, self._side_by_side = model, core, config, path, requests
        self._lock = threading.Lock()
        self._compiled: OrderedDict[tuple[tuple[int, ...], ...], tuple[list[Any], threading.Lock]] = OrderedDict()
        self._closed = False
        self.inputs = tuple(_spec(port) for port in model.inputs)
        self.outputs = tuple(_spec(port) for port in model.outputs)

    @classmethod
    def open(
        cls, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str | None = None, requests: int = 1
    ) -> Self:
        if device not in ("cpu", "auto"):
            raise EngineError(f"the backend openvino runs on cpu here, got device {device!r}; use backend='torch' for a GPU")
        if path.suffix.lower() == ".xml":
            _check_xml(path)
        core = _shared_core()
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        if precision is not None:
            if precision not in ("f32", "bf16", "f16"):
                raise UsageError(f"precision must be f32, bf16 or f16, got {precision!r}")
            config["INFERENCE_PRECISION_HINT"] = precision
        try:
            model = core.read_model(str(path))
            return cls(model, core, config, path, requests)
        except Exception as error:  # openvino raises RuntimeError and its own kinds
            raise ModelError(f"OpenVINO cannot read {path} ({_first_line(error)}); give a valid .onnx or OpenVINO .xml") from error

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._infer(arrays, any_shape=False)

    def infer_any_shape(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As infer(), by one compilation for all shapes: a folder of pictures has dozens, and each takes longer to compile than to run."""
        return self._infer(arrays, any_shape=True)

    def _infer(self, arrays: Sequence[np.ndarray], any_shape: bool) -> list[np.ndarray]:
        if len(arrays) != len(self.inputs):
            raise EngineError(f"{self._path.name} takes {len(self.inputs)} inputs, got {len(arrays)} arrays")
        if len(arrays[0]) == 0:
            raise EngineError(f"{self._path.name} was given an empty batch")
        fixed = self.inputs[0].shape[0] if self.inputs[0].shape else None
        run = functools.partial(self._run, any_shape=any_shape)
        if arrays[0][0].size < LARGE_SAMPLE:
            return in_parts(run, arrays, fixed or small_batch(arrays[0], _LARGEST_BATCH))
        if self._side_by_side == 1 or (fixed or 1) > 1:
            return in_parts(run, arrays, fixed or 1)
        return self._run_side_by_side(arrays, any_shape)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._compiled.clear()
            self._model = None

    def _run(self, arrays: list[np.ndarray], any_shape: bool) -> list[np.ndarray]:
        requests, lock = self._requests(tuple(a.shape for a in arrays), any_shape)
        try:
            with lock:  # requests at the same time would only queue inside
                requests[0].infer(dict(enumerate(arrays)), share_inputs=True)
                return self._answers(requests[0])
        except Exception as error:
            raise EngineError(f"OpenVINO failed on {self._path.name}: {_first_line(error)}") from error

    def _run_side_by_side(self, arrays: Sequence[np.ndarray], any_shape: bool) -> list[np.ndarray]:
        """A ring: each request takes the next picture as soon as its answer is read, so that none waits for its neighbours."""
        requests, lock = self._requests(tuple((1, *a.shape[1:]) for a in arrays), any_shape)
        rows = []
        count = len(arrays[0])
        # Held until the answer is there: inputs are shared, not copied.
        samples = [[np.ascontiguousarray(a[i : i + 1]) for a in arrays] for i in range(count)]
        try:
            with lock:
                for i in range(count + len(requests)):
                    request = requests[i % len(requests)]
                    if len(requests) <= i:
                        request.wait()
                        rows.append(self._answers(request))
                    if i < count:
                        request.start_async(dict(enumerate(samples[i])), share_inputs=True)
        except Exception as error:
            raise EngineError(f"OpenVINO failed on {self._path.name}: {_first_line(error)}") from error
        return [np.concatenate(column) for column in zip(*rows, strict=True)]

    def _answers(self, request: Any) -> list[np.ndarray]:
        return [np.array(request.get_output_tensor(i).data) for i in range(len(self.outputs))]

    def _requests(self, shapes: tuple[tuple[int, ...], ...], any_shape: bool) -> tuple[list[Any], threading.Lock]:
        key = () if any_shape else shapes
        with self._lock:  # held while compiling: a second thread with the same shape waits for it instead of compiling too
            if self._closed:
                raise EngineError(f"{self._path.name} was closed and can no longer be run; load it again")
            if key not in self._compiled:
                try:
                    model = self._model.clone()
                    if not any_shape:
                        model.reshape({i: list(shape) for i, shape in enumerate(shapes)})
                    count = self._side_by_side if any_shape or np.prod(shapes[0][1:]) >= LARGE_SAMPLE else 1
                    compiled = self._core.compile_model(model, "CPU", self._config | {"NUM_STREAMS": count})
                    requests = [compiled.create_infer_request() for _ in range(count)]
                except Exception as error:
                    got = ", ".join("×".join(map(str, shape)) for shape in shapes)
                    raise EngineError(f"OpenVINO cannot compile {self._path.name} for an input of {got}: {_first_line(error)}") from error
                self._compiled[key] = (requests, threading.Lock())
                while len(self._compiled) > _COMPILED_SHAPES:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return self._compiled[key]


def _check_xml(path: Path) -> None:
    """Refuses what is no OpenVINO model before a parser of native code reads it: text, entities, gigabytes."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    if b"<net" not in head or b"<!DOCTYPE" in head or b"<!ENTITY" in head or size > _MOST_XML:
        raise ModelError(f"{path} is not an OpenVINO model; expected an .xml that begins with <net …>, with its .bin beside it")


def _spec(port: Any) -> TensorSpec:
    try:
        dtype = np.dtype(port.element_type.to_dtype())
    except Exception:
        dtype = None
    name = port.any_name if port.names else ""
    shape = port.partial_shape
    sizes = tuple(None if d.is_dynamic else d.get_length() for d in shape) if not shape.rank.is_dynamic else ()
    return TensorSpec(name, dtype, sizes)


def _first_line(error: BaseException) -> str:
    """The last telling line of OpenVINO's several."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (lines[-1] if lines else type(error).__name__)[:200].rstrip(".:")
