"""A quantised model among the shipped ones: file, hash, contract and measured figures in the manifest, under its own name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from engines import load_classifier, load_detector, manifest
from engines.build.accuracy import FLOOR, detector_metrics, score_classifier
from engines.build.labelled import read_faces, read_pictures
from engines.contract import ClassifierContract
from engines.errors import UsageError
from engines.sidecar import read_sidecar


def ship(built: Path, data: Path, *, folder: Path = manifest.MODELS) -> manifest.Entry:
    """Copies what build_engine() wrote for a shipped model to `folder` as NAME_PRECISION and registers it; returns the entry.

    `data`: the labelled images that its figures are measured on. The default stays what it is (see manifest.DEFAULTS). Raises
    UsageError where it was not built from a shipped model, or for TensorRT, whose engines fit one GPU.
    """
    sidecar = read_sidecar(built)
    source = manifest.shipped(folder).get(sidecar.source)
    if source is None or sidecar.backend not in ("onnx", "openvino"):
        raise UsageError(f"only an .onnx or .xml built from a shipped model can be shipped, got {built.name}, built from {sidecar.source}")
    name = f"{source.name}_{sidecar.precision}"
    metrics: dict[str, Any]
    if isinstance(source.contract, ClassifierContract):
        faces, heads = read_faces(data, "PublicTest"), source.contract.heads
        metrics = {f"{head}_accuracy": round(score_classifier(load_classifier(built, head=head), faces), 4) for head in heads}
    else:
        metrics = detector_metrics(load_detector(built, conf=FLOOR), read_pictures(data, "val"))
    metrics["beside fp32"] = {key: sidecar.parity[key] for key in ("agreement", "max_deviation", "mean_deviation")}
    file = folder / f"{name}{built.suffix}"
    shutil.copyfile(built, file)
    if built.suffix == ".xml":
        shutil.copyfile(built.with_suffix(".bin"), file.with_suffix(".bin"))
    return manifest.register(
        name, source.task, file, source.contract, licence=source.licence, data=f"{source.data}; ranges from its training images",
        metrics=metrics,
        source={"precision": sidecar.precision, "quantised_from": source.name, "source_sha256": source.sha256,
                "made_by": f"fer-build engine {source.name} --backend {sidecar.backend} --precision {sidecar.precision} "
                "--calibration … --data … --ship"},
        folder=folder,
    )  # fmt: skip
