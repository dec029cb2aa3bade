"""An Ultralytics detection checkpoint as one ONNX graph: normalisation inside, batch and both sides free.

A checkpoint is a pickle: unpickling runs code, so this is for checkpoints of your own. What comes out is data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engines.build.onnx_from_module import onnx_from_module
from engines.errors import EngineError, ModelError, UsageError
from engines.silent import import_silently

if TYPE_CHECKING:
    from torch import nn


def onnx_from_checkpoint(checkpoint: Path, path: Path, *, metadata: dict[str, str] | None = None) -> Path:
    """Writes `path`: `images` (N, H, W, 3) uint8 RGB, H and W multiples of 32 -> `boxes` (N, 5, anchors) float32.

    Channels of the output: centre x, centre y, width, height in pixels of the input, score 0…1 (see DetectorContract).
    Raises as graph_from_checkpoint, and EngineError without onnx.
    """
    graph = graph_from_checkpoint(checkpoint)
    import torch

    # An odd shape that is neither square nor the usual one: what tracing wrongly freezes shows at once.
    return onnx_from_module(
        graph, Path(path), (torch.zeros(2, 192, 352, 3, dtype=torch.uint8),), input_names=["images"], output_names=["boxes"],
        dynamic_axes={"images": {0: "n", 1: "height", 2: "width"}, "boxes": {0: "n", 2: "anchors"}}, metadata=metadata,
    )


def graph_from_checkpoint(checkpoint: Path) -> nn.Module:
    """The detector of an Ultralytics checkpoint as a module in eval mode: uint8 NHWC RGB in, (N, 5, anchors) out. Unpickles.

    Raises UsageError where there is no file or more than one class, ModelError where it is no checkpoint, EngineError without
    ultralytics.
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        raise UsageError(f"there is no checkpoint {checkpoint}; give the path of an Ultralytics .pt file")
    try:
        import torch
        from torch import Tensor, nn

        DetectionModel = import_silently("ultralytics.nn.tasks").DetectionModel
    except ImportError as error:
        raise EngineError(f"reading a checkpoint needs {error.name}: pip install 'fer-stream[torch,build]'") from error

    class Graph(nn.Module):
        """The model with what surrounds it in every caller: layout and scale of the input."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            return self.model(images.permute(0, 3, 1, 2).float() / 255)

    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=False)
        model = (saved.get("ema") or saved["model"]).float().eval()
    except Exception as error:  # a pickle can raise anything
        reason = (str(error).splitlines() or [""])[0][:160]
        raise ModelError(f"{checkpoint} is no Ultralytics checkpoint ({type(error).__name__}: {reason}); expected a YOLO .pt") from error
    if not isinstance(model, DetectionModel) or model.model[-1].nc != 1:
        raise UsageError(f"{checkpoint} is not a detector of one class; expected a face detector, trained with single_cls=True")
    model = model.fuse(verbose=False)
    head = model.model[-1]
    head.export, head.dynamic, head.format = True, True, "onnx"
    return Graph(model).eval()
