"""Records of runs -> the document of `fer-bench pipeline`: plain values, the same for the JSON line, the tables and the report.

Samples of several runs are pooled before a percentile is taken of them; shares and costs are medians over the runs.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from typing import Any

from benchmarks.job import Job, probe
from benchmarks.measure import Spread, percentile, percentiles_ms
from benchmarks.sampling import part
from benchmarks.throughput import Throughput, cost, rate, window

SCHEMA = 1
_CPU_BOUND = 0.9
"""Share of all cores from which on they are what limits a run."""
_OTHERS = 0.1
"""Share of the machine that others may use before the document warns."""


def pipeline_document(
    job: Job, result: Throughput, latency: dict[str, Any] | None, host: dict[str, Any], source: str, bare_model: str | None = None
) -> dict[str, Any]:
    """The whole; `latency`: the record of the paced run, None where it was not made. `bare_model`: None for the kept one."""
    full, clip = result.full_records, probe(job.clip)
    throughput = run_part(full)
    document: dict[str, Any] = {
        "bench": "pipeline",
        "schema": SCHEMA,
        "fps": round(result.full.median, 2),
        "fps_spread": result.full.rounded(2),
        "fps_whole": round(statistics.median(record["whole_fps"] for record in full), 2),
        **_spread("efficiency", result.efficiency),
        **_spread("efficiency_own", result.efficiency_own),
        **_spread("cpu_efficiency", result.cpu_efficiency),
        "bare_fps": round(result.bare.median, 2),
        "own_detector_is_the_kept_one": not result.own_records,
        **throughput, "age_ms": None, "drops": None,  # those of a camera, which the paced run alone knows
    }  # fmt: skip
    warnings = _warnings([*full, *result.bare_records, *result.own_records])
    if not all(record["warmed"] for record in full):
        warnings.append("so short a clip has no batch without a frame of the warm-up, which is counted: give a longer one")
    if latency is not None:
        paced = latency_part(latency, clip.rate)
        document.update(age_ms=paced["age_ms"], age_frames=paced["age_frames"], drops=paced["drops"], latency=paced)
        if paced["age_ms"] is None:
            warnings.append("not one frame of the paced run came through after the warm-up: this machine has no room for it")
        if paced["late_ms"] and paced["late_ms"]["p95"] > 1000 / clip.rate:
            warnings.append("the paced reader was itself late by more than a frame; the ages are lower than a camera would see")
    document["settings"] = {
        "source": source, "width": clip.width, "height": clip.height, "source_fps": round(clip.rate, 3), "codec": clip.codec,
        "frames": full[0]["frames"], "faces_per_frame": round(full[0]["faces"] / max(full[0]["frames"], 1), 2),
        "interval": job.interval, "imgsz": job.imgsz, "outputs": job.outputs, "sources": job.sources, "runs": len(full),
        "max_frames": job.max_frames, "bare_model": bare_model, "own_detector": result.own_detector, "settings": job.settings,
    }  # fmt: skip
    return document | {"rounds": _rounds(result), "warnings": warnings, "host": host}


def run_part(records: list[dict[str, Any]], paced: bool = False) -> dict[str, Any]:
    """What runs of the same job say of it: stages, queues, threads, CPU, memory, drops, ages, the bottleneck."""
    cost_s = [cost(record) for record in records]
    cpu_share = statistics.median(window(record).cpu_share for record in records)
    stages = _stages(records)
    if paced:  # its time is that of waiting for the clock
        own = stages["decode"]["own_thread_cpu_ms_per_run_frame"]
        stages["decode"].update(busy=None, per_frame_ms=None, per_batch_ms=None, ms_per_run_frame=own)
    drops: Counter[str] = Counter()
    for record in records:
        drops.update(record["drops"])
    others = _median([record["others_share"] for record in records])
    gpu = [record["gpu"] for record in records if record["gpu"]]
    return {
        "age_ms": percentiles_ms(_pooled(records, "ages")),
        "age_quantiles_ms": _quantiles(_pooled(records, "ages")),
        "written_ms": percentiles_ms(_pooled(records, "written")),
        "age_by_sink_ms": {name: percentiles_ms(ages) for name, ages in _by_part(records, "ages_by_sink").items()},
        "drops": sum(drops.values()),
        "drops_by_cause": dict(drops),
        "stages": stages,
        "queues": _queues(records),
        "threads": _threads(records),
        "cpu_ms_per_frame": round(statistics.median(cost_s) * 1000, 3),
        "cpu_share": round(cpu_share, 3),
        "others_share": others,
        "gpu_share": round(statistics.fmean(share for one in gpu for share in one["share"]), 3) if gpu else None,
        "gpu_peak_mb": max(max(one["mb"]) for one in gpu) if gpu else None,
        "peak_mb": round(max(record["peak_mb"] for record in records), 1),
        "bottleneck": bottleneck(stages, cpu_share, others),
    }


def latency_part(record: dict[str, Any], rate: float) -> dict[str, Any]:
    """The paced run; ages in milliseconds and in frames of the source's `rate`."""
    paced = run_part([record], paced=True)
    everything = paced["drops"]
    paced["drops"] = record["missed"]
    paced["drops_in_warm_up"] = max(everything - record["missed"], 0)
    paced["looked_share"] = looked_share(record)
    paced["late_ms"] = percentiles_ms(record["late"])
    paced["source_fps"] = round(rate, 3)
    paced["age_frames"] = {name: round(value * rate / 1000, 2) for name, value in (paced["age_ms"] or {}).items()}
    return paced


def looked_share(record: dict[str, Any]) -> float | None:
    """Of the frames that came to the detector those that it looked at (`detect.interval`, `detect.keep_up`); None: no engine to tap."""
    looked = record["models"].get("detect.model")
    return round(sum(looked["frames"]) / (sum(record["stages"]["detect"]["frames"]) or 1), 3) if looked else None


def bottleneck(stages: dict[str, dict[str, Any]], cpu_share: float, others: float | None) -> dict[str, Any]:
    """The thread that is busy while the others starve or are blocked, its largest part, and whether cores are what it lacks."""
    busy: dict[str, float] = defaultdict(float)
    for one in stages.values():
        if one["inside"] is None:
            busy[one["thread"]] += one["busy"] or 0.0
    thread = max(busy, key=lambda name: busy[name])
    candidates = [name for name, one in stages.items() if one["thread"] == thread and one["inside"] is None]
    largest = max(candidates, key=lambda name: stages[name]["busy"] or 0.0)
    inside = [name for name, one in stages.items() if one["inside"] == largest]
    bound = "cpu" if cpu_share + (others or 0) >= _CPU_BOUND else "thread"
    said = f"{largest} (thread {thread}, busy {min(busy[thread], 1):.0%}"
    if inside and stages[largest]["busy"]:
        said += f", {stages[inside[0]]['busy'] / stages[largest]['busy']:.0%} of it in {inside[0]}"
    said += f"); this process used {cpu_share:.0%} of the cores" + (f", others {others:.0%}: " if others else ": ") + (
        "cores are what limits it, so less CPU time anywhere makes it faster"
        if bound == "cpu" else "there is room beside it, so that thread must do less or get help"
    )  # fmt: skip
    return {"stage": largest, "thread": thread, "busy": round(min(busy[thread], 1), 3), "bound": bound, "sentence": said}


def _stages(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Decode, each stage, the engines inside them, each sink: in the order of the flow."""
    kinds = [("sources", "decode"), ("stages", None), ("sinks", None)]
    found: dict[str, dict[str, Any]] = {}
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    thread_of: dict[str, str] = {}
    for record in records:
        for name, share in record["shares"].items():
            key = "decode" if name in record["sources"] else part(name)
            thread_of[key] = "decode" if name in record["sources"] else part(share["thread"])
            for what in ("busy", "starved", "blocked"):
                shares[key][what].append(share[what])
    waits = _by_part(records, "waits")
    spans = _by_part(records, "spans")
    frames = sum(len(record["written"]) for record in records) or 1
    for kind, fixed in kinds:
        calls: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"seconds": [], "cpu_s": [], "frames": []})
        for record in records:
            for name, one in record[kind].items():
                for what in ("seconds", "cpu_s", "frames"):
                    calls[fixed or part(name)][what] += one[what]
        for name, one in calls.items():
            found[name] = _one(one, frames, thread_of.get(name, name), None)
            found[name].update({what: round(statistics.median(values), 4) for what, values in shares[name].items()})
            found[name]["queue_wait_ms"] = percentiles_ms(waits.get(name, []))
            found[name]["span_ms"] = percentiles_ms(spans.get(name, []))
            for inner in sorted({inner for record in records for inner in record["models"] if inner == f"{name}.model"}):
                pooled = {what: [v for r in records for v in r["models"][inner][what]] for what in ("seconds", "cpu_s", "frames")}
                found[inner] = _one(pooled, frames, thread_of.get(name, name), name)
                share = found[inner]["ms_per_run_frame"] / max(found[name]["ms_per_run_frame"], 1e-9)
                found[inner]["busy"] = round(found[name]["busy"] * share, 4)
    return found


def _one(calls: dict[str, list[float]], run_frames: int, thread: str, inside: str | None) -> dict[str, Any]:
    """`frames` of an engine are images or crops; "per frame" is then per image or crop."""
    each = [seconds / n for seconds, n in zip(calls["seconds"], calls["frames"], strict=True) if n]
    sizes = Counter(int(n) for n in calls["frames"] if n)
    return {
        "thread": thread, "inside": inside, "busy": 0.0, "starved": 0.0, "blocked": 0.0,
        "per_frame_ms": percentiles_ms(each), "per_batch_ms": percentiles_ms(calls["seconds"]),
        "batch_sizes": {str(size): count for size, count in sorted(sizes.items())},
        "ms_per_run_frame": round(sum(calls["seconds"]) / run_frames * 1000, 4),
        "own_thread_cpu_ms_per_run_frame": round(sum(calls["cpu_s"]) / run_frames * 1000, 4),
        "queue_wait_ms": None, "span_ms": None,
    }  # fmt: skip


def _queues(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By who receives: depth as looked at fifty times a second, in batches; that of the sources' "lane" in frames."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        for name, (most, mean, capacity) in record["depths"].items():
            one = found.setdefault("lane" if name in record["sources"] else part(name), {"max": 0, "means": [], "capacity": capacity})
            one["max"] = max(one["max"], most)
            one["means"].append(mean)
    return {
        name: {"mean": round(statistics.median(one.pop("means")), 2), "max": one["max"], "capacity": one["capacity"]}
        for name, one in found.items()
    }


def _threads(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """CPU time and time ready without a core, milliseconds a frame, after the warm-up; the largest first."""
    used: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for record in records:
        for name, (cpu_s, wait_s) in record["threads"].items():
            key = "decode" if name in record["sources"] else part(name)
            used[key][0] += cpu_s
            used[key][1] += wait_s
    frames = sum(record["counted"] for record in records) or 1
    return {
        name: {"cpu_ms_per_frame": round(cpu / frames * 1000, 3), "waited_for_core_ms_per_frame": round(wait / frames * 1000, 3)}
        for name, (cpu, wait) in sorted(used.items(), key=lambda item: -item[1][0])
    }


def _quantiles(seconds: list[float]) -> list[float]:
    """0, 1, … 100 %, milliseconds: the curve of a plot."""
    return [round(percentile(seconds, q) * 1000, 2) for q in range(101)] if seconds else []


def _by_part(records: list[dict[str, Any]], key: str) -> dict[str, list[float]]:
    pooled: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, values in record[key].items():
            pooled[part(name)] += values
    return dict(pooled)


def _pooled(records: list[dict[str, Any]], key: str) -> list[float]:
    return [value for record in records for value in record[key]]


def _spread(name: str, value: Spread) -> dict[str, Any]:
    return {name: round(value.median, 4), f"{name}_spread": value.rounded(4)}


def _rounds(result: Throughput) -> dict[str, list[float]]:
    lists = {"full": result.full_records, "bare": result.bare_records, "bare_own": result.own_records}
    return {f"{name}_fps": [round(rate(record), 2) for record in records] for name, records in lists.items()} | {
        f"{name}_cpu_ms": [round(cost(record) * 1000, 3) for record in records] for name, records in lists.items()
    }


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 3) if known else None


def _warnings(records: list[dict[str, Any]]) -> list[str]:
    others = _median([record["others_share"] for record in records])
    found = []
    if others is not None and others > _OTHERS:
        found.append(f"others used {others:.0%} of this machine meanwhile: frames per second mean little, ratios something")
    if len(records) < 4:
        found.append("one round only: the spread of the ratios is not known")
    return found
