"""int8 by post-training quantisation (NNCF): ranges from real images, in the graph as QuantizeLinear/DequantizeLinear pairs.

The pairs are symmetric and signed, zero point 0, because TensorRT takes no others; so one file serves ONNX Runtime and TensorRT, and
OpenVINO for small networks (see int8_for_openvino). Weights are per channel and stored as int8, half the size of fp16.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import EngineError, UsageError
from engines.silent import import_silently

KEPT = {
    "detector": (r".*/model\.(0|1|2|10|23)/.*", r"^/(Div|Transpose|Cast).*"),
    "classifier": (r"^/(?!backbone|classifier).*", r".*/backbone\.0/.*", r".*Gemm.*"),
}
"""Nodes that stay in floating point, by regular expression.

The detector's AP50 of faces from 8, 16, 32 px on faces/val, fp32 .674 .833 .917: with the arithmetic after its last convolutions
kept .670 .830 .911; its whole head .674 .832 .911; head, attention (10) and the first three stages .673 .835 .919; with nothing
kept .518 .753 .897. The classifier's labels on PublicTest agree with fp32's on 96 % where its last layers alone are kept, on 99 % where
the standardisation before the first convolution and that are, too, as here.
"""


def int8_from_onnx(source: Path, path: Path, samples: Sequence[np.ndarray], *, kept: Sequence[str] = ()) -> Path:
    """Quantises `source` (.onnx) with `samples`, each a batch for its input, and writes `path`; returns it.

    `kept`: see KEPT; how many samples, see calibration.SAMPLES. Raises EngineError without nncf, onnx and onnxruntime; UsageError
    without samples.
    """
    if not samples:
        raise UsageError("quantisation needs real images to find the ranges of values; give a folder with --calibration")
    try:
        import onnx

        import_silently("onnxruntime")  # NNCF collects statistics with it
        nncf = import_silently("nncf")
    except ImportError as error:
        raise EngineError(f"making int8 models needs {error.name}: pip install 'fer-stream[build,onnxruntime]'") from error
    model = onnx.load(str(source))
    metadata = list(model.metadata_props)
    weights_as_fp32(model)
    name = model.graph.input[0].name
    scope = nncf.IgnoredScope(patterns=list(kept), validate=False) if kept else None
    model = nncf.quantize(
        model, nncf.Dataset(samples, lambda sample: {name: sample}), subset_size=len(samples), ignored_scope=scope,
        preset=nncf.QuantizationPreset.PERFORMANCE,
    )  # fmt: skip
    make_signed(model)
    del model.metadata_props[:]
    model.metadata_props.extend(metadata)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def weights_as_fp32(model: Any) -> None:
    """Undoes the storage as fp16 (see onnx_from_module), in place: quantisers look for weights right before their operator."""
    import onnx

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        stored = weights.get(node.input[0]) if node.op_type == "Cast" else None
        if stored is None or stored.data_type != onnx.TensorProto.FLOAT16:
            nodes.append(node)
            continue
        stored.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(stored).astype(np.float32), node.output[0]))
    _replace_nodes(model, nodes)


def make_signed(model: Any) -> None:
    """uint8 with zero point 0 becomes int8 with the scale × 255/127, in place: the same range in half the steps.

    NNCF picks uint8 for what is never negative (after a ReLU or a sigmoid) and cannot be told otherwise for this format.
    """
    import onnx

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    done = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        scale, zero = weights[node.input[1]], weights[node.input[2]]
        if zero.data_type != onnx.TensorProto.UINT8 or zero.name in done:
            continue
        if onnx.numpy_helper.to_array(zero).any():
            raise EngineError(f"{node.name} has a zero point other than 0, which TensorRT refuses; quantise symmetrically")
        done.add(zero.name)
        values = onnx.numpy_helper.to_array(scale) * np.float32(255 / 127)
        scale.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), scale.name))
        zero.CopyFrom(onnx.numpy_helper.from_array(np.zeros(values.shape, np.int8), zero.name))
    del model.graph.value_info[:]  # they still say uint8


def _replace_nodes(model: Any, nodes: list[Any]) -> None:
    del model.graph.node[:]
    model.graph.node.extend(nodes)
