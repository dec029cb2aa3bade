"""int8 in OpenVINO's own form: NNCF on the network as OpenVINO reads it, with FakeQuantize instead of Q/DQ pairs.

OpenVINO 2026.4 answers the shipped detector with Q/DQ pairs, signed or not, as if at random (its confidences correlate by .1 at most
with those of fp32; ONNX Runtime's, of the same file, by .998), so for OpenVINO that graph is not the one to take. Here activations may be
asymmetric, too, which TensorRT forbids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.build import int8_from_onnx
from engines.errors import EngineError
from engines.silent import import_silently

KEPT = {
    "detector": (r".*/model\.23/(?!cv).*", r"^/(Div|Transpose|Cast).*", r".*/model\.0/.*", r".*/model\.23/cv3.*"),
    "classifier": int8_from_onnx.KEPT["classifier"],
}
"""Nodes that stay in floating point, by regular expression: of the detector the arithmetic before its first and after its last
convolution, the first convolution and the class branch. AP50 from 8, 16, 32, 64 px on faces/val .683 .840 .926 .953, bf16 .688 .845
.928 .956; with the last two in int8 as well .680 .837 .921 .946, for 6.4 instead of 6.8 ms a picture on one core (bf16 9.8)."""


def int8_for_openvino(source: Path, path: Path, samples: Sequence[np.ndarray], *, kept: Sequence[str] = ()) -> Path:
    """Quantises `source` (.onnx) with `samples`, each a batch for its input, and writes `path` (.xml, and .bin); returns it.

    `kept`: see KEPT; how many samples, see calibration.SAMPLES. Raises EngineError without nncf.
    """
    try:
        nncf = import_silently("nncf")
    except ImportError as error:
        raise EngineError(f"making int8 models needs {error.name}: pip install 'fer-stream[build]'") from error
    openvino = import_silently("openvino")
    model = nncf.quantize(
        openvino.Core().read_model(str(source)), nncf.Dataset(samples), subset_size=len(samples), preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(patterns=list(kept), validate=False) if kept else None,
    )  # fmt: skip
    openvino.save_model(model, str(path))
    return path
