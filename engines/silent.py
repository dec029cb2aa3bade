"""Imports packages that report to their makers, and keeps them from it: who films faces expects that nothing leaves the machine.

OpenVINO's Python package tells Google Analytics of every import, from a process that it forks for that, under an id that it leaves in
~/intel; NNCF of every quantisation, Ultralytics of every training; ONNX Runtime (from 1.29) Microsoft of every session, under an id that
it leaves among temporary files and in ~/.cache.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

_REPORTER = "openvino_telemetry"
"""OpenVINO and NNCF do without it where it is not installed."""


def import_silently(name: str) -> Any:
    """The module `name`, as `import` gives it. Raises ImportError. A variable that the user set stays as it is."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    hidden = _REPORTER not in sys.modules
    if hidden:
        sys.modules[_REPORTER] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    finally:
        if hidden:
            del sys.modules[_REPORTER]
