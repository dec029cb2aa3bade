"""fp16 in the graph itself: TensorRT 11 and TensorRT-RTX compute in the types that the ONNX says, they have no fp16 switch.

What turns a detector's last convolutions into pixels stays in fp32: fp16 has steps of half a pixel from 512 on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.errors import EngineError
from engines.silent import import_silently


def fp16_from_onnx(source: Path, path: Path, *, kept: Sequence[str] = ()) -> Path:
    """Writes `path`: `source` with fp16 weights and activations, the same inputs and outputs (types too); returns it.

    `kept`: regular expressions of node names that stay in fp32. Raises EngineError without onnx and onnxruntime.
    """
    try:
        import onnx

        float16 = import_silently("onnxruntime.transformers.float16")
    except ImportError as error:
        raise EngineError(f"making fp16 models needs {error.name}: pip install 'fer-stream[build,onnxruntime]'") from error
    from engines.build.int8_from_onnx import weights_as_fp32

    model = onnx.load(str(source))
    weights_as_fp32(model)
    _name_nodes(model)
    kept_nodes = [node.name for node in model.graph.node if any(re.fullmatch(pattern, node.name) for pattern in kept)]
    names = {node.name for node in model.graph.node}
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, "Range"]
    model = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=kept_nodes, op_block_list=blocked)
    _drop_round_trips(model, names)
    _sort_nodes(model)
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _name_nodes(model: Any) -> None:
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"


def _drop_round_trips(model: Any, names: set[str]) -> None:
    """Takes out the converter's own Casts to fp16 and straight back: one of them rounded a detector's boxes by up to .17 pixels."""
    added = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast" and node.name not in names}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.name not in names and node.input[0] in added:
            node.input[0] = added[node.input[0]]  # fp32 to fp32, which every runtime leaves out
    used = {name for node in model.graph.node for name in node.input} | {tensor.name for tensor in model.graph.output}
    nodes = [node for node in model.graph.node if node.op_type != "Cast" or used.intersection(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _sort_nodes(model: Any) -> None:
    """Producers before consumers, else as they are: the converter appends its Casts at the end."""
    known = {"", *(t.name for t in model.graph.initializer), *(t.name for t in model.graph.input)}
    waiting, ordered = list(model.graph.node), []
    while waiting:
        later = []
        for node in waiting:
            if known.issuperset(node.input):
                known.update(node.output)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise EngineError(f"the graph has a loop or lacks an input near {waiting[0].name}; give a valid .onnx")
        waiting = later
    del model.graph.node[:]
    model.graph.node.extend(ordered)
