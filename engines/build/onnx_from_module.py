"""A torch module as an ONNX file that every backend reads: weights stored as fp16, metadata inside.

fp16 storage halves the file. The graph still computes in fp32: each stored weight is followed by a Cast, which every
runtime folds away when it compiles. Rounding a weight to fp16 moves it by at most 2^-11 of itself, an eighth of what bf16
inference does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError

if TYPE_CHECKING:
    import torch

OPSET = 17
"""Old enough for every runtime in use, new enough for all operators needed here."""

_SMALLEST = 256
"""Initialisers with fewer values stay fp32: biases and constants cost nothing and some need their precision."""


def onnx_from_module(
    module: torch.nn.Module,
    path: Path,
    example: tuple[torch.Tensor, ...],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
    metadata: Mapping[str, str] | None = None,
    fp16_weights: bool = True,
) -> Path:
    """Traces `module` (in eval mode) with `example` and writes `path`; returns it.

    `dynamic_axes` names the axes that may change ({"images": {0: "n"}}). `metadata` goes into the file's metadata_props.
    The result is the same bytes for the same weights and library versions. Raises EngineError where torch or onnx is absent.
    """
    try:
        import onnx
        import torch
    except ImportError as error:
        raise EngineError(f"exporting to ONNX needs {error.name}: pip install 'fer-stream[torch,build]'") from error
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    was_training = module.training
    module.eval()
    partial = path.with_name(f".{path.name}.partial")
    try:
        with torch.no_grad():
            torch.onnx.export(
                module, example, str(partial), input_names=list(input_names), output_names=list(output_names), opset_version=OPSET,
                dynamic_axes={k: dict(v) for k, v in (dynamic_axes or {}).items()}, do_constant_folding=True, dynamo=False,
            )
            answers = module(*example)
        model = onnx.load(str(partial))
        _fix_sizes(model, answers if isinstance(answers, tuple | list) else (answers,), dynamic_axes or {})
        if fp16_weights:
            _store_as_fp16(model)
        _anonymise(model)
        for key, value in sorted((metadata or {}).items()):
            model.metadata_props.add(key=key, value=str(value))
        onnx.checker.check_model(model, full_check=True)
        partial.write_bytes(model.SerializeToString(deterministic=True))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        module.train(was_training)
    return path


def _store_as_fp16(model: Any) -> None:
    """Replaces large fp32 initialisers by fp16 ones and a Cast back to fp32, in place."""
    import numpy as np
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < _SMALLEST or np.abs(values).max() > 65504:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def _fix_sizes(model: Any, answers: Sequence[torch.Tensor], dynamic_axes: Mapping[str, Mapping[int, str]]) -> None:
    """Writes the size of each output axis that does not change: tracing leaves most of them as unknowns."""
    for output, answer in zip(model.graph.output, answers, strict=True):
        for axis, size in enumerate(answer.shape):
            if axis not in dynamic_axes.get(output.name, {}):
                output.type.tensor_type.shape.dim[axis].dim_value = size


def _anonymise(model: Any) -> None:
    """Drops doc strings (they hold paths of the machine that exported) in place."""
    model.doc_string = ""
    model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
