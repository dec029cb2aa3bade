"""What stands beside a built model: `NAME.engine.json` says what it was made from, by what, and for a TensorRT engine, for what.

It carries the model's contract (calibration, crop margin), so that a built file is used like its source. And a TensorRT engine
runs only on the GPU and with the library that it was built for, while TensorRT's own complaint is a page of C++: so this is read
first, and what differs is said in one sentence with the command that builds it anew. Never is another engine used instead.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.errors import EngineError, ModelError
from engines.manifest import sha256_of
from engines.manifest import sidecar_of as sidecar_path

FORMAT = 1
_KINDS: dict[str, Any] = {"str": str, "Mapping[str, Any]": Mapping}
"""Annotation of a field -> what it must be where a person has edited it."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """Smallest, usual and largest shape of the one input."""

    input: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """All that is known of a built file."""

    backend: str
    """"onnx", "openvino", "tensorrt" or "tensorrt-rtx"."""
    precision: str
    task: str
    contract: Mapping[str, Any]
    source: str
    """The model's name, or its file's."""
    source_sha256: str
    sha256: str
    """Of the built file."""
    parity: Mapping[str, Any]
    """How far it is from fp32; for TensorRT, the graph that it was built from."""
    library_version: str = ""
    gpu: str = ""
    """Name of the GPU that an engine was built on; empty for TensorRT-RTX, which compiles for GPUs that are not there."""
    compute_capabilities: tuple[str, ...] = ()
    """"8.9", …: those that it runs on."""
    driver: str = ""
    """CUDA version of the driver that it was built under; empty without one."""
    profile: Profile | None = None
    outputs: tuple[str, ...] = ()
    """In the order of the source."""
    calibration: str = ""
    """Folder whose images gave the ranges of an int8 graph; empty where the source was quantised already."""
    timing_cache: str = ""
    """File, beside the engine, of what TensorRT measured while it built: the next build reads it."""
    format: int = FORMAT


@dataclasses.dataclass(frozen=True)
class Machine:
    """What an engine would run on."""

    backend: str
    library_version: str
    gpu: str = ""
    compute_capability: str = ""
    """Both are empty where no GPU is: TensorRT-RTX builds there, too."""


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    text = json.dumps(dataclasses.asdict(sidecar), indent=2, sort_keys=True, ensure_ascii=False)
    sidecar_path(engine).write_text(text + "\n", encoding="utf-8")


def read_sidecar(engine: Path) -> Sidecar:
    """Raises ModelError where it is missing or is none, or where the built file is not the one that it describes."""
    sidecar = read_description(engine)
    digest = sha256_of(engine)
    if digest != sidecar.sha256:
        raise ModelError(
            f"{engine} is not the file that {sidecar_path(engine).name} describes (SHA-256 {digest[:12]}…, "
            f"expected {sidecar.sha256[:12]}…); build it anew: {build_command(engine, sidecar)}"
        )
    return sidecar


def read_description(engine: Path) -> Sidecar:
    """The sidecar alone: the built file may be missing or another. Raises ModelError where it is missing or is none."""
    path = sidecar_path(engine)
    backend = {".onnx": "onnx", ".xml": "openvino"}.get(engine.suffix.lower(), "tensorrt")
    anew = f"fer-build engine MODEL --backend {backend} --output {engine}"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["profile"] is not None:
            shapes = (tuple(map(int, values["profile"][key])) for key in ("min", "opt", "max"))
            values["profile"] = Profile(values["profile"]["input"], *shapes)
        sidecar = Sidecar(**{**values, **{key: tuple(map(str, values[key])) for key in ("compute_capabilities", "outputs")}})
        for field in dataclasses.fields(sidecar):
            if not isinstance(value := getattr(sidecar, field.name), _KINDS.get(str(field.type), object)):
                raise TypeError(f"{field.name} is {value!r}")
    except FileNotFoundError as error:
        raise ModelError(f"{engine} has no {path.name} beside it, which says what it runs on; build it anew: {anew}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"{path} does not describe an engine ({reason}); build it anew: {anew}") from error
    if sidecar.format != FORMAT:
        command = build_command(engine, sidecar)
        raise ModelError(f"{path} is of format {sidecar.format}, this fer-stream reads {FORMAT}; build it anew: {command}")
    return sidecar


def differences(sidecar: Sidecar, machine: Machine) -> list[str]:
    """Why an engine does not run there: library, version, compute capability, GPU. Empty where it does."""
    found = []
    if sidecar.backend != machine.backend:
        found.append(f"built with {sidecar.backend}, to be run with {machine.backend}")
    elif sidecar.library_version != machine.library_version:
        found.append(f"built with {sidecar.backend} {sidecar.library_version}, this machine has {machine.library_version}")
    if not machine.compute_capability:
        return found
    if machine.compute_capability not in sidecar.compute_capabilities:
        able = ", ".join(sidecar.compute_capabilities)
        found.append(f"built for compute capability {able}, this GPU ({machine.gpu}) has {machine.compute_capability}")
    elif sidecar.backend == "tensorrt" and sidecar.gpu != machine.gpu:
        found.append(f"built on {sidecar.gpu}, this GPU is {machine.gpu}")
    return found


def check_machine(engine: Path, sidecar: Sidecar, machine: Machine) -> None:
    """Raises EngineError with what differs."""
    found = differences(sidecar, machine)
    if found:
        raise EngineError(
            f"{engine.name} does not fit this machine: {'; '.join(found)}; build it anew: {build_command(engine, sidecar)} "
            "(or load it with rebuild auto)"
        )


def check_source(engine: Path, sidecar: Sidecar, source_sha256: str) -> None:
    """Raises ModelError where the engine was built from another ONNX than the one that is meant."""
    if sidecar.source_sha256 != source_sha256:
        raise ModelError(
            f"{engine.name} was built from another {sidecar.source} (SHA-256 {sidecar.source_sha256[:12]}…, "
            f"expected {source_sha256[:12]}…); build it anew: {build_command(engine, sidecar)}"
        )


def build_command(engine: Path, sidecar: Sidecar) -> str:
    """What to type for such an engine in the same place."""
    command = f"fer-build engine {shlex.quote(sidecar.source)} --backend {sidecar.backend} --precision {sidecar.precision}"
    if sidecar.profile is not None:
        shapes = (sidecar.profile.min, sidecar.profile.opt, sidecar.profile.max)
        command += f" --batch {':'.join(str(shape[0]) for shape in shapes)}"
        longest = imgsz_of(sidecar)
        if longest != sidecar.contract.get("imgsz"):
            command += f" --imgsz {longest}" if longest else ""
    if sidecar.calibration:
        command += f" --calibration {shlex.quote(sidecar.calibration)}"
    return f"{command} --output {shlex.quote(str(engine))} --overwrite"


def imgsz_of(sidecar: Sidecar) -> int | None:
    """Longest side of a picture that a detector's engine takes; None for a classifier's, and for what takes any."""
    return max(sidecar.profile.max[1:]) if sidecar.profile is not None and sidecar.task == "detector" else None
