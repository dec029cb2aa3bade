"""90 seconds of two paced files and a camera that is restarted every 20 s; `make soak` takes 20 minutes of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rtsp import missing

from benchmarks.soak import Look, judge

ROOT = Path(__file__).resolve().parents[2]
RESTARTS = [20.0 * n for n in range(1, 18)]
BALANCED = {"sources": {"a": {"decoded": 10, "shown": 7, "dropped": {"evicted": 2, "stale": 1}}}}
MOST_MB_PER_MINUTE = 10.0
"""What 60 judged seconds can tell: a decoded picture kept of every hundred (320×240 in 4:2:0, 25 a second) makes 1.7, every one that
waits for the garbage collector made 28. Less is for the long soak and its 1 MB a minute."""


def curve(minutes=6, seed=1, change=lambda one: one):
    """A healthy run: the camera's three threads and one socket are away for two seconds after each restart, memory jitters by 5 MB."""
    chance, looks = random.Random(seed), []
    for t in range(minutes * 60):
        away = t >= 20 and t % 20 < 2
        rss_mb = 400 + chance.uniform(-5, 5) + 40 * (t < 40)
        one = Look(float(t), 30 - 3 * away, 1 - away, 20 - away, rss_mb, rss_mb - 100)
        looks.append(change(one))
    return looks


def bad(looks, summary=BALANCED, camera_starts=18):
    return [one.what.split()[0] for one in judge(looks, RESTARTS, summary, camera_starts) if not one.ok]


@pytest.mark.parametrize("seed", range(3))
def test_a_flat_run_is_found_flat_however_it_jitters_and_whatever_its_start_was_like(seed):
    assert bad(curve(seed=seed)) == []


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("threads", lambda one: replace(one, threads=one.threads + int(one.t_s) // 100)),
        ("sockets", lambda one: replace(one, sockets=one.sockets + int(one.t_s) // 20)),
        ("files", lambda one: replace(one, files=one.files + (one.t_s > 200))),
        ("memory", lambda one: replace(one, rss_mb=one.rss_mb + 1.5 * one.t_s / 60)),
    ],
)
def test_what_grows_is_found_and_named(what, change):
    assert bad(curve(change=change)) == [what]


def test_a_ledger_that_does_not_balance_and_a_camera_that_did_not_come_back_are_found():
    assert bad(curve(), {"sources": {"a": {"decoded": 10, "shown": 7, "dropped": {"evicted": 2}}}}) == ["ledger"]
    assert bad(curve(), camera_starts=17) == ["the"]


@pytest.mark.timeout(600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_threads_sockets_and_memory_stay_flat_while_a_camera_comes_and_goes():
    if reason := missing():
        pytest.skip(reason)
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "1.5", "--json", "--most-mb-per-minute", str(MOST_MB_PER_MINUTE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert [one["what"].split()[0] for one in document["verdicts"]] == ["threads", "sockets", "files", "memory", "ledger", "the"]
    assert document["ok"], document["verdicts"]
    assert len(document["curve"]["rows"]) >= 60
    assert len(document["restarts"]) == 3
