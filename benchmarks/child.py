"""Each run is a process of its own: its memory is its own, nothing of the run before is warm, and a crash is one sentence.

    python -m benchmarks.child JOB.json RESULT.json      (fer-bench starts this; not for people)
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from engines.errors import FerError

ROOT = Path(__file__).resolve().parents[1]
_AT_MOST_S = 1800


class BenchError(FerError):
    """A run that was to be measured failed."""


def run_in_child(job: Job) -> dict[str, Any]:
    """The record of `job`; BenchError with the child's last line where it failed."""
    with tempfile.TemporaryDirectory() as name:
        question, answer = Path(name) / "job.json", Path(name) / "result.json"
        question.write_text(json.dumps(job.as_dict()))
        run_module("benchmarks.child", [str(question), str(answer)], f"{job.kind} run of {Path(job.clip).name}")
        return json.loads(answer.read_text())


def run_module(module: str, arguments: list[str], what: str, python: str = sys.executable, folder: Path = ROOT) -> str:
    """`python -m module` from `folder`, where it is; its standard output. BenchError where it fails or hangs."""
    command = [python, "-m", module, *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_AT_MOST_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the {what} took more than {_AT_MOST_S} s and was ended; measure fewer frames (--max-frames)") from error
    except OSError as error:
        raise BenchError(f"the {what} cannot be started with {python}: {error.strerror}") from error
    if done.returncode < 0:  # whatever it wrote before says nothing of that
        raise BenchError(f"the {what} crashed: {signal.strsignal(-done.returncode)}")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BenchError(f"the {what} failed: {last[:300]}")
    return done.stdout


def main() -> None:
    question, answer = sys.argv[1:]
    job = Job(**json.loads(Path(question).read_text()))
    sys.setswitchinterval(0.0005)  # as fer-stream's command line does
    if job.kind == "bare":
        from benchmarks.bare_chain import run_bare_chain as run
    else:
        from benchmarks.full_job import run_full_job as run
    try:
        record = run(job)
    except FerError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    Path(answer).write_text(json.dumps(record))


if __name__ == "__main__":
    main()
