"""An ONNX as a TensorRT engine: parse, one optimisation profile with a free batch, serialise. Not a weight of torch in it.

Written against what `tensorrt` 10 and 11 and `tensorrt_rtx` have in common: networks are strongly typed (the ONNX says what is
fp16 or int8; TensorRT 11 dropped the flags), shapes come from a profile. TensorRT-RTX compiles for GPUs that are not here, so
this file really runs in the tests of a machine without a GPU; TensorRT itself builds only on the GPU that it builds for.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.errors import EngineError, ModelError
from engines.sidecar import Profile

LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backend -> Python module."""
RTX_TARGETS = ("SM80", "SM86", "SM89", "SM120")
"""Compute capabilities that TensorRT-RTX builds for where no GPU is: Ampere to Blackwell. Turing (SM75) has no fp32 matrix
products there, and our classifier's last layer is one."""


def tensorrt_from_onnx(
    source: Path, *, library: str, profile: Profile, targets: Sequence[str] = RTX_TARGETS, timing_cache: Path | None = None
) -> bytes:
    """The serialised engine of `source` (.onnx).

    `library`: "tensorrt" or "tensorrt-rtx". `targets`: compute capabilities, for TensorRT-RTX only. `timing_cache`: what TensorRT
    measured is kept there between builds (TensorRT-RTX measures nothing, it builds for GPUs that are not here). Raises
    EngineError where the library is missing or fails, ModelError with the parser's own words for a graph that it does not take.
    """
    trt = load_library(library)
    heard: list[str] = []
    logger = _logger(trt, heard)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(_without_uint8_layers(source)):
        reasons = "; ".join(str(parser.get_error(i)).splitlines()[0][:200] for i in range(parser.num_errors))
        raise ModelError(f"{LIBRARIES[library]} {trt.__version__} does not take {source.name}: {reasons}")
    config = builder.create_builder_config()
    shapes = builder.create_optimization_profile()
    if shapes.set_shape(profile.input, profile.min, profile.opt, profile.max) is False or config.add_optimization_profile(shapes) < 0:
        raise EngineError(f"{library} refuses the profile {profile.min} {profile.opt} {profile.max} for the input {profile.input}")
    if library == "tensorrt-rtx":
        config.num_compute_capabilities = len(targets)
        for i, target in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target), i)
    cache = _timing_cache(config, timing_cache) if library == "tensorrt" else None
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        reason = heard[-1].splitlines()[0][:300] if heard else "it says no reason"
        raise EngineError(f"{LIBRARIES[library]} {trt.__version__} could not build {source.name}: {reason}")
    if cache is not None and timing_cache is not None:
        partial = timing_cache.with_name(f"{timing_cache.name}.partial")
        partial.write_bytes(bytes(cache.serialize()))
        partial.replace(timing_cache)
    return bytes(serialised)


def load_library(library: str) -> Any:
    """The Python module of "tensorrt" or "tensorrt-rtx". Raises EngineError where it is not installed or does not start."""
    try:
        return importlib.import_module(LIBRARIES[library])
    except ImportError as error:
        raise EngineError(f"building for {library} needs the package {LIBRARIES[library]}: pip install 'fer-stream[{library}]'") from error
    except Exception as error:  # its libraries fail to load in many ways
        raise EngineError(f"{LIBRARIES[library]} is installed but does not start ({type(error).__name__}: {error})") from error


def _logger(trt: Any, heard: list[str]) -> Any:
    """The library's own complaints go to `heard`. It keeps the first logger of a process for good, hence the one for all."""

    class Told(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.heard.append(message)

    logger = _loggers.get(trt.__name__)
    if logger is None:
        logger = _loggers[trt.__name__] = Told()
    logger.heard = heard
    return logger


_loggers: dict[str, Any] = {}


def _timing_cache(config: Any, path: Path | None) -> Any:
    """The measurements of earlier builds; a new file of them where there is none, or one of another GPU or version."""
    if path is None:
        return None
    for known in (path.read_bytes(), b"") if path.is_file() else (b"",):
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _without_uint8_layers(source: Path) -> bytes:
    """The ONNX with `Transpose(uint8) → Cast(float)` turned round: TensorRT takes uint8 as an input, but in no layer but Cast."""
    import onnx

    model = onnx.load(str(source))
    inputs = {tensor.name for tensor in model.graph.input if tensor.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    for first in model.graph.node:
        if first.op_type != "Transpose" or first.input[0] not in inputs:
            continue
        followers = [node for node in model.graph.node if first.output[0] in node.input]
        if len(followers) == 1 and followers[0].op_type == "Cast":
            second = followers[0]
            first.op_type, second.op_type = "Cast", "Transpose"
            perm, to = list(first.attribute), list(second.attribute)
            del first.attribute[:], second.attribute[:]
            first.attribute.extend(to)
            second.attribute.extend(perm)
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())
