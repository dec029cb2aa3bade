"""Whether a TensorRT engine fits what it is to do here: the machine, its source, precision and sizes. Then it is run; else it is
built anew where that was asked for, or refused with the command to type. Never is another engine used in its place.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines import manifest
from engines.errors import EngineError, ModelError, UsageError
from engines.sidecar import Machine, Sidecar, build_command, differences, imgsz_of, read_description

log = logging.getLogger(__name__)

REBUILD = ("never", "auto")
PRECISION = {"f32": "fp32", "f16": "fp16"}
"""The run time's names -> the builder's."""
_FIRST = ("fp16", "fp32", "int8")
"""Which engine `auto` takes where several fit: int8 alone may cost accuracy."""


def folder() -> Path:
    """Where `auto` looks for a user's own engines: $FER_ENGINES, or ~/.cache/fer-engines."""
    return Path(os.environ.get("FER_ENGINES") or "~/.cache/fer-engines").expanduser()


def machine_of(backend: str, device: str = "cuda:0") -> Machine:
    """What this machine has for an engine. Asks the driver and imports the library. Raises EngineError where it is not installed."""
    from engines.build.tensorrt_from_onnx import load_library
    from engines.select import gpu_count

    version = str(load_library(backend).__version__)
    ordinal = int(device.partition(":")[2] or 0)
    if ordinal >= gpu_count():
        return Machine(backend, version)
    from engines.backends.cuda import Cuda

    cuda = Cuda(ordinal)
    try:
        return Machine(backend, version, cuda.name, cuda.compute_capability)
    finally:
        cuda.close()


def source_of(engine: Path, sidecar: Sidecar) -> tuple[str, Path] | None:
    """What an engine was built from, as `fer-build engine` takes it, and its file: shipped, where it was, or now beside the engine."""
    shipped = manifest.shipped().get(sidecar.source)
    if shipped is not None:
        return sidecar.source, shipped.path
    for path in (Path(sidecar.source), engine.with_name(Path(sidecar.source).name)):
        if path.is_file():
            return str(path), path
    return None


def misfits(engine: Path, sidecar: Sidecar, machine: Machine, *, precision: str | None = None, imgsz: int | None = None) -> list[str]:
    """All that keeps an engine from being used: its file, its source, the machine, and what is asked for. Empty where it fits.

    `precision`: as at run time or in the builder, None = the engine's. `imgsz`: longest side of the pictures, None = the engine's.
    """
    found = differences(sidecar, machine)
    if not engine.is_file():
        found.append("its file is missing")
    elif manifest.sha256_of(engine) != sidecar.sha256:
        found.append("its file is not the one that its .json describes")
    source = source_of(engine, sidecar)
    if source is not None and manifest.sha256_of(source[1]) != sidecar.source_sha256:
        found.append(f"built from another {sidecar.source}")
    wanted = PRECISION.get(precision or "", precision)
    if wanted not in (None, sidecar.precision):
        found.append(f"built in {sidecar.precision}, {wanted} is asked for")
    longest = imgsz_of(sidecar)
    if longest is not None and (imgsz or 0) > longest:
        found.append(f"built for pictures of up to {longest} pixels, {imgsz} are asked for")
    return found


def made_to_fit(
    model: Any, *, device: str = "auto", precision: str | None = None, imgsz: int | None = None, rebuild: str = "never",
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Before an `.engine` is loaded: "auto" builds it anew where it does not fit, in its place and checked against fp32 as ever.

    With "never" loading itself says what differs; only too small an engine is refused here, which would show at the first frame
    otherwise. Other models are left alone. Raises UsageError, ModelError, EngineError.
    """
    if rebuild not in REBUILD:
        raise UsageError(f"rebuild must be one of {', '.join(REBUILD)}, got {rebuild!r}")
    if not isinstance(model, str | Path) or Path(model).suffix.lower() != ".engine":
        return
    engine = Path(model).expanduser()
    if rebuild == "never" and not engine.is_file():
        return  # the manifest says it better
    sidecar = read_description(engine)
    if rebuild == "never":
        longest = imgsz_of(sidecar)
        if longest is not None and (imgsz or 0) > longest:
            command = build_command(engine, resized(sidecar, imgsz))
            raise EngineError(
                f"{engine.name} takes pictures of up to {longest} pixels, got imgsz {imgsz}; lower it, or build the engine anew: {command}"
            )
        return
    from engines.select import check_packages

    check_packages(engine, sidecar.backend, f"give the model that it was built from, {sidecar.source}")
    found = misfits(engine, sidecar, machine_of(sidecar.backend, device), precision=precision, imgsz=imgsz)
    if found:
        log.warning("%s does not fit: %s; it is built anew from %s, which can take minutes", engine, "; ".join(found), sidecar.source)
        build_anew(engine, sidecar, precision=PRECISION.get(precision or "", precision), imgsz=imgsz, say=say)


def build_anew(
    engine: Path, sidecar: Sidecar, *, precision: str | None = None, imgsz: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """The same engine once more from the ONNX that its sidecar names, for this machine. Raises as build_engine()."""
    source, profile = source_of(engine, sidecar), sidecar.profile
    if source is None or profile is None:
        why = f"its source {sidecar.source} is not there" if source is None else "its .json names no profile"
        raise ModelError(f"{engine} cannot be built anew, {why}; give the model yourself: {build_command(engine, sidecar)}")
    from engines.build.engine import build_engine

    build_engine(
        source[0], backend=sidecar.backend, precision=precision or sidecar.precision,
        batch=(profile.min[0], profile.opt[0], profile.max[0]), imgsz=max(imgsz or 0, imgsz_of(sidecar) or 0) or None,
        calibration=Path(sidecar.calibration) if sidecar.calibration else None, output=engine, overwrite=True,
        timing_cache=engine.parent / sidecar.timing_cache if sidecar.timing_cache else None, say=say,
    )  # fmt: skip


def resized(sidecar: Sidecar, imgsz: int | None) -> Sidecar:
    """A detector's sidecar for pictures of another longest side, as far as the command to build it goes."""
    if sidecar.profile is None or imgsz is None:
        return sidecar
    largest = tuple(imgsz if size > 3 else size for size in sidecar.profile.max[1:])
    return dataclasses.replace(sidecar, profile=dataclasses.replace(sidecar.profile, max=(sidecar.profile.max[0], *largest)))


def find_engine(
    entry: manifest.Entry, device: str, *, precision: str | None = None, imgsz: int | None = None,
    machine: Callable[[str, str], Machine] = machine_of,
) -> tuple[tuple[Path, str] | None, list[str]]:
    """The (path, backend) of an engine built from `entry` that fits this machine, or None; and why others were passed over.

    Looked for among the shipped models and in folder(), nowhere else: an engine is code, and one that merely lies beside a
    downloaded .onnx was vouched for by nobody. Opens none.
    """
    from engines.select import installed

    refused: list[str] = []
    fitting: list[tuple[int, Path, str]] = []
    machines: dict[str, Machine] = {}
    for path in sorted({path for place in (manifest.MODELS, folder()) if place.is_dir() for path in place.glob("*.engine")}):
        try:
            sidecar = read_description(path)
            if sidecar.task != entry.task or entry.digest != sidecar.source_sha256:
                if sidecar.source == entry.name:
                    refused.append(f"{path.name}: built from another {entry.name}")
                continue
            if not installed(sidecar.backend):
                refused.append(f"{path.name}: {sidecar.backend} is not installed")
                continue
            if sidecar.backend not in machines:
                machines[sidecar.backend] = machine(sidecar.backend, device)
            found = misfits(path, sidecar, machines[sidecar.backend], precision=precision, imgsz=imgsz)
        except (ModelError, EngineError) as error:
            refused.append(f"{path.name}: {error}")
            continue
        if found:
            refused.append(f"{path.name}: {', '.join(found)}")
        elif sidecar.precision in _FIRST:
            fitting.append((_FIRST.index(sidecar.precision), path, sidecar.backend))
    if not fitting:
        return None, refused or [f"no TensorRT engine of {entry.name} in {folder()}"]
    _, path, backend = min(fitting)
    return (path, backend), refused
