"""ONNX Runtime: on CPUs that OpenVINO does not know, and on GPUs with onnxruntime-gpu. Always fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from engines.backends.base import TensorSpec, in_parts
from engines.errors import EngineError, ModelError, UsageError
from engines.silent import import_silently

_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
           "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int8)": np.int8}  # fmt: skip


class OnnxRuntimeBackend:
    """An .onnx opened by ONNX Runtime; a session may be run from several threads."""

    name = "onnxruntime"
    OPTIONS: ClassVar = {"provider": ("cuda", "tensorrt")}

    def __init__(self, session: Any, device: str, path: Path) -> None:
        self._session, self.device, self._path = session, device, path
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())

    @classmethod
    def open(
        cls, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str | None = None, requests: int = 1,
        provider: str | None = None,
    ) -> Self:
        """`provider`: what runs on a GPU: "cuda", or "tensorrt", which builds an engine for each shape at its first use."""
        if precision not in (None, "f32"):
            raise UsageError(f"the backend onnxruntime computes in f32, got precision {precision!r}")
        if provider is not None and not device.startswith("cuda"):
            raise EngineError(f"the provider {provider} of onnxruntime needs an NVIDIA GPU, got device {device}; leave it out, or use cuda")
        if path.suffix.lower() != ".onnx":
            raise EngineError(f"the backend onnxruntime reads .onnx, got {path.name}; use backend openvino for an .xml")
        try:
            onnxruntime = import_silently("onnxruntime")
        except ImportError as error:
            raise EngineError("the backend onnxruntime is not installed; pip install 'fer-stream[onnxruntime]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # it warns about every initialiser it folds away
        providers: list[Any] = ["CPUExecutionProvider"]
        wanted = {None: "CUDA", "cuda": "CUDA", "tensorrt": "Tensorrt"}[provider] + "ExecutionProvider"
        if device.startswith("cuda"):
            providers.insert(0, (wanted, {"device_id": int(device.partition(":")[2] or 0)}))
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # it raises a dozen kinds without a common base
            raise ModelError(f"ONNX Runtime cannot read {path} ({str(error).splitlines()[0][:200]}); give a valid .onnx") from error
        if device.startswith("cuda") and wanted not in session.get_providers():
            needs = "its CUDA libraries" + (" and TensorRT" if provider == "tensorrt" else "")
            raise EngineError(f"ONNX Runtime did not start {wanted} on {device}; install onnxruntime-gpu with {needs}, or use device cpu")
        return cls(session, device, path)

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        session = self._session
        if session is None:
            raise EngineError(f"{self._path.name} was closed and can no longer be run; load it again")
        fixed = self.inputs[0].shape[0] if self.inputs[0].shape else None

        def run(part: list[np.ndarray]) -> list[np.ndarray]:
            return [np.array(value) for value in session.run(None, {s.name: a for s, a in zip(self.inputs, part, strict=True)})]

        try:
            return in_parts(run, arrays, fixed or len(arrays[0]))
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed on {self._path.name}: {str(error).splitlines()[0][:200]}") from error

    def close(self) -> None:
        self._session = None


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type), shape)
