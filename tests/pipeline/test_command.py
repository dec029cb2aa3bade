"""The command line's own promises: help, light imports, the JSON line, pictures, several sources, settings."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml
from command import FER_STREAM, faces, fer, rows


def test_help_teaches_by_example_in_under_half_a_second_of_cpu_time() -> None:
    best = 9.0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = fer("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0
    assert "fer-stream --source demo" in done.stdout
    assert best < 0.5


def test_a_fresh_import_of_the_command_brings_nothing_heavy() -> None:
    heavy = ("torch", "openvino", "av", "cv2", "supervision", "matplotlib", "numpy")
    code = f"import sys, pipeline.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_takes_long_to_import_waits_for_the_models_to_be_compiled() -> None:
    code = "import sys, pipeline.build; print([m for m in ('scipy', 'supervision', 'trackers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threads_hand_over_in_half_a_millisecond() -> None:
    look = "atexit.register(lambda: print(sys.getswitchinterval()))"
    code = f"import atexit, sys; from pipeline.cli import main; {look}; main(['models', '--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0.0005"


def test_a_cpu_run_never_imports_torch_even_where_it_is_installed(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n__version__ = '2.9.0'\n")
    done = fer("--source", "demo", "--max-frames", 3, "--quiet", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()


def test_json_is_the_last_line_and_quiet_hides_the_rest() -> None:
    done = fer("--source", "demo", "--max-frames", 20, "--json", "--quiet")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    summary = json.loads(done.stdout)
    assert summary["frames"] == 20
    assert summary["fps"] == pytest.approx(20 / summary["seconds"], rel=0.01)
    assert {"faces", "tracks", "sources", "labels", "tracks_detail"} <= set(summary)


def test_rows_on_standard_output_are_json_lines() -> None:
    done = fer("--source", "demo", "--max-frames", 3, "--events", "-", "--quiet")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert next(r["kind"] for r in found) == "run"
    assert {r["frame"] for r in found if r["kind"] == "face"} == {0, 1, 2}


def test_csv_has_the_columns_of_json_lines(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv"):
        assert fer("--source", "demo", "--max-frames", 3, "--events", tmp_path / name, "--quiet").returncode == 0
    import csv

    with open(tmp_path / "a.csv", newline="") as text:
        table = list(csv.DictReader(text))
    lines = rows(tmp_path / "a.jsonl")
    assert list(table[0]) == list(lines[0])
    assert [r["kind"] for r in table] == [r["kind"] for r in lines]
    assert [float(r["p_happy"]) for r in table if r["kind"] == "face"] == [r["p_happy"] for r in lines if r["kind"] == "face"]


def test_two_sources_go_into_a_folder(tmp_path: Path, media: Path) -> None:
    clips = [media / "d03_neutral_to_smile.mp4", media / "d08_three_people_walk_and_pause.mp4"]
    sources = [x for clip in clips for x in ("--source", clip)]
    done = fer(*sources, "--output", f"{tmp_path}/", "--events", tmp_path / "{source}-rows.jsonl", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"{c.stem}.mp4" for c in clips] + [f"{c.stem}-rows.jsonl" for c in clips])
    alone = tmp_path / "alone.jsonl"
    fer("--source", clips[1], "--events", alone, "--quiet")
    strip = lambda found: [{k: v for k, v in r.items() if k not in ("time_utc", "info")} for r in found]  # noqa: E731
    assert strip(rows(alone)) == strip(rows(tmp_path / f"{clips[1].stem}-rows.jsonl"))  # S3


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_gives_a_picture_in_the_format_of_the_suffix(tmp_path: Path, media: Path, suffix: str) -> None:
    out = tmp_path / f"seen{suffix}"
    done = fer("--source", media / "photos" / "p03_one_man_smiling.jpg", "--output", out, "--events", tmp_path / "r.jsonl", "--quiet")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"\xff\xd8")
    before = cv2.imread(str(media / "photos" / "p03_one_man_smiling.jpg"))
    after = cv2.imread(str(out))
    assert before.shape == after.shape
    assert np.abs(before.astype(int) - after).max() > 100  # something is drawn
    (face,) = faces(rows(tmp_path / "r.jsonl"))
    assert face["emotion"] == "happy"


def test_a_glob_of_pictures_goes_into_a_folder(tmp_path: Path, media: Path) -> None:
    done = fer("--source", media / "photos" / "p0[13]*.jpg", "--output", tmp_path / "seen", "--quiet")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "seen").iterdir()) == ["p01_family_of_four_smiling.jpg", "p03_one_man_smiling.jpg"]


def test_start_and_end_cut_the_clip(tmp_path: Path, media: Path) -> None:
    events = tmp_path / "r.jsonl"
    assert fer("--source", media / "d02_sad_to_laugh.mp4", "--start", "0:02", "--end", 3.5, "--events", events, "--quiet").returncode == 0
    times = [r["pts_s"] for r in rows(events) if r["kind"] in ("face", "frame")]
    assert 2.0 <= min(times) < 2.05
    assert 3.45 < max(times) < 3.5


def test_a_purpose_that_is_no_utf8_is_in_every_output(tmp_path: Path) -> None:
    outputs = ("--output", tmp_path / "seen.mp4", "--report", tmp_path / "page.html", "--events", tmp_path / "r.jsonl")
    done = fer("--source", "demo", "--max-frames", 5, "--purpose", "caf\udce9", *outputs, "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(rows(tmp_path / "r.jsonl")[0]["info"])["purpose"] == "caf\\udce9"
    with av.open(str(tmp_path / "seen.mp4")) as video:
        assert "caf\\udce9" in " ".join(video.metadata.values())


def test_a_configuration_file_and_the_presets_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("detect:\n  interval: 4\n")
    for config in (tmp_path / "mine.yaml", "batch", "webcam"):
        done = fer("--source", "demo", "--max-frames", 5, "--config", config, "--events", "-", "--quiet", "--purpose", "a test")
        assert done.returncode == 0, done.stderr
        info = json.loads(json.loads(done.stdout.splitlines()[0])["info"])
        assert info["purpose"] == "a test"
        assert info["models"]["detector"]["sha256"]
    assert info["settings"]["detect"]["imgsz"] == 448  # webcam


def test_defaults_in_the_yaml_are_the_defaults_in_the_code() -> None:
    from pipeline.config import Config, load_config

    path = Path(__file__).parents[2] / "configs" / "default.yaml"
    assert load_config(path) == Config()
    keys = lambda values: {k: keys(v) if isinstance(v, dict) else None for k, v in values.items()}  # noqa: E731
    assert keys(yaml.safe_load(path.read_text())) == keys(Config().model_dump())  # and none is left out


def test_yunet_is_a_detector_by_path(weights: Path, media: Path, tmp_path: Path) -> None:
    events = tmp_path / "r.jsonl"
    done = fer(
        "--source",
        media / "d03_neutral_to_smile.mp4",
        "--detector",
        weights / "face_detection_yunet_2023mar.onnx",
        "--events",
        events,
        "--quiet",
    )
    assert done.returncode == 0, done.stderr
    assert len(faces(rows(events))) >= 70


def test_the_installed_command_exists() -> None:
    assert Path(FER_STREAM).exists()
