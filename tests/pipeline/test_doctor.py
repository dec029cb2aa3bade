"""`fer-stream config`, `models`, `doctor`, beside the plain call; and `--stride`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import pytest
import yaml
from clips import FRAMES, RATE, film, needs_ffmpeg
from command import fer, rows

from pipeline.config import load_config
from pipeline.doctor import Finding, cameras, codecs, disk, display, opencv, parquet, report


def test_config_prints_every_setting_with_its_origin_and_reads_back(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("detect:\n  interval: 4\npurpose: 'a: test'\n")
    given = ("--config", tmp_path / "mine.yaml", "--conf", "0.5", "--set", "smooth.tau_s=0.4", "--stride", "2")
    done = fer("config", *given)
    assert done.returncode == 0, done.stderr
    lines = {line.partition(":")[0].strip(): line for line in done.stdout.splitlines()}
    assert lines["interval"].split("# ")[1].startswith(f"{tmp_path / 'mine.yaml'}; ")
    assert lines["conf"].split("# ")[1].startswith("--conf; ")
    assert lines["tau_s"].split("# ")[1].startswith("--set; ")
    assert lines["stride"].split("# ")[1].startswith("--stride; ")
    assert lines["imgsz"].split("# ")[1].startswith("default; ")
    assert all("# " in line or line.endswith(":") for line in done.stdout.splitlines())
    (tmp_path / "again.yaml").write_text(done.stdout)
    changes = {"detect.conf": 0.5, "smooth.tau_s": 0.4, "stride": 2}
    assert load_config(tmp_path / "again.yaml") == load_config(tmp_path / "mine.yaml", changes)
    assert yaml.safe_load(done.stdout)["purpose"] == "a: test"


def test_config_without_anything_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(fer("config").stdout)
    assert load_config(tmp_path / "d.yaml") == load_config()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("config", "--set", "smooth.tau=1"), "did you mean smooth.tau_s"),
        (("config", "--config", "none.yaml"), "cannot read the configuration none.yaml"),
        (("config", "--source", "demo"), "No such option '--source'"),
        (("doctor", "now"), "unexpected extra argument"),
        (("docter",), "did you mean: fer-stream doctor"),
        (("film.mp4", "--json"), "sources go behind --source: fer-stream --source film.mp4"),
    ],
)
def test_a_wrong_call_of_a_command_is_a_sentence(arguments: tuple[str, ...], says: str) -> None:
    done = fer(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_models_names_licence_metrics_hash_and_size() -> None:
    found = {model["name"]: model for model in json.loads(fer("models", "--json").stdout)}
    assert {model["task"] for model in found.values()} == {"detector", "classifier"}
    text = fer("models").stdout
    for model in found.values():
        assert model["state"] == "ok"
        weights = Path(model["file"]).with_suffix(".bin")
        assert model["bytes"] == os.path.getsize(model["file"]) + (os.path.getsize(weights) if model["file"].endswith(".xml") else 0)
        for part in (model["name"], model["licence"], model["sha256"], model["data"]):
            assert part in text
        assert model["metrics"]


def test_doctor_looks_at_everything_and_finds_no_problem_here() -> None:
    done = fer("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = [Finding(**one) for one in json.loads(done.stdout)]
    topics = {one.topic for one in found}
    assert topics == {"machine", "opencv", "video", "encoders", "cameras", "display", "engines", "models", "outputs", "disk"}
    assert all(one.do or one.state != "problem" for one in found)
    assert len(fer("doctor").stdout.splitlines()) >= len(found)


def test_two_distributions_of_cv2_are_a_problem_with_its_cure() -> None:
    assert opencv({"opencv-python": "5.0"}).state == "ok"
    assert opencv({}).state == "problem"
    two = opencv({"opencv-python": "5.0", "opencv-python-headless": "4.9"})
    assert two.state == "problem"
    assert two.do.startswith("keep one: pip uninstall -y opencv-python opencv-python-headless")


def test_codecs_of_an_ffmpeg_that_lacks_some() -> None:
    reads, writes, hardware = codecs(["h264", "libx264", "h264_nvenc", "h264_qsv"], lambda name: name == "h264_nvenc")
    assert (reads.state, "hevc" in reads.says) == ("note", True)
    assert (writes.state, writes.says) == ("ok", "writes H.264 (libx264)")
    assert (hardware.state, hardware.says) == ("ok", "usable: h264_nvenc")
    assert codecs([], lambda _: False)[1].state == "problem"
    assert codecs(av.codecs_available, lambda _: False)[0].state == "ok"


def test_other_machines(tmp_path: Path) -> None:
    assert cameras([], "linux").state == "note"
    assert cameras([str(tmp_path)], "linux").state == "ok"
    locked = cameras([str(tmp_path / "gone")], "linux")
    assert (locked.state, "usermod" in locked.do) == ("problem", True)
    assert "xvfb-run" in display(False).do
    assert parquet({}).do == "pip install 'fer-stream[parquet]'"
    assert [disk(tmp_path, free, True).state for free in (10**9, 10**11)] == ["note", "ok"]
    assert disk(tmp_path, 10**11, False).state == "note"


def test_the_report_says_what_to_do_below_each_line() -> None:
    text = report([Finding("disk", "problem", "is full", "make room"), Finding("video", "ok", "reads all")])
    assert text.splitlines() == ["BAD   disk      is full", "                → make room", "ok    video     reads all"]


@needs_ffmpeg
def test_stride_drops_frames_with_their_cause_and_keeps_times_and_sound(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", "-c:v", "libx264", "-c:a", "aac", sound=True)
    done = fer("--source", path, "--stride", 5, "--output", tmp_path / "b.mp4", "--events", tmp_path / "r.jsonl", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    kept = list(range(0, FRAMES, 5))
    assert json.loads(done.stdout)["sources"][str(path)] == {
        "decoded": FRAMES, "shown": len(kept), "dropped": {"stride": FRAMES - len(kept)}, "carried": 0}  # fmt: skip
    found = [row for row in rows(tmp_path / "r.jsonl") if row["kind"] == "face"]
    assert [row["frame"] for row in found] == kept
    assert [row["pts_s"] for row in found] == pytest.approx([k / RATE for k in kept], abs=0.0015)

    def packets(file: Path) -> list[bytes]:
        with av.open(str(file)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(path) == packets(tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        times = [float(image.pts * image.time_base) for image in container.decode(video=0)]
    assert times == pytest.approx([k / RATE for k in kept], abs=0.0015)


def test_stride_reaches_live_sources_too(tmp_path: Path) -> None:
    events = tmp_path / "r.jsonl"
    camera = "lavfi:testsrc2=size=160x120:rate=30:duration=3,realtime"
    done = fer("--source", camera, "--stride", 3, "--events", events, "--json", "--quiet", "--backend", "fake")
    assert done.returncode == 0, done.stderr
    (account,) = json.loads(done.stdout)["sources"].values()
    assert account["dropped"]["stride"] == 60
    assert account["decoded"] == 90 == account["shown"] + sum(account["dropped"].values())


def test_a_stride_of_nothing() -> None:
    done = fer("--source", "demo", "--stride", 0)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
