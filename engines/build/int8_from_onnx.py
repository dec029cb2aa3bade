"""int8 by post-training quantisation (NNCF): ranges from real images, written into the ONNX as QuantizeLinear/DequantizeLinear."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import EngineError


def int8_from_onnx(
    source: Path, path: Path, samples: Sequence[np.ndarray], *, ignored: Iterable[str] = (), preset="performance", signed=True, advanced=None,
    **kw,
) -> Path:
    import nncf
    import onnx
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters

    model = onnx.load(str(source))
    weights_as_fp32(model)
    name = model.graph.input[0].name
    adv = advanced or {}
    if signed:
        adv["activations_quantization_params"] = QuantizationParameters(signedness_to_force=True)
    quantised = nncf.quantize(
        model, nncf.Dataset(samples, lambda sample: {name: sample}), subset_size=len(samples),
        preset=nncf.QuantizationPreset(preset), ignored_scope=nncf.IgnoredScope(patterns=list(ignored), validate=False) if ignored else None,
        advanced_parameters=AdvancedQuantizationParameters(**adv), **kw
    )
    onnx.save(quantised, str(path))
    return path


def weights_as_fp32(model: Any) -> None:
    """Undoes the storage as fp16 (see onnx_from_module), in place: quantisers look for weights right before their operator."""
    import onnx

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in weights and weights[node.input[0]].data_type == onnx.TensorProto.FLOAT16:
            values = onnx.numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
            weights[node.input[0]].CopyFrom(onnx.numpy_helper.from_array(values, node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
