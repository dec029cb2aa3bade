"""A camera through the whole command: real RTSP server, killed and restarted; a stand-in webcam."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import av
from command import last_time, rows, start, until
from rtsp import rtsp_server  # noqa: F401


def epochs(path: Path) -> set[int]:
    return {r["epoch"] for r in rows(path) if r["kind"] in ("face", "frame")} if path.exists() else set()


def finish(process) -> dict:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 8
    return json.loads(out.splitlines()[-1])


def test_a_stream_becomes_video_and_rows_and_survives_its_server(rtsp_server, tmp_path: Path) -> None:  # noqa: F811
    server = rtsp_server(user="me", password="hunter2")
    video, events = tmp_path / "cam.mp4", tmp_path / "cam.jsonl"
    process = start("--source", server.url("/live", "me", "hunter2"), "--output", video, "--events", events, "--json")
    until(lambda: last_time(events) >= 2.0, process=process)
    server.kill()
    before = last_time(events)
    server.start()
    until(lambda: 1 in epochs(events) and last_time(events) >= before + 2.0, process=process)
    summary = finish(process)

    found = rows(events)
    text = events.read_text() + video.read_bytes().decode("latin1")
    assert "hunter2" not in text
    ((name, account),) = summary["sources"].items()
    assert "hunter2" not in name
    assert account["decoded"] == account["shown"] + sum(account["dropped"].values())
    seen = [r for r in found if r["kind"] in ("face", "frame")]
    assert {r["epoch"] for r in seen} == {0, 1}
    times = [r["pts_s"] for r in seen]
    assert times == sorted(times)  # time goes on over the gap
    last_of_first = max(r["pts_s"] for r in seen if r["epoch"] == 0)
    assert min(r["pts_s"] for r in seen if r["epoch"] == 1) > last_of_first
    assert all(r["time_utc"] for r in seen)
    states = [json.loads(r["info"])["state"] for r in found if r["kind"] == "source_state"]
    assert states[:3] == ["RUNNING", "LOST", "RUNNING"]
    with av.open(str(video)) as container:
        pts = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    assert len(pts) == account["shown"] == len({r["frame"] for r in seen})
    assert pts == sorted(set(pts))
    assert abs((pts[-1] - pts[0]) - (times[-1] - times[0])) < 0.01


def test_faces_of_a_served_clip_are_found(rtsp_server, media: Path, tmp_path: Path) -> None:  # noqa: F811
    server = rtsp_server(clip=media / "d02_sad_to_laugh.mp4")
    events = tmp_path / "cam.jsonl"
    process = start("--source", server.url("/file"), "--events", events, "--json", "--quiet")
    until(lambda: last_time(events) >= 2.0, process=process)
    summary = finish(process)
    assert summary["tracks"] >= 1
    assert summary["faces"] >= 0.5 * summary["frames"]


def test_a_stand_in_camera_goes_through_the_webcam_path(tmp_path: Path) -> None:
    """No video device can be made on test machines: PyAV's lavfi input takes its place."""
    events = tmp_path / "cam.jsonl"
    process = start("--source", "lavfi:testsrc2=size=640x480:rate=30,realtime", "--events", events, "--json", "--quiet")
    until(lambda: last_time(events) >= 1.0, process=process)
    account = finish(process)["sources"]
    ((_, camera),) = account.items()
    assert camera["decoded"] >= 25
    assert camera["decoded"] == camera["shown"] + sum(camera["dropped"].values())


def test_an_absent_camera_does_not_stop_the_others(media: Path, tmp_path: Path) -> None:
    from rtsp import free_port

    gone = f"rtsp://127.0.0.1:{free_port()}/x"
    process = start(
        "--source", gone, "--source", media / "d03_neutral_to_smile.mp4", "--events", tmp_path / "{source}.jsonl", "--json", "--quiet"
    )
    mine = tmp_path / "d03_neutral_to_smile.jsonl"
    until(lambda: mine.exists() and any(r["kind"] == "source_state" and "ENDED" in r["info"] for r in rows(mine)), process=process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    account = json.loads(out.splitlines()[-1])["sources"]
    assert account[str(media / "d03_neutral_to_smile.mp4")]["shown"] == 72
