"""Which models there are: the shipped ones by name, a user's own by path; what each eats, whence it comes, its SHA-256.

`engines/models/manifest.json` is the list. A name that is not in it, a file whose hash differs, a pickle nobody vouched
for: each is an error with one sentence, found before any runtime opens the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.contract import SOUND, ClassifierContract, DetectorContract
from engines.errors import ModelError, UsageError

MODELS = Path(__file__).parent / "models"
TASKS = ("detector", "classifier")
DEFAULTS = {"detector": "yolo11n_face", "classifier": "emotion_cnn"}
"""What `model=None` means."""
INT8 = {"yolo11n_face": "yolo11n_face_int8", "emotion_cnn": "emotion_cnn_int8"}
"""A default's twin in int8 that answers as well; what `auto` takes instead on CPUs that are fastest at int8 (see outdated_twin)."""
SUFFIXES = (".onnx", ".xml", ".engine", ".pt")
_CONTRACTS: dict[str, Any] = {"detector": DetectorContract, "classifier": ClassifierContract}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model: its file and everything said about it."""

    name: str
    task: str
    """"detector" or "classifier"."""
    path: Path
    contract: DetectorContract | ClassifierContract
    sha256: str = ""
    """Of the file as it should be; empty for a user's own file until `digest` is asked."""
    licence: str = ""
    data: str = ""
    """What it was trained on."""
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How it was made: commit, checkpoint, export."""
    shipped: bool = False
    declared: bool = False
    """Its contract came with it: it is shipped, or `fer-build engine` made it."""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the file as it is."""
        return sha256_of(self.path)

    @property
    def size(self) -> int:
        """Bytes, with an OpenVINO .xml's .bin. Raises OSError where the file is missing."""
        weights = self.path.with_suffix(".bin")
        return self.path.stat().st_size + (weights.stat().st_size if self.path.suffix == ".xml" and weights.is_file() else 0)


def sha256_of(path: Path) -> str:
    """Hex digest of a file (of an OpenVINO .xml: of it and its .bin). Raises ModelError where it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        weights = path.with_suffix(".bin")
        if path.suffix == ".xml" and weights.is_file():
            digest.update(weights.read_bytes())
        return digest.hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; reinstall fer-stream or give another path") from error


def shipped(folder: Path = MODELS) -> dict[str, Entry]:
    """All entries of a manifest by name, sorted. Raises ModelError where manifest.json is missing or not valid."""
    path = folder / "manifest.json"
    try:
        models = json.loads(path.read_text(encoding="utf-8"))["models"]
        return {name: _entry(name, models[name], folder) for name in sorted(models)}
    except OSError as error:
        raise ModelError(f"cannot read the list of models {path}: {error.strerror}; reinstall fer-stream") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is not a valid list of models ({type(error).__name__}: {error}); reinstall fer-stream") from error


def outdated_twin(name: str, folder: Path = MODELS) -> str:
    """Why a model's twin in int8 does not stand for it, and what makes it anew; empty where it does, or where there is none."""
    models = shipped(folder)
    model, twin = models.get(name), models.get(INT8.get(name, ""))
    if model is None or twin is None or twin.source.get("source_sha256") == model.sha256:
        return ""
    again = twin.source.get("made_by", f"fer-build engine {name} --precision int8 --calibration … --data … --ship")
    return f"{twin.name} was made of other weights than those of {name}, which runs in its place; make it anew: {again}"


def _entry(name: str, values: dict[str, Any], folder: Path) -> Entry:
    values = dict(values)
    contract = contract_from(values["task"], values.pop("contract"))
    path = folder / values.pop("file")
    if path.resolve().parent != folder.resolve():
        raise ValueError(f"the file of {name} lies outside of the models' folder")
    return Entry(name=name, path=path, contract=contract, shipped=True, declared=True, **values)


def contract_from(task: str, values: Mapping[str, Any]) -> DetectorContract | ClassifierContract:
    """A contract from JSON: lists become tuples. TypeError for an unknown field, ValueError for a value that makes no sense."""
    contract: DetectorContract | ClassifierContract = _CONTRACTS[task](
        **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )
    for key, value in vars(contract).items():
        wanted, sound = SOUND[key]
        if not sound(value):
            raise ValueError(f"{key} is {value!r}, expected {wanted}")
    return contract


def register(
    name: str, task: str, file: Path, contract: DetectorContract | ClassifierContract, *, licence: str, data: str,
    metrics: Mapping[str, Any] | None = None, source: Mapping[str, Any] | None = None, folder: Path = MODELS,
) -> Entry:
    """Writes or replaces one entry of `folder`/manifest.json; `file` must lie in `folder`. Returns the entry.

    The JSON is sorted and indented, so that the same models give the same bytes.
    """
    file = Path(file)
    if task not in TASKS or not isinstance(contract, _CONTRACTS[task]):
        raise UsageError(f"task must be one of {', '.join(TASKS)} with its own contract, got {task!r} and {type(contract).__name__}")
    if file.resolve().parent != folder.resolve():
        raise UsageError(f"{file} must lie in {folder} to be registered; export it there")
    path = folder / "manifest.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"version": 1, "models": {}}
    content["models"][name] = {
        "task": task, "file": file.name, "sha256": sha256_of(file), "licence": licence, "data": data,
        "metrics": dict(metrics or {}), "source": dict(source or {}), "contract": dataclasses.asdict(contract),
    }
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return shipped(folder)[name]


def find(model: str | Path | None, task: str, *, unsafe_pickle: bool = False, folder: Path = MODELS) -> Entry:
    """The entry for what a user wrote: None (the default), a shipped name, or a path. A copy of a shipped model is known by its
    bytes, wherever it lies, and read as that one is; so is what a manifest.json beside the file lists (`fer-train reproduce --output`).

    Raises UsageError for a name nobody knows, a path that is not there, a pickle without `unsafe_pickle`; ModelError where a
    shipped file is missing or not the one that was released.
    """
    ours = shipped(folder)
    known = {name: entry for name, entry in ours.items() if entry.task == task}
    name = DEFAULTS[task] if model is None else str(model)
    if name in known:
        return _verified(known[name])
    if model is None:
        raise ModelError(f"this copy of fer-stream ships no {task} {name}; give a path to one, or reinstall")
    if not isinstance(model, str | Path) or not name.strip():
        raise UsageError(f"model must be a shipped name or a path, got {model!r}")
    other = ours.get(name)
    if other is not None:
        raise UsageError(f"{name} is a {other.task}, and a {task} was asked for; shipped: {', '.join(known) or 'none'}")
    path = Path(name).expanduser()
    if path.suffix.lower() not in SUFFIXES and not path.exists():
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else "a path must end in .onnx, .xml, .engine or .pt"
        raise UsageError(f"unknown {task} {name!r}; shipped: {', '.join(known) or 'none'}; {hint}")
    own = _users(path, task, unsafe_pickle)
    if own.declared:
        return own
    for entry in (*known.values(), *_listed_beside(path, task)):
        if entry.path.is_file() and entry.size == own.size and entry.sha256 == own.digest:  # the size is asked first: hashing takes long
            return dataclasses.replace(entry, name=own.name, path=path, shipped=False)
    return own


def _listed_beside(path: Path, task: str) -> list[Entry]:
    """What the list of models in a file's own folder says; another program's manifest.json says nothing."""
    try:
        return [entry for entry in shipped(path.parent).values() if entry.task == task]
    except ModelError:
        return []


def _verified(entry: Entry) -> Entry:
    if entry.digest != entry.sha256:
        raise ModelError(
            f"{entry.path} is not the released {entry.name} (SHA-256 {entry.digest[:12]}…, expected {entry.sha256[:12]}…); "
            "reinstall fer-stream, or give your own model by its path"
        )
    return entry


def _users(path: Path, task: str, unsafe_pickle: bool) -> Entry:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the model's file, .onnx or .xml")
    if not path.is_file():
        raise UsageError(f"there is no model {path}; check the path, or give a shipped name (fer-build list)")
    suffix = path.suffix.lower()
    if suffix in (".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"):
        raise UsageError(f"{path} looks like a pickle, which can run code; give an .onnx or .xml (fer-build export makes one)")
    if suffix not in SUFFIXES:
        raise UsageError(f"{path} is not a model that can be run; expected .onnx, OpenVINO .xml, .engine, or .pt")
    if suffix == ".pt" and (task != "detector" or not unsafe_pickle):
        advice = "convert it once with: fer-build export detector" if task == "detector" else "export it to .onnx"
        vouch = "; if you trust whoever made it, pass --unsafe-pickle (unsafe_pickle=True)" if task == "detector" else ""
        raise UsageError(f"{path} is a pickled checkpoint and loading it would run whatever code it holds; {advice}{vouch}")
    if suffix == ".engine" or sidecar_of(path).is_file():
        return _built(path, task)
    return Entry(name=path.name, task=task, path=path, contract=_CONTRACTS[task]())


def sidecar_of(path: Path) -> Path:
    """Where `fer-build engine` describes what it built."""
    return path.with_name(f"{path.name}.json")


def _built(path: Path, task: str) -> Entry:
    """What `fer-build engine` made carries its model's contract in the .json beside it."""
    from engines.sidecar import build_command, check_source, read_sidecar

    sidecar = read_sidecar(path)
    source = shipped().get(sidecar.source)
    if source is not None:
        check_source(path, sidecar, source.sha256)
    if sidecar.task != task:
        raise UsageError(f"{path} is a {sidecar.task}, and a {task} was asked for; give another file")
    try:
        contract = contract_from(task, sidecar.contract)
    except (TypeError, ValueError) as error:
        anew = build_command(path, sidecar)
        raise ModelError(f"the .json beside {path} holds no contract of a {task} ({error}); build it anew: {anew}") from error
    return Entry(name=path.name, task=task, path=path, contract=contract, sha256=sidecar.sha256, declared=True)
