"""What `fer-stream config` and `fer-stream models` print. Text in, text out; nothing is opened but the lists themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from pipeline.config import Config, load_config, read_yaml


def config_yaml(path: Path | None, changes: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """The effective configuration as YAML that `--config` reads; behind each value where it comes from and what it means.

    `path`: the file that was given; `changes`: dotted key → value, as load_config takes them; `origins`: dotted key → the option
    that said it. Raises UsageError as load_config.
    """
    config = load_config(path, dict(changes))
    in_file = _dotted(read_yaml(path)) if path else set()

    def line(key: str, name: str, value: Any, description: str | None, indent: str) -> str:
        origin = origins.get(key) or (str(path) if key in in_file else "default")
        text = f"{indent}{name}: {_scalar(value)}"
        return f"{text:<32}# {origin}" + (f"; {description}" if description else "")

    lines = []
    for name, field in Config.model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            lines.append(f"{name}:")
            lines += [line(f"{name}.{inner}", inner, getattr(value, inner), about.description, "  ")
                      for inner, about in type(value).model_fields.items()]  # fmt: skip
        else:
            lines.append(line(name, name, value, field.description, ""))
    return "\n".join(lines)


def models() -> list[dict[str, Any]]:
    """The shipped models: name, task, default (here), file, bytes, licence, data, metrics, sha256, state: ok, changed, missing."""
    from engines import manifest, select
    from engines.errors import ModelError

    defaults = [select.default_model(task) for task in manifest.TASKS]
    found = []
    for entry in manifest.shipped().values():
        try:
            state, size = "ok" if entry.digest == entry.sha256 else "changed", entry.size
        except ModelError:
            state, size = "missing", None
        found.append({
            "name": entry.name, "task": entry.task, "default": entry.name in defaults, "file": str(entry.path),
            "bytes": size, "licence": entry.licence, "data": entry.data, "metrics": dict(entry.metrics), "sha256": entry.sha256,
            "state": state,
        })  # fmt: skip
    return found


def models_text(found: list[dict[str, Any]]) -> str:
    """For people."""
    again = "it will not be loaded; reinstall fer-stream"
    said = {"ok": "as released", "changed": f"CHANGED: {again}", "missing": f"MISSING: {again}"}
    blocks = []
    for model in found:
        size = "" if model["bytes"] is None else f", {model['bytes'] / 1e6:.1f} MB"
        blocks.append("\n".join([
            f"{model['name']}  ({model['task']}{', the default' if model['default'] else ''}{size})",
            f"  licence  {model['licence']}",
            f"  data     {model['data']}",
            *(f"  metric   {name}: {value}" for name, value in _flat(model["metrics"])),
            f"  sha256   {model['sha256']}  {said[model['state']]}",
        ]))  # fmt: skip
    return "\n\n".join(blocks)


def _flat(metrics: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        pairs += _flat(value, f"{before}{name}, ") if isinstance(value, Mapping) else [(before + name, value)]
    return pairs


def _dotted(values: Mapping[str, Any]) -> set[str]:
    return {f"{name}.{inner}" for name, value in values.items() if isinstance(value, Mapping) for inner in value} | set(values)


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True, width=1000).removesuffix("...\n").strip()
