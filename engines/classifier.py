"""Reads expressions: crops in, calibrated probabilities out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines import fit, manifest, select
from engines.backends.base import Backend
from engines.contract import HEADS, LABELS, ClassifierContract
from engines.errors import ModelError, UsageError
from engines.onnx_file import OnnxFile, ends_in_softmax, labels_in, read_onnx
from engines.preprocess import check_image
from engines.silent import import_silently


class Classifier:
    """A loaded expression classifier. May be used from several threads. Made by load_classifier()."""

    def __init__(self, engine: Backend, entry: manifest.Entry, *, head: str = "crowd") -> None:
        contract = entry.contract
        assert isinstance(contract, ClassifierContract)
        self.entry = entry
        self.name = entry.name
        self.contract = contract
        self.backend = engine.name
        self.device = engine.device
        self.head = head
        self._engine = engine
        self._output = _output_of(engine, entry, contract.heads, head)
        self._float = self._check_input()
        self._mean, self._std = self._per_channel("mean"), self._per_channel("std")
        self._temperature = float(contract.temperature.get(head, 1.0))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of what classify() returns."""
        return self.contract.labels

    @property
    def sha256(self) -> str:
        """Of the model's file."""
        return self.entry.sha256 or self.entry.digest

    def classify(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Square BGR (H, W, 3) or grey (H, W) uint8 crops of any sizes -> (N, C) float32 probabilities, rows add up to 1.

        Columns as in `labels`; no crops give (0, C). crop_faces() makes such crops. Raises UsageError (a ValueError).
        """
        return self.infer(self.inputs(crops))

    def inputs(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Crops -> the model's batch: (N, 1, S, S) uint8 grey, or (N, 3, S, S) RGB where the contract says "rgb"."""
        import cv2

        if isinstance(crops, np.ndarray):
            hint = "for one crop pass [crop]" if crops.ndim <= 3 else "pass list(crops)"
            raise UsageError(f"classify expected a list of crops, got an array {crops.shape}; {hint}")
        if not isinstance(crops, Sequence):
            raise UsageError(f"classify expected a list of crops, got a {type(crops).__name__}; crop_faces() makes one")
        size, colour = self.contract.input_size, self.contract.colour == "rgb"
        batch = np.empty((len(crops), 3 if colour else 1, size, size), np.uint8)
        for i, crop in enumerate(crops):
            check_image(crop, f"classify (crop {i})", grey=True)
            if crop.shape[0] != crop.shape[1]:
                got = f"{crop.shape[1]}×{crop.shape[0]} (crop {i})"
                raise UsageError(f"classify expected square crops, got {got}; crop_faces() makes square ones")
            if crop.ndim == 3 and not colour:
                crop = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
            if crop.shape[0] != size:
                crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if crop.shape[0] > size else cv2.INTER_LINEAR)
            batch[i] = crop[:, :, ::-1].transpose(2, 0, 1) if crop.ndim == 3 else crop
        return batch

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """What inputs() made -> (N, C) float32: softmax(logits / temperature of the head)."""
        size, channels = self.contract.input_size, 3 if self.contract.colour == "rgb" else 1
        if not isinstance(batch, np.ndarray) or batch.dtype != np.uint8 or batch.shape[1:] != (channels, size, size):
            got = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise UsageError(f"infer expected (N, {channels}, {size}, {size}) uint8, got {got}; inputs() makes it from crops")
        if len(batch) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        answer = self._engine.infer([self._prepared(batch)])[self._output].astype(np.float32)
        if answer.shape != (len(batch), len(self.labels)):
            wanted = f"{len(self.labels)} columns: {', '.join(self.labels)}"
            raise ModelError(f"{self.name} answers {answer.shape} for {len(batch)} crops; expected {wanted}")
        return answer if self.contract.output == "probabilities" else softmax(answer / self._temperature)

    def close(self) -> None:
        """Frees the model; idempotent."""
        self._engine.close()

    def _prepared(self, batch: np.ndarray) -> np.ndarray:
        """What inputs() made -> the model's own levels and type, of the same shape."""
        return batch if self._float is None else ((batch - self._mean) / self._std).astype(self._float)

    def _check_input(self) -> Any:
        """The numpy type of a float input, None for uint8."""
        inputs = self._engine.inputs
        size, channels = self.contract.input_size, 3 if self.contract.colour == "rgb" else 1
        shape = inputs[0].shape if inputs else ()
        wanted = (None, channels, size, size)
        if len(inputs) != 1 or len(shape) != 4 or any(s not in (w, None) for s, w in zip(shape[1:], wanted[1:], strict=True)):
            got = "; ".join(f"{spec.name} {spec.shape}" for spec in inputs)
            raise ModelError(f"{self.name} takes {got}; expected one input of faces, (N, {channels}, {size}, {size})")
        dtype = np.dtype(inputs[0].dtype or np.float32)
        if dtype not in (np.uint8, np.float32, np.float16):
            raise ModelError(f"{self.name} takes {dtype} faces; expected uint8 or float")
        return None if dtype == np.uint8 else dtype.type

    def _per_channel(self, field: str) -> np.ndarray:
        """(1, C or 1, 1, 1) float32."""
        values = np.asarray(getattr(self.contract, field), np.float32).reshape(-1)
        channels = 3 if self.contract.colour == "rgb" else 1
        usable = np.isfinite(values).all() and (field == "mean" or (values > 0).all())
        if len(values) not in (1, channels) or not usable:
            wanted = "one finite number" + (" above 0" if field == "std" else "") + (", or one per channel (3)" if channels == 3 else "")
            raise ModelError(f"{self.name} has {field}={', '.join(f'{v:g}' for v in values) or 'nothing'}; expected {wanted}")
        return values.reshape(1, -1, 1, 1)


def _output_of(engine: Backend, entry: manifest.Entry, heads: Sequence[str], head: str) -> int:
    """Which of the outputs is that head. Raises UsageError where none is."""
    names = [spec.name for spec in engine.outputs]
    if head in names:
        return names.index(head)
    if head in heads and len(names) == len(heads):
        return heads.index(head)
    if len(names) == 1 and not entry.declared and head in HEADS:
        return 0  # a user's model with one output: whatever head the configuration names, it is meant
    raise UsageError(f"{entry.name} has no head {head!r}; it has {', '.join(heads if entry.declared else names)}")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, float32, safe for large values."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)


def load_classifier(
    model: str | Path | None = None, *, head: str = "crowd", backend: str = "auto", device: str = "auto", threads: int | None = None,
    precision: str | None = None, rebuild: str = "never", options: Mapping[str, Any] | None = None,
) -> Classifier:
    """Loads an expression classifier: None = the shipped one (in int8 where the CPU does that fastest), a shipped name, or a path to
    .onnx, .xml or .engine.

    `head`: "crowd" (trained on ten taggers' votes) or "fer2013" (the original labels). The rest as in load_detector. A user's
    ONNX takes (N, 1, S, S) or (N, 3, S, S) RGB, uint8 or float, and may carry in its metadata `labels` (JSON list),
    `crop_margin`, `mean`, `std` (of levels 0…255, for float inputs; one number, or a JSON list of one per channel, R, G, B);
    without labels it must have our seven columns. Metadata of an .xml is not read. Raises UsageError, ModelError, EngineError:
    one sentence each.
    """
    if backend == "fake":
        entry = manifest.Entry("fake", "classifier", Path("fake.classifier"), ClassifierContract(), sha256="fake")
    else:
        select.check(backend, device, model)
        model = select.default_model("classifier", backend, device, precision) if model is None else model
        fit.made_to_fit(model, device=device, precision=precision, rebuild=rebuild)
        entry = manifest.find(model, "classifier")
    parsed = read_onnx(entry.path) if entry.path.suffix.lower() == ".onnx" and not entry.declared else None
    entry, choice = select.for_entry(entry, backend, device, precision=precision)
    engine = select.open_backend(entry.path, choice, threads=threads, precision=precision, purpose="classifier", options=options)
    if not entry.declared and choice.backend != "fake":
        entry = dataclasses.replace(entry, contract=_contract_of(entry, engine, parsed, head))
    return Classifier(engine, entry, head=head)


def _contract_of(entry: manifest.Entry, engine: Backend, parsed: OnnxFile | None, head: str) -> ClassifierContract:
    """What can be known of a user's model, as far as answers go of that head."""
    metadata = parsed.metadata if parsed else {}
    outputs = engine.outputs
    if not engine.inputs or not outputs:
        raise ModelError(f"{entry.path} has no input or no output; it is not a classifier")
    shape = engine.inputs[0].shape
    heads = tuple(spec.name for spec in outputs)
    output, values = _output_of(engine, entry, heads, head), dict[str, Any](heads=heads)
    if len(shape) == 4:
        values["colour"] = "rgb" if shape[1] == 3 else "grey"
        values["input_size"] = shape[2] or ClassifierContract.input_size
    columns = outputs[output].shape[-1] if outputs[output].shape else None
    labels = _labels_of(entry, metadata)
    if columns is not None and columns != len(labels):
        raise ModelError(
            f"{entry.path} answers {columns} columns but names {len(labels)} labels ({', '.join(labels)}); "
            "write the labels, in the order of its output, as a JSON list into the ONNX metadata under 'labels'"
        )
    values["labels"] = labels
    for key in ("crop_margin", "mean", "std"):
        if key in metadata:
            values[key] = _numbers(entry, key, metadata[key])
    if ends_in_softmax(parsed, output) if parsed is not None else _xml_ends_in_softmax(entry.path, output):
        values["output"] = "probabilities"
    return ClassifierContract(**values)


def _labels_of(entry: manifest.Entry, metadata: dict[str, str]) -> tuple[str, ...]:
    """The file's own, or our seven where it names none. Raises ModelError for names that cannot be read, or that are there twice."""
    labels = labels_in(metadata)
    if labels is None:
        if key := next((key for key in ("labels", "names") if metadata.get(key)), None):
            wanted = 'a JSON list in the order of its output, such as ["angry", "happy"]'
            raise ModelError(f"{entry.path} has the metadata {key}={metadata[key][:80]!r}; expected {wanted}")
        return LABELS
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ModelError(f"{entry.path} names the label {twice[0]!r} twice; expected a name of its own for each column")
    return labels


def _xml_ends_in_softmax(path: Path, output: int) -> bool:
    if path.suffix.lower() != ".xml":
        return False
    node = import_silently("openvino").Core().read_model(str(path)).get_results()[output]
    while node.get_type_name() in ("Result", "Convert", "Reshape", "Squeeze", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Softmax")


def _numbers(entry: manifest.Entry, key: str, text: str) -> float | tuple[float, ...]:
    """A number, or several in brackets or without, for `mean` and `std`."""
    several = key != "crop_margin"
    try:
        numbers = tuple(float(number) for number in text.strip().strip("[]()").split(","))
    except ValueError:
        numbers = ()
    if not numbers or not (several or (len(numbers) == 1 and 0 < numbers[0] < math.inf)):
        wanted = "a number, or a list of one per channel" if several else "a number above 0"
        raise ModelError(f"{entry.path} has the metadata {key}={text!r}; expected {wanted}")
    return numbers[0] if len(numbers) == 1 else numbers
