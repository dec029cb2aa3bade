"""The machine a figure comes from: without it, no figure means anything elsewhere."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engines import cpu
from engines.select import cores

_PACKAGES = ("fer-stream", "av", "openvino", "numpy", "opencv-python", "supervision", "trackers", "onnxruntime", "torch", "ultralytics")
_ROOT = Path(__file__).resolve().parents[1]


def manifest() -> dict[str, Any]:
    """CPU, cores, memory, GPU and driver, versions, commit; what is not known is None. Imports none of the packages."""
    return {
        "cpu": cpu.name(),
        "cores": cores(),
        "instructions": list(cpu.units()),
        "memory_mb": _memory_mb(),
        "gpu": gpus(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def describe(host: dict[str, Any]) -> str:
    """One line for people."""
    gpu = ", ".join(f"{one['name']} (driver {one['driver']})" for one in host["gpu"]) or "no GPU"
    features = f" ({', '.join(host['instructions'])})" if host["instructions"] else ""
    versions = ", ".join(f"{name} {host['packages'][name]}" for name in ("openvino", "av") if name in host["packages"])
    machine = f"{host['cpu']}{features}, {host['cores']} cores, {gpu}"
    return f"{machine}; Python {host['python']}, {versions}; commit {host['commit'] or 'unknown'}"


def gpus() -> list[dict[str, Any]]:
    """Name, driver and memory of each NVIDIA GPU, as nvidia-smi says; empty without one."""
    answer = _said(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"])
    found = []
    for line in (answer or "").splitlines():
        name, driver, memory = (part.strip() for part in line.split(","))
        found.append({"name": name, "driver": driver, "memory_mb": float(memory)})
    return found


def _memory_mb() -> int | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6)
    except (ValueError, OSError, AttributeError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Short hash of the checkout, with "+" where tracked files differ from it; None outside one."""
    if not (_ROOT / ".git").exists():
        return None
    commit = _said(["git", "-C", str(_ROOT), "rev-parse", "--short", "HEAD"])
    changed = _said(["git", "-C", str(_ROOT), "status", "--porcelain", "--untracked-files=no"])
    return f"{commit}+" if commit and changed else commit


def _said(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
