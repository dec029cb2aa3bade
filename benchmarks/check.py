"""A regression test of speed: today's shares of the bare chain against those of a baseline, and the noise of both runs.

What is allowed is the noise measured, half the range of the rounds of this run and of the baseline's, and never less than
2 % (memory: 10 %), which two runs of the same code differ by on an idle machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.child import BenchError
from benchmarks.measure import Spread
from engines.errors import UsageError

_LEAST, _LEAST_MEMORY = 0.02, 0.1
_TOO_NOISY = 0.1
_SPREAD_OF = ("efficiency", "efficiency_own", "cpu_efficiency")
_NEEDED = ("settings", "host", "warnings", "peak_mb", *_SPREAD_OF, *(f"{name}_spread" for name in _SPREAD_OF))
_ASKED = ("source", "interval", "imgsz", "outputs", "settings", "runs")
_ALIKE = ("source", "width", "height", "frames", "interval", "imgsz", "outputs", "max_frames")
"""What two runs that are compared share; other settings may be what is being judged."""


@dataclass(frozen=True)
class Compared:
    """One figure then and now."""

    name: str
    then: float
    now: float
    allowed: float
    """Share by which it may be worse."""
    higher_is_better: bool = True

    @property
    def change(self) -> float:
        """Share by which it is better (above 0) or worse."""
        change = self.now / self.then - 1 if self.then else 0.0
        return change if self.higher_is_better else -change

    @property
    def ok(self) -> bool:
        return self.change >= -self.allowed


def read_baseline(path: Path) -> dict[str, Any]:
    """The last line of a file that `fer-bench pipeline --json` wrote. UsageError for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8").strip().splitlines()[-1])
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}; make one: fer-bench pipeline --json > {path.name}") from error
    except (ValueError, IndexError) as error:
        raise UsageError(f"{path} is not a baseline; make one: fer-bench pipeline --source demo --json > {path.name}") from error
    if not isinstance(document, dict) or document.get("bench") != "pipeline":
        raise UsageError(f"{path} is not what `fer-bench pipeline --json` prints; a baseline is made by it")
    settings = document.get("settings")
    missing = [name for name in _NEEDED if name not in document] + [
        f"settings.{name}" for name in _ASKED if not isinstance(settings, dict) or name not in settings
    ]
    if missing:
        some = ", ".join(missing[:3]) + (", …" if missing[3:] else "")
        raise UsageError(f"{path} lacks {some}: it comes from another fer-bench; make it anew: fer-bench pipeline --json > {path.name}")
    if settings["runs"] < 2:
        raise UsageError(f"{path} is of one round, so its noise is not known; make it anew with two at least: --runs 3")
    return document


def check_against(
    baseline: dict[str, Any], *, source: str | None = None, runs: int = 3, budget_s: float = 200.0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Measures as the baseline was measured, and compares."""
    from benchmarks.runs import run_pipeline

    then = baseline["settings"] | ({"source": source} if source else {})
    now = run_pipeline(
        source=then["source"], interval=then["interval"], imgsz=then["imgsz"], outputs=then["outputs"], runs=runs,
        max_frames=then.get("max_frames"), bare_model=then.get("bare_model"), mode="throughput", budget_s=budget_s, say=say,
        changes=tuple(f"{key}={json.dumps(value)}" for key, value in then["settings"].items()),
    )  # fmt: skip
    if now["settings"]["runs"] < 2:
        raise BenchError("only one round ended in time, so the noise is not known; give more with --budget, or a shorter clip")
    return verdict(baseline | {"settings": then}, now)


def verdict(baseline: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The document of `fer-bench check`; UsageError where unlike things were measured."""
    then, settings = ({**one["settings"], "source": Path(one["settings"]["source"]).name} for one in (baseline, now))
    unlike = [f"{name} {then.get(name)} and {settings.get(name)}" for name in _ALIKE if then.get(name) != settings.get(name)]
    if unlike:
        raise UsageError(f"the baseline and the run differ in what was measured ({', '.join(unlike)}); measure both alike")
    same_own = then.get("own_detector") == settings.get("own_detector")
    names = [name for name in _SPREAD_OF if same_own or name != "efficiency_own"]
    compared = [Compared(name, baseline[name], now[name], max(_noise(baseline, name) + _noise(now, name), _LEAST)) for name in names]
    compared.append(Compared("peak_mb", baseline["peak_mb"], now["peak_mb"], _LEAST_MEMORY, higher_is_better=False))
    worse = [one for one in compared if not one.ok]
    warnings = list(now["warnings"])
    loosest = max(one.allowed for one in compared if one.higher_is_better)
    if loosest > _TOO_NOISY:
        advice = "repeat it on an idle machine, or with more --runs"
        warnings.append(f"so noisy a run cannot show a regression of less than {loosest:.0%}; {advice}")
    if not same_own:
        warnings.append("efficiency_own is left out: the chains beside the full job ran different detectors of ours")
    if then.get("bare_model") != settings.get("bare_model"):
        warnings.append("the bare chains ran different models: the shares are of different things")
    if baseline["host"].get("cpu") != now["host"]["cpu"] or baseline["host"].get("cores") != now["host"]["cores"]:
        warnings.append("the baseline comes from another machine: shares need not agree")
    sentence = "no regression beyond the noise" if not worse else "regression: " + "; ".join(
        f"{one.name} {one.then:.3g} -> {one.now:.3g} ({one.change:+.1%}, allowed -{one.allowed:.1%})" for one in worse
    )  # fmt: skip
    rows = [[one.name, f"{one.then:.3f}", f"{one.now:.3f}", f"{one.change:+.1%}", f"{one.allowed:.1%}", "ok" if one.ok else "WORSE"]
            for one in compared]  # fmt: skip
    head = ["figure", "baseline", "now", "better by", "noise allowed", ""]
    return {
        "bench": "check", "schema": 1, "ok": not worse, "sentence": sentence,
        "compared": [{"name": one.name, "then": one.then, "now": one.now, "change": round(one.change, 4),
                      "allowed": round(one.allowed, 4), "ok": one.ok} for one in compared],
        "tables": [{"title": "Against the baseline", "head": head, "rows": rows, "sentence": sentence}],
        "warnings": warnings, "host": now["host"], "settings": now["settings"],
    }  # fmt: skip


def _noise(document: dict[str, Any], name: str) -> float:
    return Spread(document[name], *document[f"{name}_spread"]).noise
