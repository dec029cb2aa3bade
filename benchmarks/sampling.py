"""What can only be seen from beside: how deep queues are, and which threads use the CPU.

A thread of the bench looks fifty times a second at queues (10 µs a look; seldom enough would miss a short run) and three times at
threads (.4 ms). CPU time by thread includes those that libraries start (decoder, encoder, OpenVINO), which no timer around a
Python call sees.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TICK_S = 0.02
_THREADS_EVERY = 15
_GPU_EVERY = 50
_COMM = 15
"""Most bytes of a thread's name that Linux keeps."""
_TASKS = Path("/proc/self/task")


class Sampler:
    """`start()`, `restart()` where the warm-up ends, `stop()`; read the results afterwards. `stats()`: a PipelineStats, None where there
    are no queues."""

    def __init__(self, stats: Callable[[], Any] | None = None, gpu: bool = False) -> None:
        self._stats = stats
        self._gpu = gpu and shutil.which("nvidia-smi") is not None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="bench-sampler", daemon=True)
        self._names: dict[int, str] = {}
        self._cpu: dict[int, tuple[str, float, float]] = {}
        self._base: dict[int, tuple[str, float, float]] = {}
        self.depths: dict[str, list[int]] = defaultdict(list)
        """By queue (the source's lane, or the thread that receives): items in it at each look."""
        self.capacities: dict[str, int] = {}
        self.gpu_share: list[float] = []
        self.gpu_mb: list[float] = []

    def start(self) -> None:
        self.restart()
        self._thread.start()

    def restart(self) -> None:
        """From any thread: what threads have used up to now (imports, compiling) and how deep queues were is forgotten."""
        self._look_at_threads()
        self._base = self._cpu.copy()
        self.depths.clear()
        if self._stats is not None:  # a short run may have no other look
            self._look_at_queues(self._stats())

    def stop(self) -> None:
        self._look_at_threads()
        self._stopped.set()
        self._thread.join()

    def threads(self) -> dict[str, tuple[float, float]]:
        """Thread (those of one name together) -> CPU seconds used, seconds it was ready but had to wait for a core."""
        total: dict[str, tuple[float, float]] = {}
        for number, (name, cpu_s, wait_s) in self._cpu.items():
            _, cpu_0, wait_0 = self._base.get(number, (name, 0.0, 0.0))
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + cpu_s - cpu_0, before[1] + wait_s - wait_0)
        return {name: both for name, both in total.items() if name != self._thread.name}

    def _work(self) -> None:
        tick = 0
        while not self._stopped.wait(_TICK_S):
            if self._stats is not None:
                self._look_at_queues(self._stats())
            if tick % _THREADS_EVERY == 0:
                self._look_at_threads()
            if self._gpu and tick % _GPU_EVERY == 0:
                self._look_at_gpu()
            tick += 1

    def _look_at_queues(self, stats: Any) -> None:
        for name, queue in (*stats.lanes.items(), *stats.channels.items()):
            self.depths[name].append(queue.depth)
            self.capacities[name] = queue.capacity

    def _look_at_threads(self) -> None:
        self._names.update({thread.native_id: thread.name for thread in threading.enumerate() if thread.native_id})
        try:
            tasks = list(_TASKS.iterdir())
        except OSError:
            return
        for task in tasks:
            number = int(task.name)
            try:
                run_ns, wait_ns = (task / "schedstat").read_text().split()[:2]
                name = self._names.get(number) or _kind(task)
            except (OSError, ValueError):  # the thread is gone, or the system does not say
                continue
            self._cpu[number] = (name, int(run_ns) / 1e9, int(wait_ns) / 1e9)

    def _look_at_gpu(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        try:
            line = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()[0]
            share, used = (float(part) for part in line.split(","))
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return
        self.gpu_share.append(share / 100)
        self.gpu_mb.append(used)


def name_thread() -> None:
    """Gives the calling thread its Python name in the system too: threads that a library starts from it inherit that name."""
    thread = threading.current_thread()
    with contextlib.suppress(OSError):
        (_TASKS / str(thread.native_id) / "comm").write_text(part(thread.name)[:_COMM])


def part(name: str) -> str:
    """ "video of talk.mp4" -> "video": what a part is called whatever the clip."""
    return name.split(" of ", 1)[0]


def _kind(task: Path) -> str:
    """What a library calls its thread, its number left out; where it has no name of its own, whose child it is."""
    name = (task / "comm").read_text().strip()
    if name == (_TASKS.parent / "comm").read_text().strip():
        return "unnamed libraries'"
    if re.match("[a-z0-9]+:", name):  # FFmpeg's: av:h264:df0
        return name.rstrip("0123456789:- ")
    return f"libraries' from {name}"
