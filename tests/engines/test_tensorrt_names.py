"""Every name that is used of the real TensorRT exists in it: read from our source, so that no list can go stale."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

import engines

FILES = [Path(engines.__file__).parent / name for name in ("backends/tensorrt.py", "build/tensorrt_from_onnx.py")]
KINDS = {
    "trt": None, "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser", "config": "IBuilderConfig",
    "shapes": "IOptimizationProfile", "cache": "ITimingCache", "engine": "ICudaEngine", "_context": "IExecutionContext",
}  # fmt: skip
"""Our variables for its objects -> their class; None: the module."""
OURS = {"shapes": "tensorrt.py"}
"""Where a variable of that name is something else."""


def dotted(node: ast.AST) -> list[str]:
    """trt.Logger.ERROR -> ["trt", "Logger", "ERROR"]; self.x.y -> ["x", "y"]; empty for what does not begin with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    front = dotted(node.value) if isinstance(node, ast.Attribute) else []
    return [*(front if front != ["self"] else []), node.attr] if front and isinstance(node, ast.Attribute) else []


def names_used() -> set[tuple[str, ...]]:
    """("Logger", "ERROR"), ("IExecutionContext", "set_input_shape"), …"""
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            chain = dotted(node)
            if len(chain) > 1 and chain[0] in KINDS and OURS.get(chain[0]) != path.name:
                kind = KINDS[chain[0]]
                found.add(tuple([kind, chain[1]] if kind else chain[1:]))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and dotted(node.func.value)[:1] != ["trt"]:
                inner = node.func.value  # trt.Runtime(…).deserialize_cuda_engine(…)
                if isinstance(inner, ast.Call) and dotted(inner.func)[:1] == ["trt"]:
                    found.add((dotted(inner.func)[-1], node.func.attr))
    return found


def test_the_names_are_found_in_our_source():
    some = {("Builder", "create_network"), ("IExecutionContext", "execute_async_v3"), ("Runtime", "deserialize_cuda_engine"), ("nptype",)}
    assert some | {("ITimingCache", "serialize"), ("IBuilderConfig", "set_timing_cache"), ("Logger", "ERROR")} <= names_used()


@pytest.mark.parametrize("module", ["tensorrt_rtx", "tensorrt"])
def test_every_name_used_exists(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs the extra {module.replace('_', '-')}")
    trt = importlib.import_module(module)
    missing = []
    for chain in sorted(names_used()):
        if module == "tensorrt" and chain[-1] in ("num_compute_capabilities", "set_compute_capability", "ComputeCapability"):
            continue  # used for TensorRT-RTX alone
        at = trt
        for name in chain:
            at = getattr(at, name, None)
            if at is None:
                missing.append(".".join(chain))
                break
    assert missing == []


def test_the_compute_capabilities_that_are_built_for_exist():
    trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    from engines.build.tensorrt_from_onnx import RTX_TARGETS

    assert [target for target in RTX_TARGETS if not hasattr(trt.ComputeCapability, target)] == []


@pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX")
def test_the_timing_cache_of_the_builder_is_written_and_read_again(tmp_path):
    """On TensorRT-RTX, which has the same calls; what is measured there is nothing."""
    trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    from engines.build.tensorrt_from_onnx import _timing_cache

    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    config = builder.create_builder_config()
    path = tmp_path / "t.timing"
    assert _timing_cache(config, None) is None
    first = _timing_cache(config, path)
    path.write_bytes(bytes(first.serialize()))
    assert _timing_cache(builder.create_builder_config(), path) is not None
    path.write_bytes(b"not a cache")
    assert _timing_cache(builder.create_builder_config(), path) is not None
