"""TensorRT: not there yet. Said in one sentence instead of running something else."""

from __future__ import annotations

from typing import Any, NoReturn

from engines.errors import EngineError


def refuse() -> NoReturn:
    raise EngineError("the backend tensorrt is not there yet; use backend torch or onnxruntime on a GPU, or leave it at auto")


class TensorRtBackend:
    """Placeholder that keeps the name."""

    name = "tensorrt"

    @classmethod
    def open(cls, *_: Any, **__: Any) -> NoReturn:
        refuse()
