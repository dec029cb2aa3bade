"""Every setting there is: unit, default, meaning. Unknown keys are refused with the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from engines.errors import UsageError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_by_yes_or_no(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads "on" and "yes" as true, which pydantic would take for 1."""
        if isinstance(value, bool) and info.field_name and cls.model_fields[info.field_name].annotation is not bool:
            raise PydanticCustomError("no_switch", "a value is expected, not yes or no")
        return value


class Detect(_Section):
    """Finding faces."""

    model: str = Field("auto", description="auto: the shipped one, in int8 where the CPU does that fastest; a shipped name, or a path")
    imgsz: int = Field(640, ge=64, le=4096, description="longer side of the detector's input, pixels, a multiple of 32")
    conf: float | None = Field(None, gt=0, lt=1, description="score that starts a track; the model's manifest where not given")
    floor: float = Field(0.1, gt=0, lt=1, description="lowest score that may continue a track")
    interval: int = Field(1, ge=1, le=100, description="detect on every n-th frame; boxes between are carried")
    keep_up: bool = Field(True, description="live sources: frames that come late are carried, too, before any is dropped")
    max_faces: int = Field(1000, ge=1, description="most faces of a frame")
    threads: int | None = Field(None, ge=1, description="CPU threads of the detector; all cores where not given")
    parallel: int | None = Field(
        None, ge=1, le=64, description="pictures that share those threads; where not given one a core, at most 4, and 1 for live sources"
    )


class Decode(_Section):
    """Reading videos and streams."""

    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, or cuda, cuda:0 …: the decoder of an NVIDIA GPU (NVDEC)")


class Track(_Section):
    """Following faces."""

    lost_s: float = Field(1.0, ge=0, description="a face unseen for longer is another track when it comes back, seconds")
    faint_s: float = Field(0.5, ge=0, description="how long detections below `detect.conf` alone may carry a track, seconds")
    mature: int = Field(2, ge=2, description="detections in a row before a face gets an id")
    iou: float = Field(0.1, ge=0, le=1, description="least overlap of a prediction and a detection")
    lookahead: int = Field(12, ge=0, le=300, description="frames held back to give ids and bridge gaps (files only)")
    min_size: float = Field(12, ge=0, description="longer side of a box that starts a track, pixels")


class Classify(_Section):
    """Reading expressions."""

    model: str = Field("auto", description="auto: the shipped one, in int8 where the CPU does that fastest; a shipped name, or a path")
    head: Literal["crowd", "fer2013"] = Field("crowd", description="labels of ten taggers, or FER2013's own")
    max_faces: int = Field(8, ge=1, description="budget: most crops classified per frame; pictures: all")
    max_age_s: float = Field(0.0, ge=0, description="a track classified more recently than this is not classified again")
    threads: int = Field(1, ge=1, description="CPU threads of the classifier")
    min_quality: float = Field(0.15, ge=0, le=1, description="crops below say nothing and are not classified")


class Smooth(_Section):
    """Expressions over time."""

    tau_s: float = Field(0.2, ge=0, description="time constant of the kernel, seconds")
    margin: float = Field(0.05, ge=0, le=1, description="lead in probability that a new label needs")
    dwell_s: float = Field(0.1, ge=0, description="how long it must lead, seconds")
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="top probability below which the label is uncertain; the model's where not given"
    )
    hold_s: float = Field(1.0, ge=0, description="seconds without a crop that can be read until the label is uncertain")


class Live(_Section):
    """Cameras and streams."""

    max_age_s: float = Field(1.0, gt=0, description="frames older than this are dropped, seconds")
    lane: int = Field(2, ge=1, description="frames that wait, the oldest gives way")
    open_timeout_s: float = Field(5.0, gt=0)
    read_timeout_s: float = Field(3.0, gt=0)
    connect_timeout_s: float = Field(10.0, gt=0, description="the run ends when no source has connected by then")
    backoff_s: float = Field(0.5, gt=0, description="pause before the first try again; doubles up to backoff_max_s")
    backoff_max_s: float = Field(10.0, gt=0)
    max_wait_s: float = Field(0.02, ge=0, description="how long a batch waits for the other cameras")


class Video(_Section):
    """The annotated video."""

    codec: str = Field("h264", description="h264, hevc, av1, or a machine's own encoder (h264_nvenc, hevc_qsv …)")
    preset: str = Field("ultrafast", description="speed in x264's words, ultrafast … veryslow; other encoders get what comes closest")
    crf: int = Field(23, ge=0, le=51, description="quality in x264's numbers, lower is better")
    top_k: int = Field(3, ge=0, le=7, description="probabilities shown per face")


class Config(_Section):
    """A whole run."""

    backend: Literal["auto", "openvino", "torch", "onnxruntime", "tensorrt", "tensorrt-rtx", "fake"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda:0 …")
    rebuild: Literal["never", "auto"] = Field("never", description="auto: a TensorRT engine that does not fit this machine is built anew")
    max_batch: int | None = Field(
        None, ge=1, description="most frames a batch; else detect.parallel, files × 4 (× 8 up to 320 px) or × 2 × interval, 16 on CUDA"
    )
    stride: int = Field(1, ge=1, description="every n-th frame is processed, the others are dropped")
    privacy: Literal["none", "blur"] = Field("none", description="blur: a mosaic over every face before anything is shown or written")
    purpose: str = Field("", description="why faces are analysed; goes into every output's metadata")
    decode: Decode = Decode()
    detect: Detect = Detect()
    track: Track = Track()
    classify: Classify = Classify()
    smooth: Smooth = Smooth()
    live: Live = Live()
    video: Video = Video()

    @field_validator("purpose")
    @classmethod
    def _as_text(cls, purpose: str) -> str:
        """A command line holds bytes, and what is no UTF-8 of them has no place in a video or a table."""
        return purpose.encode(errors="backslashreplace").decode()


def load_config(path: Path | None = None, changes: dict[str, Any] | None = None) -> Config:
    """Defaults, then the YAML file, then `changes` ("detect.conf": 0.5). Raises UsageError with one sentence."""
    values = {} if path is None else read_yaml(path)
    for dotted, value in (changes or {}).items():
        section = values
        *parents, last = dotted.split(".")
        for parent in parents:
            section = section.setdefault(parent, {}) if isinstance(section, dict) else {}
            if section is None or not isinstance(section, dict):
                raise UsageError(f"{parent} in {dotted} is not a section of the configuration")
        section[last] = value
    try:
        return Config(**values)
    except ValidationError as error:
        raise UsageError(_sentence(error)) from error
    except TypeError as error:
        raise UsageError(f"configuration keys must be text: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a file, not checked yet. Raises UsageError with one sentence."""
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} must be a mapping of settings, got a {type(values).__name__}")
    return values


def settings_from_changes(changes: Iterable[str]) -> dict[str, Any]:
    """("KEY=VALUE", …) as on the command line -> {KEY: value}, values as YAML reads them. Raises UsageError with one sentence."""
    settings: dict[str, Any] = {}
    for change in changes:
        key, sep, value = change.partition("=")
        if not sep or not key:
            raise UsageError(f"--set {change} is not KEY=VALUE; e.g. --set smooth.tau_s=0.4")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {change}: the value is not valid YAML") from error
    return settings


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{where} in the configuration: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}"
    model: Any = Config
    for part in first["loc"][:-1]:
        model = model.model_fields[part].annotation
    known, last = list(model.model_fields), str(first["loc"][-1])
    near = difflib.get_close_matches(last, known, 1, 0.5)
    near = [".".join([*map(str, first["loc"][:-1]), *near])] if near else difflib.get_close_matches(last, _all_keys(), 1, 0.7)
    return f"unknown setting {where}; " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}")


def _all_keys() -> list[str]:
    keys = []
    for name, info in Config.model_fields.items():
        nested = getattr(info.annotation, "model_fields", None)
        keys += [f"{name}.{inner}" for inner in nested] if nested else [name]
    return keys


def find_config(name: Path | None) -> Path | None:
    """A file as given, or one of the shipped presets by name ("webcam")."""
    if name is None or name.exists() or name.suffix:
        return name
    here = Path(__file__).resolve().parent
    for folder in (here / "presets", here.parent / "configs"):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise UsageError(f"there is no configuration {name}; give a YAML file, or one of: webcam, rtsp, batch, gpu")
