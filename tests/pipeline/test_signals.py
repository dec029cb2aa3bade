"""Ended from outside: killed, interrupted, terminated. What was written stays, and says the same everywhere."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import av
import pytest
from command import last_time, rows, start, until

from pipeline.cli import _Signals


def frames(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(f.pts * f.time_base) for f in container.decode(video=0)]


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_a_random_moment_video_and_rows_are_readable(tmp_path: Path, seed: int) -> None:
    """From the video's second second on; at most the last 1.5 s are lost."""
    moment = random.Random(seed).uniform(2.0, 5.0)
    video, events = tmp_path / "out.mp4", tmp_path / "rows.jsonl"
    process = start("--source", "demo", "--realtime", "--output", video, "--events", events, "--quiet")
    until(lambda: last_time(events) >= moment, process=process)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    seen, said = frames(video), rows(events)
    assert said[0]["kind"] == "run"
    assert max(r["pts_s"] for r in said if r["pts_s"] is not None) >= moment
    assert seen[-1] >= moment - 1.5
    assert seen == sorted(seen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_with_as_many_frames_in_the_video_as_in_the_rows(tmp_path: Path, number: signal.Signals) -> None:
    video, events = tmp_path / "out.mp4", tmp_path / "rows.jsonl"
    process = start("--source", "demo", "--realtime", "--output", video, "--events", events, "--quiet", "--json")
    until(lambda: last_time(events) >= 1.0, process=process)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert not err
    said = rows(events)
    in_rows = {r["frame"] for r in said if r["kind"] in ("face", "frame")}
    account = json.loads(out.splitlines()[-1])["sources"]["demo"]
    assert len(frames(video)) == len(in_rows) == account["shown"]
    assert account["decoded"] == account["shown"] + sum(account["dropped"].values())
    assert json.loads(said[-1]["info"])["ledger"]["demo"]["shown"] == account["shown"]
    assert "stopped" in [json.loads(r["info"]).get("reason") for r in said if r["kind"] == "source_state"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc for the library that is being loaded")
def test_a_signal_while_libraries_are_loaded_ends_at_once_and_with_its_number() -> None:
    for count in (1, 2):
        process = start("--source", "demo", "--realtime", "--events", "-")
        maps = Path(f"/proc/{process.pid}/maps")
        until(lambda maps=maps: "_pyopenvino" in maps.read_text(), process=process)
        for _ in range(count):
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (130, "", "")


def test_the_first_signal_stops_and_the_second_cancels() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.told: list[str] = []

        def stop(self) -> None:
            self.told.append("stop")

        def cancel(self) -> None:
            self.told.append("cancel")

    for first, second in ((signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)):
        signals = _Signals()
        signals.run = Recorder()
        signals._on(first, None)
        signals._on(second, None)
        assert signals.run.told == ["stop", "cancel"]
        assert signals.last == second


def test_after_two_signals_every_frame_is_accounted_for(tmp_path: Path) -> None:
    events = tmp_path / "rows.jsonl"
    process = start("--source", "demo", "--realtime", "--events", events, "--quiet", "--json")
    until(lambda: last_time(events) >= 0.5, process=process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert "Traceback" not in err
    account = json.loads(out.splitlines()[-1])["sources"]["demo"]
    assert account["decoded"] == account["shown"] + sum(account["dropped"].values())
