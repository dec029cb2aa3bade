"""`fer-build engine`: one model for one backend in one precision, checked against fp32 before it is written.

Everything is made in a folder of its own beside the output and moved there only when it agrees: an engine that is there is one
that was right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from engines import fit, load_classifier, load_detector, manifest, select
from engines.build import parity as check
from engines.build.calibration import SAMPLES, parity_samples, samples_of
from engines.classifier import Classifier
from engines.contract import ClassifierContract, DetectorContract
from engines.detector import Detector
from engines.errors import EngineError, UsageError
from engines.onnx_file import read_onnx
from engines.scrfd import is_scrfd
from engines.sidecar import Machine, Profile, Sidecar, read_description, write_sidecar
from engines.silent import import_silently

PRECISIONS = {
    "onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "fp16", "int8"), "tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt-rtx": ("fp32", "fp16", "int8"), "torch": (),
}  # fmt: skip
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".engine", "tensorrt-rtx": ".engine"}
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Built:
    """What build_engine() wrote."""

    path: Path
    size: int
    """Bytes, of all its files."""
    seconds: float
    parity: check.Parity
    note: str
    """What the check left out."""


def build_engine(
    model: str | Path, *, backend: str, precision: str = "fp16", batch: tuple[int, int, int] = (1, 1, 8), imgsz: int | None = None,
    calibration: Path | None = None, data: Path | None = None, output: Path | None = None, overwrite: bool = False,
    timing_cache: Path | None = None, rebuild: str = "never", say: Say = lambda text: None,
) -> Built:
    """Builds `model` (a shipped name or an .onnx) and writes it with a .json beside it.

    `batch`: smallest, usual and largest, for TensorRT; the others take any. `imgsz`: longest side of a detector's input, for
    TensorRT. `calibration`: folder with training images, for int8. `data`: folder with labelled ones, for accuracy.
    `timing_cache`: file of TensorRT's measurements, read and written; None = beside the output, one for each version.
    `rebuild`: "auto" keeps an output that fits this machine and the request, and replaces another. Raises UsageError for what
    makes no sense, EngineError where a library is missing or the engine disagrees with fp32.
    """
    _check_request(backend, precision, batch)
    task = _task_of(model)
    entry = manifest.find(model, task)
    if entry.path.suffix.lower() != ".onnx":
        raise UsageError(f"engines are built from ONNX, got {entry.path.name}; give a shipped name or an .onnx")
    if _is_quantised(entry.path):
        if precision != "int8":
            raise UsageError(f"{entry.name} is in int8 already, got {precision}; give --precision int8, or the model it was made of")
    elif precision == "int8":
        if calibration is None:
            raise UsageError("int8 needs real images to find the ranges of values; give their folder with --calibration")
        if find_spec("nncf") is None:  # before minutes of work
            raise EngineError("making int8 models needs nncf: pip install 'fer-stream[build,onnxruntime]'")
    output = output or Path(f"{entry.path.stem}_{precision}{SUFFIX[backend]}")
    _check_output(output, backend, overwrite or rebuild == "auto")
    started = time.perf_counter()
    say(f"{entry.name}: the fp32 reference")
    reference = _load(model, task)
    profile = _profile(reference, batch, imgsz) if backend in select.GPU_ONLY else None
    if rebuild == "auto" and output.exists():
        kept = _kept(output, entry, backend, precision, profile, say)
        if kept is not None:
            return kept
    with _folder_beside(output) as folder:
        made = folder / output.name
        graph = _graph(entry.path, reference, backend, precision, calibration, folder, say)
        details = _convert(graph, made, backend, precision, profile, timing_cache or output.parent, say)
        say("checking it against fp32")
        found, note = _parity(reference, graph, made, backend, precision, calibration, data)
        problems = "; ".join(found.problems(precision))
        if problems:
            raise EngineError(f"{output.name} was not written, it does not answer as {entry.name} does: {problems}")
        sidecar = Sidecar(
            backend=backend, precision=precision, task=task, contract=dataclasses.asdict(reference.contract),
            source=str(model) if str(model) in manifest.shipped() else str(entry.path.resolve()), source_sha256=entry.digest,
            sha256=manifest.sha256_of(made), parity=dataclasses.asdict(found),
            calibration=str(calibration.resolve()) if calibration is not None and precision == "int8" else "", **details,
        )  # fmt: skip
        write_sidecar(made, sidecar)
        for file in _files_of(made):
            shutil.move(file, output.with_name(file.name))
    return Built(output, _size_of(output), time.perf_counter() - started, found, note)


@contextlib.contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """Where everything is made, gone at the end. Raises EngineError for a folder or disk that takes nothing."""
    try:
        with tempfile.TemporaryDirectory(prefix=".fer-build-", dir=output.parent) as folder:
            yield Path(folder)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "iostream" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or "OpenVINO could not write its file"  # it says no more than iostream error
        raise EngineError(f"cannot write {output} ({reason}); make room there, or give another place with --output") from error


def _files_of(output: Path) -> tuple[Path, ...]:
    """All that is written with it."""
    return (output, *((output.with_suffix(".bin"),) if output.suffix.lower() == ".xml" else ()), manifest.sidecar_of(output))


def _size_of(output: Path) -> int:
    return sum(file.stat().st_size for file in _files_of(output) if file.is_file())


def _kept(output: Path, entry: manifest.Entry, backend: str, precision: str, profile: Profile | None, say: Say) -> Built | None:
    """An output that is there and is what was asked for; else None, and it is said why. Raises ModelError for one that is not ours."""
    sidecar = read_description(output)
    machine = fit.machine_of(backend) if backend in select.GPU_ONLY else Machine(backend, sidecar.library_version)
    differs = fit.misfits(output, sidecar, machine, precision=precision)
    if sidecar.source_sha256 != entry.digest and not any(text.startswith("built from") for text in differs):
        differs.append(f"built from another model than {entry.name}")
    if sidecar.profile != profile:
        differs.append("built for other sizes of pictures or batches")
    if differs:
        say(f"{output.name} does not fit: {'; '.join(differs)}; it is built anew")
        return None
    return Built(output, _size_of(output), 0.0, check.Parity(**sidecar.parity), "it was there and fits this machine, so it was kept")


def _check_request(backend: str, precision: str, batch: tuple[int, int, int]) -> None:
    if backend == "torch":
        raise UsageError("for torch there is nothing to build: it runs the .onnx itself; choose its precision when you load the model")
    if backend not in PRECISIONS:
        raise UsageError(f"unknown backend {backend!r}; known: {', '.join(PRECISIONS)}")
    if precision not in PRECISIONS[backend]:
        raise UsageError(f"{backend} is built in {', '.join(PRECISIONS[backend])}, got {precision!r}")
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise UsageError(f"batch must be MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, got {':'.join(map(str, batch))}")
    if backend in select.GPU_ONLY:
        from engines.build.tensorrt_from_onnx import RTX_TARGETS, load_library

        load_library(backend)
        here = fit.machine_of(backend)
        if backend == "tensorrt-rtx" and here.compute_capability and here.compute_capability not in _capabilities(RTX_TARGETS):
            able = ", ".join(_capabilities(RTX_TARGETS))
            got = f"{here.gpu} has {here.compute_capability}"
            raise EngineError(f"TensorRT-RTX is built for compute capability {able}, {got}; use --backend tensorrt")
        if backend == "tensorrt" and not select.gpu_count():
            raise EngineError("TensorRT builds on the GPU that it builds for, and none is here; build there, or use --backend tensorrt-rtx")


def _check_output(output: Path, backend: str, overwrite: bool) -> None:
    if output.suffix.lower() != SUFFIX[backend]:
        raise UsageError(f"{backend} writes {SUFFIX[backend]}, got {output.name}; give such a name with --output")
    if not output.parent.is_dir():
        raise UsageError(f"the folder {output.parent} does not exist; make it first, or give another --output")
    for file in _files_of(output):
        if file.is_dir():
            raise UsageError(f"{file} is a folder; give the name of a file with --output")
        if file.exists() and not overwrite:
            raise UsageError(f"{file} exists; give another --output, --overwrite, or --rebuild auto, which keeps it where it fits")
    if output.resolve().parent == manifest.MODELS.resolve():
        raise UsageError(f"{output.parent} holds the shipped models; give another folder with --output")


def _task_of(model: str | Path) -> str:
    """A model that answers an array of three axes, or as SCRFD does, is a detector."""
    shipped = manifest.shipped().get(str(model))
    if shipped is not None:
        return shipped.task
    path = Path(model)
    if path.suffix.lower() != ".onnx" or not path.is_file():
        known = ", ".join(manifest.shipped())
        raise UsageError(f"there is no model {model}; give a shipped name ({known}) or the path of an .onnx")
    parsed = read_onnx(path)
    return "detector" if is_scrfd(parsed) or len(parsed.outputs[0].shape) == 3 else "classifier"


def _load(model: str | Path, task: str) -> Any:
    if task == "classifier":
        return load_classifier(model, backend="openvino", precision="f32")
    return load_detector(model, backend="openvino", precision="f32", imgsz=None)


def _is_quantised(path: Path) -> bool:
    return any(node.op == "DequantizeLinear" for node in read_onnx(path).nodes)


def _graph(source: Path, reference: Any, backend: str, precision: str, calibration: Path | None, folder: Path, say: Say) -> Path:
    """The graph that computes in `precision`. OpenVINO halves its weights by itself and computes in what its CPU is best at."""
    from engines.build import int8_for_openvino as own_form
    from engines.build.fp16_from_onnx import fp16_from_onnx
    from engines.build.int8_from_onnx import KEPT, int8_from_onnx

    task = reference.entry.task
    if precision == "fp32" or (precision == "int8" and _is_quantised(source)) or (precision == "fp16" and backend == "openvino"):
        return source
    if precision == "fp16":
        say("writing the graph in fp16")
        return fp16_from_onnx(source, folder / "fp16.onnx", kept=KEPT[task])
    assert calibration is not None
    samples = [np.ascontiguousarray(reference._prepared(one)) for one in samples_of(reference, calibration, "train", SAMPLES[task])]
    say(f"finding the ranges of values in {len(samples)} images (minutes for a detector)")
    if backend == "openvino":
        return own_form.int8_for_openvino(source, folder / "int8.xml", samples, kept=own_form.KEPT[task])
    return int8_from_onnx(source, folder / "int8.onnx", samples, kept=KEPT[task])


def _capabilities(targets: Sequence[str]) -> tuple[str, ...]:
    """"SM89" -> "8.9"."""
    return tuple(f"{target[2:-1]}.{target[-1]}" for target in targets)


def _convert(
    graph: Path, made: Path, backend: str, precision: str, profile: Profile | None, timing_cache: Path, say: Say
) -> dict[str, Any]:
    """Writes `made`; what the sidecar says of it beyond the rest. `timing_cache`: a file, or the folder for one."""
    if backend == "onnx":
        shutil.copyfile(graph, made)
        return {}
    if backend == "openvino":
        openvino = import_silently("openvino")
        say("writing OpenVINO's own form")
        openvino.save_model(openvino.Core().read_model(str(graph)), str(made), compress_to_fp16=precision != "fp32")
        return {"library_version": openvino.__version__}
    from engines.build.tensorrt_from_onnx import RTX_TARGETS, load_library, tensorrt_from_onnx

    assert profile is not None
    version = load_library(backend).__version__
    cache = timing_cache / f"{backend}-{version}.timing" if timing_cache.is_dir() else timing_cache
    say(f"building with {backend} (this can take minutes)" + (f", with the measurements in {cache}" if cache.is_file() else ""))
    made.write_bytes(tensorrt_from_onnx(graph, library=backend, profile=profile, timing_cache=cache))
    details: dict[str, Any] = {
        "library_version": version, "profile": profile, "outputs": tuple(tensor.name for tensor in read_onnx(graph).outputs),
        "compute_capabilities": _capabilities(RTX_TARGETS),
        "timing_cache": "" if not cache.is_file() else cache.name if timing_cache.is_dir() else str(cache.resolve()),
    }  # fmt: skip
    if select.gpu_count():
        from engines.backends.cuda import Cuda

        cuda = Cuda()
        details["driver"] = cuda.driver
        if backend == "tensorrt":
            details |= {"gpu": cuda.name, "compute_capabilities": (cuda.compute_capability,)}
        cuda.close()
    return details


def _profile(reference: Any, batch: tuple[int, int, int], imgsz: int | None) -> Profile:
    name = reference._engine.inputs[0].name
    contract: DetectorContract | ClassifierContract = reference.contract
    if isinstance(contract, ClassifierContract):
        sides: tuple[tuple[int, ...], ...] = ((3 if contract.colour == "rgb" else 1, contract.input_size, contract.input_size),) * 3
    else:
        longest, stride = imgsz or contract.imgsz, contract.stride
        if longest % stride:
            raise UsageError(f"--imgsz must be a multiple of {stride}, got {longest}")
        wide = int(np.ceil(longest * 9 / 16 / stride)) * stride  # 16:9, as most videos are
        sides = ((stride, stride, 3), (wide, longest, 3), (longest, longest, 3))
        if reference._channels_first:
            sides = tuple((3, *side[:2]) for side in sides)
    return Profile(name, *((count, *side) for count, side in zip(batch, sides, strict=True)))


def _parity(
    reference: Any, graph: Path, made: Path, backend: str, precision: str, calibration: Path | None, data: Path | None
) -> tuple[check.Parity, str]:
    """The built file beside the reference; for TensorRT where no GPU is, the graph that it was built from."""
    from engines.backends.openvino import OpenVinoBackend

    on_gpu = backend in select.GPU_ONLY  # an engine opens with its sidecar, which is written after this check
    note = "checked was the graph that it was built from; the engine itself: fer-build compare, on its GPU" if on_gpu else ""
    engine = OpenVinoBackend.open(graph if on_gpu else made, precision="f32")
    other = type(reference)(engine, reference.entry, **({"head": reference.head} if isinstance(reference, Classifier) else {}))
    samples = parity_samples(reference, data, calibration)
    task = reference.entry.task
    found = (check.detector_parity if isinstance(reference, Detector) else check.classifier_parity)(reference, other, samples)
    if data is not None:
        found = dataclasses.replace(found, scores=_scores(reference, other, data, task))
    return found, note


def _scores(reference: Any, other: Any, data: Path, task: str) -> dict[str, tuple[float, float]]:
    from engines.build.accuracy import FLOOR
    from engines.build.labelled import read_faces, read_pictures

    if task == "classifier":
        return check.scores_of(reference, other, read_faces(data, "PublicTest"), task)
    low, low_other = (Detector(one._engine, one.entry, conf=FLOOR) for one in (reference, other))
    return check.scores_of(low, low_other, read_pictures(data, "val"), task)
