"""Numbers from samples: percentiles, spread, ratios of alternated runs, and what the process and the machine used.

Percentiles are never averaged: samples of several runs are pooled first. Ratios are taken within a round, where both sides
ran minutes apart at most, and only then is their median taken: a machine that slows down slows down both.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.select import cores

QUANTILES = (50, 95, 99)
_MOST_WARM_UP = 150


def percentile(samples: Sequence[float], q: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least q % of all are not above. A value that occurred."""
    if not samples:
        raise ValueError("a percentile needs one sample at least")
    ordered = sorted(samples)
    return ordered[max(math.ceil(q / 100 * len(ordered)), 1) - 1]


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float] | None:
    """Seconds -> {"p50", "p95", "p99"} in milliseconds; None without samples."""
    return {f"p{q}": round(percentile(seconds, q) * 1000, 3) for q in QUANTILES} if seconds else None


@dataclass(frozen=True)
class Spread:
    """A figure measured several times."""

    median: float
    low: float
    high: float

    @property
    def noise(self) -> float:
        """Half the range as a share of the median; 0 for one measurement, whose noise nobody knows."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0

    def rounded(self, digits: int = 3) -> list[float]:
        """[low, high] for JSON."""
        return [round(self.low, digits), round(self.high, digits)]


def spread(values: Sequence[float]) -> Spread:
    """Median and range of the same figure in several runs."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """over[i] / under[i], round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def warm_up(frames: int) -> int:
    """How many of `frames` at the start count as warm-up, for every chain alike: a fifth, 150 at most.

    Models are compiled for the first frame's shape, x264 and the decoder fill their threads, the allocator grows.
    """
    return min(frames // 5, _MOST_WARM_UP)


@dataclass(frozen=True)
class Window:
    """The stable part of a run: from the moment the first batch after the warm-up is taken from its queue to the closed output.

    Not from when that frame is finished: a stage that holds frames back (the tracker, 12) gives them out in a rush at the end,
    and of 300 frames that alone would make the full job look 5 % faster than it is. Emptying the pipeline counts for all chains.
    """

    frames: int
    begin: float
    """Monotonic seconds."""
    end: float
    begin_cpu: float
    """CPU seconds of the whole process."""
    end_cpu: float

    @property
    def rate(self) -> float:
        """Frames per second; ValueError where no frame is in it."""
        if self.frames < 1:
            raise ValueError("no frame came after the warm-up: there is nothing to measure")
        return self.frames / max(self.end - self.begin, 1e-9)

    @property
    def cost(self) -> float:
        """CPU seconds a frame."""
        return (self.end_cpu - self.begin_cpu) / self.frames if self.frames else 0.0

    @property
    def cpu_share(self) -> float:
        """Of all cores."""
        return min(max(self.end_cpu - self.begin_cpu, 0.0) / max(self.end - self.begin, 1e-9) / cores(), 1.0)


def peak_mb() -> float:
    """Most resident memory this process ever had, MB (10^6 bytes)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def machine_busy_s() -> float | None:
    """CPU seconds that everything on the machine has used since it started; None where the system does not say."""
    try:
        numbers = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq = numbers[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def others_share(busy_before_s: float | None, own_s: float, elapsed_s: float) -> float | None:
    """Share of the machine's cores that others used since `machine_busy_s()` said `busy_before_s`; `own_s`: this process's CPU time."""
    busy_s = machine_busy_s()
    if busy_s is None or busy_before_s is None or elapsed_s <= 0:
        return None
    return min(max(busy_s - busy_before_s - own_s, 0.0) / elapsed_s / (os.cpu_count() or 1), 1.0)
