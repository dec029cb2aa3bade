"""The full job as a user runs it, `pipeline.build`, with clocks around its parts; and what is told of it afterwards."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.instrument import Calls, Instrument, Tap
from benchmarks.job import Job, probe
from benchmarks.latency import LiveFromFile
from benchmarks.measure import machine_busy_s, others_share, peak_mb, warm_up
from benchmarks.sampling import Sampler
from pipeline.build import Options, Run, build
from pipeline.config import load_config


def run_full_job(job: Job) -> dict[str, Any]:
    """Runs it to its end; the record that `child` hands on (plain values, seconds)."""
    run, parts = _build(job)
    frames, stats = probe(job.clip).frames, run._pipeline.stats
    warm = warm_up(min(frames, job.max_frames or frames))
    sampler, looks = Sampler(stats, gpu=_gpu()), [stats()]

    def begin() -> None:
        sampler.restart()
        looks.append(stats())

    instrument = Instrument(warm, begin)
    sources, stages, sinks = parts
    instrument.attach(sources, stages, sinks)
    busy_before, cpu_before, began = machine_busy_s(), time.process_time(), time.monotonic()
    sampler.start()
    summary = run.run()
    end, end_cpu = time.monotonic(), time.process_time()
    shares = _shares(looks[-1], stats())
    sampler.stop()
    others = others_share(busy_before, time.process_time() - cpu_before, time.monotonic() - began)
    for error in run.failures():
        raise error
    record = _record(instrument, warm, [account["decoded"] for account in summary["sources"].values()])
    record.update(end=end, end_cpu=end_cpu, others_share=others, shares=shares)
    record["threads"] = {name: list(both) for name, both in sampler.threads().items()}
    record["depths"] = {name: [max(seen), sum(seen) / len(seen), sampler.capacities[name]] for name, seen in sampler.depths.items() if seen}
    record["gpu"] = {"share": sampler.gpu_share, "mb": sampler.gpu_mb} if sampler.gpu_share else None
    record["late"] = [late for source in sources for late in getattr(source, "late_s", ())]
    record["peak_mb"] = peak_mb()
    drops: Counter[str] = Counter()
    for account in summary["sources"].values():
        drops.update(account["dropped"])
    record.update(drops=dict(drops), frames=summary["frames"], faces=summary["faces"], whole_fps=summary["fps"])
    return record


def _build(job: Job) -> tuple[Run, tuple[list[Any], list[list[Any]], list[Any]]]:
    """The run, and its sources, groups of stages and sinks.

    `build` makes the parts, so what is timed is what users get; for the live lane they are put together anew around a
    source that says it is live. The one place that reaches into a Run.
    """
    config = load_config(changes={"detect.interval": job.interval, "detect.imgsz": job.imgsz, **job.settings})
    folder, several = Path(job.folder), job.sources > 1
    options = Options(
        output=None if job.outputs == "events" else str(folder / ("{source}.mp4" if several else "full.mp4")),
        events=str(folder / ("{source}.jsonl" if several else "full.jsonl")),
        realtime=job.live, max_frames=job.max_frames, overwrite=True,
    )  # fmt: skip
    run = build(config, [job.clip] * job.sources, options)
    pipeline = run._pipeline
    sources: list[Any] = [worker.source for worker in pipeline._sources]
    stages, sinks = [list(group.stages) for group in pipeline._groups], list(run._sinks)
    if job.live:
        sources = [LiveFromFile(source) for source in sources]
        run = Run(sources, stages, sinks, config)
    return run, (sources, stages, sinks)


def _shares(before: Any, after: Any) -> dict[str, dict[str, Any]]:
    """Thread or source -> busy, starved, blocked as shares of the time between two looks at the run's own counters, by stage."""
    seconds = max(after.elapsed_s - before.elapsed_s, 1e-9)
    found: dict[str, dict[str, Any]] = {}
    for kind in ("sources", "stages", "sinks"):
        for name, work in getattr(after, kind).items():
            then = getattr(before, kind)[name]
            found[name] = {"thread": work.thread} | {
                part: min((getattr(work, f"{part}_s") - getattr(then, f"{part}_s")) / seconds, 1.0)
                for part in ("busy", "starved", "blocked")
            }
    return found


def _gpu() -> bool:
    from engines.select import gpu_count

    return gpu_count() > 0


def _record(instrument: Instrument, warm: int, decoded: list[int]) -> dict[str, Any]:
    """`warm` frames of each source, by their index also where a live lane dropped some, are warm-up; `decoded`: frames of each.

    Where no batch was without one of them the whole run is told; nothing where none behind them came through.
    """
    done, chain = instrument.done(), instrument.stages
    after_warm_up = sum(index >= warm for _, (_, index) in done)
    begin, begin_cpu = instrument.begin
    steady = {key for _, key in done if after_warm_up and chain[0].entered[key] >= begin}
    taps = [*chain, *instrument.sinks]
    # Each part's window begins with the first frame of the stable window, not at one time: those in front are ahead of those behind.
    begins = {tap.name: min((at for key, at in tap.entered.items() if key in steady), default=float("inf")) for tap in taps}
    first = min((at for key, at in instrument.captured.items() if key in steady), default=float("inf"))
    waits: dict[str, list[float]] = {}
    for before, after in zip([None, *chain], chain, strict=False):
        waits[after.name] = _waits(instrument.captured if before is None else before.left, after, steady)
    for sink in instrument.sinks:
        waits[sink.name] = _waits(chain[-1].left, sink, steady)
    taken: dict[Any, float] = {}
    for sink in instrument.sinks:
        for key, entered in sink.entered.items():
            taken[key] = max(entered, taken.get(key, 0.0))
    return {
        "counted": len(steady),
        "warmed": instrument.warmed,
        "begin": begin,
        "begin_cpu": begin_cpu,
        "missed": sum(max(count - warm, 0) for count in decoded) - after_warm_up,
        "sources": {name: _calls(calls, first) for name, calls in instrument.sources.items()},
        "stages": {tap.name: _calls(tap.calls, begins[tap.name]) for tap in chain},
        "sinks": {tap.name: _calls(tap.calls, begins[tap.name]) for tap in instrument.sinks},
        "models": {name: _calls(calls, begins[name.removesuffix(".model")]) for name, calls in instrument.models.items()},
        "spans": {tap.name: [left - tap.entered[key] for key, left in tap.left.items() if key in steady] for tap in chain},
        "waits": waits,
        "ages": [at - instrument.captured[key] for key, at in taken.items() if key in steady],
        "written": [at - instrument.captured[key] for at, key in done if key in steady],
        "ages_by_sink": {
            sink.name: [at - instrument.captured[key] for key, at in sink.entered.items() if key in steady] for sink in instrument.sinks
        },
    }


def _waits(before: dict[Any, float], after: Tap, steady: set[Any]) -> list[float]:
    """Seconds between leaving the one and entering the other."""
    return [at - before[key] for key, at in after.entered.items() if key in steady and key in before]


def _calls(calls: Calls, begin: float) -> dict[str, list[float]]:
    steady = calls.between(begin, float("inf"))
    return {"seconds": steady.seconds, "cpu_s": steady.cpu_s, "frames": steady.frames}  # type: ignore[dict-item]
