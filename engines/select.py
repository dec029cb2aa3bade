"""Which backend runs a model on this machine, and why.

`auto` asks the NVIDIA driver through ctypes first (a millisecond, no package): only where it has a GPU are torch and the
others imported, so that a CPU run never pays for torch, even where it is installed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib
import importlib.util
import logging
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import cpu, manifest
from engines.backends.base import Backend
from engines.errors import EngineError, UsageError
from engines.silent import import_silently

if TYPE_CHECKING:
    from engines.manifest import Entry

log = logging.getLogger(__name__)

BACKENDS: dict[str, tuple[str, str, str]] = {
    # name: (where, the package it needs, how to get it)
    "openvino": ("engines.backends.openvino:OpenVinoBackend", "openvino", "pip install openvino"),
    "torch": ("engines.backends.torch:TorchBackend", "torch", "pip install 'fer-stream[torch]'"),
    "onnxruntime": ("engines.backends.onnxruntime:OnnxRuntimeBackend", "onnxruntime", "pip install 'fer-stream[onnxruntime]'"),
    "tensorrt": ("engines.backends.tensorrt:TensorRtBackend", "tensorrt", "pip install 'fer-stream[tensorrt]'"),
    "tensorrt-rtx": ("engines.backends.tensorrt:TensorRtRtxBackend", "tensorrt_rtx", "pip install 'fer-stream[tensorrt-rtx]'"),
    "fake": ("engines.backends.fake:FakeBackend", "numpy", ""),
}
"""A new backend is one file and one line here."""
GPU_ONLY = ("tensorrt", "tensorrt-rtx")
"""They run engines, which `fer-build engine` makes; `auto` takes them where the model is one, or one of the model is at hand."""
ONE_READER = (".pt", ".xml", ".engine")
"""Files that a single backend runs: where it cannot, no other takes its place."""


@dataclass(frozen=True)
class Choice:
    """The outcome of choose()."""

    backend: str
    device: str
    """"cpu" or "cuda:N"."""
    reason: str


@functools.cache
def gpu_count() -> int:
    """NVIDIA GPUs that the driver offers to this process; 0 without a driver. Honours CUDA_VISIBLE_DEVICES, as the driver does."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            cuda = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def installed(backend: str) -> bool:
    """Whether the backend's package is there; it is not imported."""
    return _is_there(BACKENDS[backend][1])


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def choose(backend: str = "auto", device: str = "auto", *, gpus: int | None = None, refused: Sequence[str] = ()) -> Choice:
    """What `backend` and `device` mean on this machine, or on one with that many `gpus`.

    `auto`, in this order, where no TensorRT engine fits (see for_entry()): torch and ONNX Runtime on a GPU, then OpenVINO, ONNX
    Runtime and torch on the CPU. `refused`: why what comes before was not taken. Raises UsageError for names that do not exist;
    EngineError for a backend that is not installed, a GPU that is not there, and pairs that do not go together.
    """
    gpu = _gpu(backend, device, gpus)
    if backend == "fake":
        return Choice("fake", "cpu", "asked for")
    if backend != "auto":
        return _named(backend, str(device), gpu_count() if gpus is None else gpus)
    if gpu is None:
        return _on_cpu("auto: device cpu was asked for" if device == "cpu" else "auto: no NVIDIA GPU")
    passed = list(refused)
    for name in ("torch", "onnxruntime"):
        problem = _cuda_problem(name)
        if problem is None:
            return Choice(name, gpu, "auto: an NVIDIA GPU" + "".join(f"; {text}" for text in passed))
        passed.append(problem)
    if str(device).startswith("cuda"):
        raise EngineError(f"no backend can use {device}: {'; '.join(passed)}; {BACKENDS['torch'][2]}, or use device cpu")
    log.warning("an NVIDIA GPU is there but not used: %s", "; ".join(passed))
    return _on_cpu(f"auto: an NVIDIA GPU, but {'; '.join(passed)}")


def for_entry(
    entry: Entry, backend: str, device: str, *, precision: str | None = None, imgsz: int | None = None, gpus: int | None = None
) -> tuple[Entry, Choice]:
    """What runs that model, and its file: an engine built from it where `auto` finds one that fits a GPU that is here.

    `precision`, `imgsz`: what the engine must have, see fit.misfits(). `gpus`: as for choose(). Raises as choose() and
    read_sidecar(); for a file of ONE_READER also EngineError for another backend and a package that is not there.
    """
    if entry.path.suffix.lower() in ONE_READER:
        return entry, _reader(entry.path, backend, device, gpu_count() if gpus is None else gpus)
    if backend != "auto":
        return entry, choose(backend, device, gpus=gpus)
    gpu = _gpu(backend, device, gpus)
    if gpu is None:
        return entry, choose(backend, device, gpus=gpus)
    from engines import fit

    found, refused = fit.find_engine(entry, gpu, precision=precision, imgsz=imgsz)
    if found is None:
        return entry, choose(backend, device, gpus=gpus, refused=refused)
    path, name = found
    reason = f"auto: an NVIDIA GPU, the engine {path}" + "".join(f"; not {text}" for text in refused)
    return dataclasses.replace(manifest.find(path, entry.task), name=entry.name), Choice(name, gpu, reason)


def default_model(
    task: str, backend: str = "auto", device: str = "auto", precision: str | None = None, *, gpus: int | None = None
) -> str:
    """The shipped model that `model=None` means on this machine: in int8 where OpenVINO runs it, on a CPU that is fastest at that.

    Not where a GPU would run it, nor where a `precision` is asked for, nor one that was made of other weights. Raises UsageError for
    names that do not exist.
    """
    name = manifest.DEFAULTS[task]
    on_openvino = backend in ("auto", "openvino") and _gpu(backend, device, gpus) is None and installed("openvino")
    if not (on_openvino and precision is None and cpu.int8_is_fastest()):
        return name
    if outdated := manifest.outdated_twin(name):
        log.warning(outdated)
        return name
    return manifest.INT8[name]


def check(backend: str, device: str, model: Any = None) -> None:
    """Raises what choose() would raise for a backend by name, and for names that do not exist, before any model is looked at.

    What ONE_READER runs is left to for_entry(), which names the file.
    """
    if backend == "auto" or (isinstance(model, str | Path) and Path(model).suffix.lower() in ONE_READER):
        _gpu(backend, device)
    else:
        choose(backend, device)


def check_count(name: str, value: Any) -> None:
    """Raises UsageError for what is not a whole number from 1 on."""
    if not isinstance(value, numbers.Integral) or int(value) < 1:
        raise UsageError(f"{name} must be 1 or more, a whole number, got {value!r}")


def check_packages(path: Path, backend: str, instead: str) -> None:
    """Raises EngineError where something that `backend` needs for that file is not installed. `instead`: what else to do."""
    needed = (BACKENDS[backend][1], *(("ultralytics",) if path.suffix.lower() == ".pt" else ()))
    missing = [package for package in needed if not _is_there(package)]
    if missing:
        packages = f"package {missing[0]}, which is" if len(missing) == 1 else f"packages {' and '.join(missing)}, which are"
        raise EngineError(f"{path} needs the {packages} not installed; {BACKENDS[backend][2]}, or {instead}")


def _reader(path: Path, backend: str, device: str, gpus: int) -> Choice:
    """What runs a file that one backend alone can run. Raises as for_entry(), with the file's name."""
    only, instead = "openvino", "give the .onnx that it was made from"
    if path.suffix.lower() == ".pt":
        only, instead = "torch", f"make an .onnx of it, wherever torch is: fer-build export detector {path.name}"
    elif path.suffix.lower() == ".engine":
        from engines.sidecar import read_sidecar

        sidecar = read_sidecar(path)
        only, instead = sidecar.backend, f"give the model that it was built from, {sidecar.source}"
    if backend not in ("auto", only):
        raise EngineError(f"{path} runs on {only} alone, got backend {backend!r}; use backend {only}, or {instead}")
    _gpu(only, device, gpus)
    check_packages(path, only, instead)
    if only in GPU_ONLY and (problem := _no_gpu(device, gpus)):
        raise EngineError(f"{path} needs an NVIDIA GPU, and {problem}; {instead}")
    choice = choose(only, device, gpus=gpus)
    return choice if backend != "auto" else dataclasses.replace(choice, reason=f"auto: nothing else reads {path.suffix}")


def _gpu(backend: str, device: str, gpus: int | None = None) -> str | None:
    """The GPU that is meant, "cuda:N", None for the CPU. Raises for names that do not exist and a GPU that is not there."""
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", str(device))
    if match is None:
        raise UsageError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N")
    gpus = gpu_count() if gpus is None else gpus
    if str(device).startswith("cuda"):
        if int(match[1] or 0) >= gpus:
            raise EngineError(f"device {device} is not there: the NVIDIA driver offers {gpus} GPUs to this process; use device cpu")
        return f"cuda:{int(match[1] or 0)}"
    return None if device == "cpu" or gpus == 0 else "cuda:0"


def _on_cpu(reason: str) -> Choice:
    missing = ""
    for name in ("openvino", "onnxruntime", "torch"):
        if installed(name):
            return Choice(name, "cpu", reason + missing)
        missing += f"; {name} is not installed"
    raise EngineError(f"no backend for CPU is installed; {BACKENDS['openvino'][2]}, or name another with backend")


def _named(backend: str, device: str, gpus: int) -> Choice:
    wants_gpu = device.startswith("cuda")
    _, package, how = BACKENDS[backend]
    if not installed(backend):
        raise EngineError(f"the backend {backend} needs the package {package}, which is not installed; {how}, or leave backend at auto")
    if backend in GPU_ONLY:
        if problem := _no_gpu(device, gpus):
            raise EngineError(f"the backend {backend} needs an NVIDIA GPU, and {problem}; leave backend at auto")
        return Choice(backend, "cuda:0" if device in ("auto", "cuda") else device, "asked for")
    if backend == "openvino" and wants_gpu:
        raise EngineError(f"the backend openvino does not run on {device}; use backend torch or onnxruntime, or device cpu")
    if device == "auto":
        usable = backend != "openvino" and gpus > 0 and _cuda_problem(backend) is None
        device = "cuda:0" if usable else "cpu"
    elif wants_gpu:
        problem = _cuda_problem(backend)
        if problem is not None:
            raise EngineError(f"the backend {backend} cannot use {device}: {problem}; install its CUDA build, or use device cpu")
    return Choice(backend, "cuda:0" if device == "cuda" else device, "asked for")


def _no_gpu(device: str, gpus: int) -> str:
    """Why there is no GPU to run on; empty where there is one."""
    return "device cpu was asked for" if device == "cpu" else "" if gpus else "the NVIDIA driver offers none to this process"


def _cuda_problem(backend: str) -> str | None:
    """Why a backend cannot use the GPU; None where it can. Imports it: only called where the driver has a GPU."""
    if not installed(backend):
        return f"{backend} is not installed"
    try:
        if backend == "torch":
            import torch

            return None if torch.cuda.is_available() else "this torch is built without CUDA"
        onnxruntime = import_silently("onnxruntime")
        return None if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "this onnxruntime is built without CUDA"
    except Exception as error:  # a broken installation raises anything
        return f"{backend} cannot be imported ({type(error).__name__}: {error})"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_backend(
    path: Path, choice: Choice, *, threads: int | None = None, precision: str | None = None, requests: int = 1, purpose: str = "model",
    options: Mapping[str, Any] | None = None,
) -> Backend:
    """Opens `path` with what choose() found, and says so in one log line. `options`: the backend's own, see its OPTIONS."""
    if threads is not None:
        check_count("threads", threads)
    check_count("requests", requests)
    if not isinstance(options, Mapping | None):
        raise UsageError(f"options must map names to values, such as {{'compile': True}}, got {options!r}")
    module, name = BACKENDS[choice.backend][0].split(":")
    try:
        kind: Any = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise EngineError(f"the backend {choice.backend} cannot be imported ({error}); {BACKENDS[choice.backend][2]}") from error
    known, options = getattr(kind, "OPTIONS", {}), dict(options or {})
    for key, value in options.items():
        if key not in known:
            raise UsageError(f"the backend {choice.backend} has no option {key!r}; it has {', '.join(known) or 'none'}")
        if value not in known[key]:
            raise UsageError(f"the option {key} of {choice.backend} must be one of {', '.join(map(str, known[key]))}, got {value!r}")
    try:
        backend: Backend = kind.open(path, device=choice.device, threads=threads, precision=precision, requests=requests, **options)
    except ImportError as error:
        raise EngineError(f"the backend {choice.backend} cannot be imported ({error}); {BACKENDS[choice.backend][2]}") from error
    log.info("%s %s runs on %s, %s (%s)", purpose, path.stem, choice.backend, choice.device, choice.reason)
    return backend
