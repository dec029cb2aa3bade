"""Finds faces: images in, boxes out. `detect()` for pictures, `infer()` for a video's stage; the first ends in the second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from engines import fit, manifest, select
from engines.backends.base import Backend
from engines.contract import DetectorContract
from engines.errors import EngineError, ModelError, UsageError
from engines.onnx_file import read_onnx
from engines.preprocess import LetterboxGeometry, check_image, fuse, letterbox, letterbox_geometry, nms, unletterbox, vote

if TYPE_CHECKING:
    import supervision as sv

MAX_FACES = 1000
"""Most boxes of an image."""
_AT_A_TIME = 16
"""Pictures of one shape that detect() sends to the model together."""
_VOTERS = 0.1
"""Score from which a box shifts others' edges, so that they do not depend on how low a floor is asked for."""

_WANTED = "(N, 5, anchors), a YOLO detector of one class without NMS, or a YuNet file"


class Detector:
    """A loaded face detector. May be used from several threads. Made by load_detector()."""

    def __init__(
        self, engine: Backend, entry: manifest.Entry, *, conf: float | None = None, imgsz: int | None = None,
        iou: float | None = None, floor: float | None = None,
    ) -> None:
        contract = entry.contract
        assert isinstance(contract, DetectorContract)
        self.entry = entry
        self.name = entry.name
        self.contract = contract
        self.backend = engine.name
        self.device = engine.device
        self.conf = _fraction("conf", contract.conf if conf is None else conf)
        """Score from which detect() counts a box as a face."""
        self.floor = self.conf if floor is None else _fraction("floor", floor)
        """Score from which infer() returns a box, unless told otherwise."""
        self.iou = _fraction("iou", contract.iou if iou is None else iou)
        self.imgsz = contract.imgsz if imgsz is None else imgsz
        self._engine = engine
        self._layout()
        self.geometry(16, 9)  # a wrong imgsz shows here, not at the first frame

    @property
    def sha256(self) -> str:
        """Of the model's file."""
        return self.entry.sha256 or self.entry.digest

    def geometry(self, width: int, height: int) -> LetterboxGeometry:
        """How an image of that size lies in this model's input: rectangular, or the one size that the model takes."""
        return letterbox_geometry(width, height, self.imgsz, self.contract.stride, self._fixed)

    @overload
    def detect(self, images: np.ndarray, *, mirror: bool | None = None) -> sv.Detections: ...
    @overload
    def detect(self, images: Sequence[np.ndarray], *, mirror: bool | None = None) -> list[sv.Detections]: ...
    def detect(self, images: Any, *, mirror: bool | None = None) -> Any:
        """(H, W, 3) uint8 BGR -> sv.Detections, best first; a list of images, of any sizes -> a list.

        `xyxy` float32 in pixels of the image, inside of it; `confidence` float32, at least `conf`; `class_id` zeros. At most
        1,000 faces an image. `mirror`: look at each a second time, mirrored, which finds more small faces in twice the time; None: where
        the model's contract says so; False: once, as at a frame of a video. Raises UsageError (a ValueError) for what is not an image.
        """
        if isinstance(images, list | tuple):
            for i, image in enumerate(images):
                check_image(image, f"detect (image {i} of the list)")
            return self._detect(images, mirror)
        check_image(images, "detect")
        return self._detect([images], mirror)[0]

    def infer(self, batch: np.ndarray, floor: float | None = None, *, still: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
        """(N, H, W, 3) uint8 RGB, letterboxed -> per image ((K, 4) float32 xyxy in input pixels, (K,) float32 confidence).

        After NMS, best first, at most 1,000 each. `floor` is the lowest score returned. `still`: pictures, not frames of a video: as
        detect() does, nothing is compiled for their shape, and where the contract says so each is looked at twice. H and W are
        multiples of the contract's stride. Raises UsageError for another shape or type, EngineError where the backend fails.
        """
        stride = self.contract.stride
        if not isinstance(batch, np.ndarray) or batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
            got = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise UsageError(f"infer expected a batch (N, H, W, 3) uint8 RGB, got {got}; letterbox() makes one image of it")
        if batch.shape[1] % stride or batch.shape[2] % stride or not batch.shape[1] * batch.shape[2]:
            raise UsageError(f"infer expected sides that are multiples of {stride}, got {batch.shape[2]}×{batch.shape[1]}; use letterbox()")
        if len(batch) == 0:
            return []
        floor = self.floor if floor is None else _fraction("floor", floor)
        return self._look(batch, floor, self.contract.mirror) if still else self._infer(batch, floor)

    def close(self) -> None:
        """Frees the model; idempotent."""
        self._engine.close()

    def _detect(self, images: Sequence[np.ndarray], mirror: bool | None) -> list[sv.Detections]:
        import supervision as sv

        geometries = [self.geometry(image.shape[1], image.shape[0]) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, g in enumerate(geometries):
            groups.setdefault((g.input_width, g.input_height), []).append(i)
        found: list[Any] = [None] * len(images)
        for members in groups.values():
            for start in range(0, len(members), _AT_A_TIME):
                part = members[start : start + _AT_A_TIME]
                batch = np.stack([letterbox(images[i], geometries[i]) for i in part])
                answers = self._infer(batch, self.conf) if mirror is False else self._look(batch, self.conf, mirror or self.contract.mirror)
                for i, (xyxy, confidence) in zip(part, answers, strict=True):
                    height, width = images[i].shape[:2]
                    boxes = unletterbox(xyxy, geometries[i], width, height)
                    real = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)  # one that lay in the border has no pixel left
                    found[i] = sv.Detections(boxes[real], confidence=confidence[real], class_id=np.zeros(int(real.sum()), int))
        return found

    def _look(self, batch: np.ndarray, floor: float, mirror: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """At still pictures: once, or also mirrored."""
        if not mirror:
            return self._infer(batch, floor, still=True)
        lower = floor / 4  # what one look finds keeps half of its score, so that what the other barely sees counts, too
        fused = []
        views = (self._infer(np.ascontiguousarray(view), lower, still=True) for view in (batch, batch[:, :, ::-1]))
        for first, (boxes, scores) in zip(*views, strict=True):
            back = np.stack([batch.shape[2] - boxes[:, 2], boxes[:, 1], batch.shape[2] - boxes[:, 0], boxes[:, 3]], 1)
            xyxy, confidence = fuse(first, (back, scores), self.iou)
            good = confidence >= floor
            fused.append((xyxy[good], confidence[good]))
        return fused

    def _prepared(self, batch: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB -> the model's own layout, levels and type."""
        batch = batch.transpose(0, 3, 1, 2) if self._channels_first else batch
        return batch if self._float is None else batch.astype(self._float) / self._float(255)

    def _infer(self, batch: np.ndarray, floor: float, *, still: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
        run = getattr(self._engine, "infer_any_shape", self._engine.infer) if still else self._engine.infer
        raw = run([self._prepared(batch)])[0]
        if raw.ndim != 3 or raw.shape[1] != 5:
            raise ModelError(f"{self.name} answers {raw.shape}; expected {_WANTED}")
        return [self._decode(one, floor) for one in raw]

    def _decode(self, raw: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
        """(5, anchors) -> boxes and scores."""
        good = (raw[4] >= floor) & np.isfinite(raw).all(0)
        x, y, w, h, scores = raw[:, good].astype(np.float32)
        xyxy = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
        kept = nms(xyxy, scores, self.iou, MAX_FACES)
        voters = scores >= _VOTERS
        boxes = vote(xyxy[kept], xyxy[voters], scores[voters], self.contract.vote) if self.contract.vote else xyxy[kept]
        return boxes, scores[kept]

    def _layout(self) -> None:
        """What the model's input looks like: ours, or that of an Ultralytics export ((N, 3, H, W) float 0…1)."""
        inputs, outputs = self._engine.inputs, self._engine.outputs
        shape = inputs[0].shape if inputs else ()
        if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
            got = "; ".join(f"{spec.name} {_shown(spec.shape)}" for spec in inputs)
            raise ModelError(f"{self.name} takes {got}; expected one input of images, (N, H, W, 3) uint8 or (N, 3, H, W) float")
        if len(outputs) != 1 or (outputs[0].shape and (len(outputs[0].shape) != 3 or outputs[0].shape[1] not in (5, None))):
            got = "; ".join(f"{spec.name} {_shown(spec.shape)}" for spec in outputs)
            raise ModelError(f"{self.name} answers {got}; expected {_WANTED}")
        dtype = np.dtype(inputs[0].dtype or np.float32)
        if dtype not in (np.uint8, np.float32, np.float16):
            raise ModelError(f"{self.name} takes {dtype} images; expected uint8 or float")
        self._channels_first = shape[3] != 3
        self._float: Any = None if dtype == np.uint8 else dtype.type
        height, width = shape[2:4] if self._channels_first else shape[1:3]
        self._fixed = (width, height) if width and height else None


class YunetDetector(Detector):
    """YuNet (Wu et al. 2023) through cv2.FaceDetectorYN, which holds state: one call at a time."""

    def _layout(self) -> None:
        self._fixed = None

    def _infer(self, batch: np.ndarray, floor: float, *, still: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
        return self._engine.find(batch, floor, self.iou)  # type: ignore[attr-defined]


class YunetEngine:
    """The part of YunetDetector that a Backend is elsewhere."""

    name = "opencv"
    device = "cpu"

    def __init__(self, path: Path) -> None:
        import threading

        import cv2

        self._lock = threading.Lock()
        try:
            self._net: Any = cv2.FaceDetectorYN.create(str(path), "", (320, 320))
        except cv2.error as error:
            reason = (str(error).splitlines() or [""])[0][:160]
            raise ModelError(f"OpenCV cannot read {path} as a YuNet ({reason}); give a face_detection_yunet .onnx") from error

    def find(self, batch: np.ndarray, floor: float, iou: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """As Detector.infer."""
        import cv2

        answers = []
        with self._lock:
            if self._net is None:
                raise EngineError("YuNet was closed and can no longer be run; load it again")
            self._net.setInputSize((batch.shape[2], batch.shape[1]))
            self._net.setScoreThreshold(floor)
            self._net.setNMSThreshold(iou)
            for image in batch:
                try:
                    _, faces = self._net.detect(np.ascontiguousarray(image[:, :, ::-1]))
                except cv2.error as error:
                    raise EngineError(f"OpenCV failed on YuNet: {str(error).splitlines()[0][:160]}") from error
                faces = np.zeros((0, 15), np.float32) if faces is None else faces
                faces = faces[np.argsort(-faces[:, 14], kind="stable")][:MAX_FACES]
                answers.append((np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4]], 1).astype(np.float32), faces[:, 14].copy()))
        return answers

    def close(self) -> None:
        with self._lock:
            self._net = None


def load_detector(
    model: str | Path | None = None, *, conf: float | None = None, imgsz: int | None = 640, backend: str = "auto",
    device: str = "auto", iou: float | None = None, floor: float | None = None, threads: int | None = None,
    precision: str | None = None, requests: int = 1, unsafe_pickle: bool = False, rebuild: str = "never",
    options: Mapping[str, Any] | None = None,
) -> Detector:
    """Loads a face detector: None = the shipped one (in int8 where the CPU does that fastest, see select.default_model), a shipped
    name, or a path to .onnx, .xml, .engine, or a YuNet's or SCRFD's .onnx.

    `conf`: score from which a box is a face, None = the model's own. `imgsz`: longer side of the input, pixels, a multiple of
    32. `backend`: auto, openvino, torch, onnxruntime, tensorrt, tensorrt-rtx, fake. `device`: auto, cpu, cuda:N. `iou`: NMS
    overlap. `floor`: lowest score of infer(). `threads`: CPU threads. `precision`: f32, bf16, f16, None = the fastest. `requests`:
    pictures of a batch that run side by side, each on its share of the threads.
    `unsafe_pickle`: also read an Ultralytics .pt, which runs whatever code it holds. `rebuild`: "auto" builds an .engine that does
    not fit this machine anew, "never" says what differs and the command. `options`: the backend's own, such as
    {"compile": True} for torch. Raises UsageError, ModelError, EngineError: one sentence each.
    """
    if imgsz is not None:
        select.check_count("imgsz", imgsz)
    settings: dict[str, Any] = {"conf": conf, "imgsz": imgsz, "iou": iou, "floor": floor}
    if backend == "fake":
        entry = manifest.Entry("fake", "detector", Path("fake.detector"), DetectorContract(), sha256="fake")
        return Detector(select.open_backend(entry.path, select.choose(backend, device), purpose="detector"), entry, **settings)
    select.check(backend, device, model)
    model = select.default_model("detector", backend, device, precision) if model is None else model
    fit.made_to_fit(model, device=device, precision=precision, imgsz=imgsz, rebuild=rebuild)
    entry = manifest.find(model, "detector", unsafe_pickle=unsafe_pickle)
    from engines.scrfd import ScrfdDetector, is_scrfd, scrfd_entry  # imports this module

    if entry.path.suffix.lower() == ".onnx" and not entry.declared:
        parsed = read_onnx(entry.path)
        if {"cls_8", "obj_8", "bbox_8"} <= {tensor.name for tensor in parsed.outputs} or "yunet" in entry.path.name.lower():
            return _yunet(entry, backend, device, settings)
        if is_scrfd(parsed):
            entry = scrfd_entry(entry)
    assert isinstance(entry.contract, DetectorContract)
    entry, choice = select.for_entry(entry, backend, device, precision=precision, imgsz=imgsz or entry.contract.imgsz)
    engine = select.open_backend(
        entry.path, choice, threads=threads, precision=precision, requests=requests, purpose="detector", options=options
    )
    kind = ScrfdDetector if isinstance(entry.contract, DetectorContract) and entry.contract.kind == "scrfd" else Detector
    return kind(engine, entry, **settings)


def _yunet(entry: manifest.Entry, backend: str, device: str, settings: dict[str, Any]) -> Detector:
    import dataclasses

    if backend != "auto" or device not in ("auto", "cpu"):
        raise EngineError(f"YuNet runs through OpenCV on the CPU only, got backend {backend!r}, device {device!r}; leave both at auto")
    contract = DetectorContract(kind="yunet", conf=0.7, iou=0.3)
    select.log.info("detector %s runs on opencv, cpu (YuNet)", entry.path.stem)
    return YunetDetector(YunetEngine(entry.path), dataclasses.replace(entry, contract=contract), **settings)  # type: ignore[arg-type]


def _fraction(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not (math.isfinite(value) and 0 < value < 1):
        raise UsageError(f"{name} must be a number between 0 and 1, got {value!r}")
    return float(value)


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"
