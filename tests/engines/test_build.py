"""fer-build engine: what is written was checked, what makes no sense is said."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines import load_classifier, load_detector
from engines.build.compare import Row, _add_deviations, compare
from engines.build.engine import _graph, build_engine
from engines.build.measure import example_batch, ms_per_image
from engines.cli_table import text_of
from engines.errors import EngineError, ModelError, UsageError
from engines.manifest import MODELS, shipped
from engines.sidecar import Profile, read_sidecar

ROOT = Path(__file__).resolve().parents[2]


def fer_build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "engines.cli", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


def test_openvinos_own_form_is_built_checked_and_used_like_its_source(tmp_path):
    pytest.importorskip("skimage", reason="needs the extra demo")
    output = tmp_path / "emotion.xml"
    done = fer_build("engine", "emotion_cnn", "--backend", "openvino", "--precision", "fp16", "-o", str(output))
    assert done.returncode == 0, done.stderr
    assert "beside fp32, 17 images" in done.stdout
    assert "checking it against fp32" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emotion.bin", "emotion.xml", "emotion.xml.json"]
    sidecar = read_sidecar(output)
    assert (sidecar.backend, sidecar.precision, sidecar.source) == ("openvino", "fp16", "emotion_cnn")
    assert sidecar.source_sha256 == shipped()["emotion_cnn"].sha256
    assert sidecar.parity["agreement"] == 1
    faces = np.random.default_rng(0).integers(0, 255, (3, 1, 40, 40), dtype=np.uint8)
    mine, original = load_classifier(output, precision="f32"), load_classifier(precision="f32")
    assert mine.contract == original.contract
    assert np.abs(mine.infer(faces) - original.infer(faces)).max() < 0.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backend": "torch"}, "for torch there is nothing to build"),
        ({"backend": "tflite"}, "unknown backend 'tflite'; known: onnx, openvino"),
        ({"precision": "int4"}, "is built in fp32, fp16, int8, got 'int4'"),
        ({"precision": "int8"}, "give their folder with --calibration"),
        ({"batch": (4, 1, 8)}, "1 <= MIN <= OPT <= MAX, got 4:1:8"),
        ({"model": "yolo12"}, "there is no model yolo12; give a shipped name"),
        ({"output": "m.onnx"}, r"openvino writes \.xml, got m\.onnx"),
        ({"output": "none/m.xml"}, "does not exist; make it first"),
        ({"model": "emotion_cnn_int8"}, "is in int8 already, got fp32"),
    ],
)
def test_requests_that_make_no_sense_are_refused_first(tmp_path, changes, said):
    request = {"model": "emotion_cnn", "backend": "openvino", "precision": "fp32", "output": "m.xml"} | changes
    with pytest.raises(UsageError, match=said):
        build_engine(request.pop("model"), **{**request, "output": tmp_path / request["output"]})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_and_the_shipped_ones_are_kept(tmp_path):
    (tmp_path / "m.xml").write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        build_engine("emotion_cnn", backend="openvino", output=tmp_path / "m.xml")
    with pytest.raises(UsageError, match="holds the shipped models"):
        build_engine("emotion_cnn", backend="openvino", output=MODELS / "mine.xml")


@pytest.mark.parametrize("beside", ["m.bin", "m.xml.json"])
def test_what_would_be_written_beside_the_output_is_kept_too(tmp_path, beside):
    (tmp_path / beside).write_text("mine")
    with pytest.raises(UsageError, match=f"{beside} exists; give another --output"):
        build_engine("emotion_cnn", backend="openvino", output=tmp_path / "m.xml")
    (tmp_path / beside).unlink()
    (tmp_path / beside).mkdir()
    with pytest.raises(UsageError, match=f"{beside} is a folder"):
        build_engine("emotion_cnn", backend="openvino", output=tmp_path / "m.xml", overwrite=True)


def test_an_scrfd_is_built_and_used_like_its_source_and_kept_with_the_size_of_all_its_files(tmp_path, small_scrfd, white_pictures):
    asked = {"backend": "openvino", "precision": "fp32", "calibration": white_pictures, "output": tmp_path / "s.xml"}
    built = build_engine(small_scrfd(), **asked)
    assert len(load_detector(built.path).detect(np.full((64, 64, 3), 255, np.uint8))) == 1
    again = build_engine(small_scrfd(), **asked, rebuild="auto")
    assert "was kept" in again.note
    assert again.size == built.size == sum((tmp_path / name).stat().st_size for name in ("s.xml", "s.bin", "s.xml.json"))


@pytest.mark.parametrize("task", ["detector", "classifier", "scrfd"])
def test_int8_finds_its_ranges_in_what_the_model_itself_is_given(tmp_path, monkeypatch, request, task):
    given: list[np.ndarray] = []
    monkeypatch.setattr("engines.build.int8_for_openvino.int8_for_openvino", lambda source, path, samples, kept: given.extend(samples))
    if task == "classifier":
        write, folder = request.getfixturevalue("small_classifier"), tmp_path
        model = load_classifier(write(kind=1, channels=3, mean="127.5", std="127.5"))
        faces = {"images_dx": np.zeros((3, 48, 48), np.uint8), "label": np.zeros(3, int), "ferplus_votes": np.zeros((3, 10), int)}
        np.savez(tmp_path / "fer2013.npz", usage=np.array(["Training"] * 3), pixel_source=np.zeros(3, int), **faces)
    else:
        source, folder = request.getfixturevalue("float_detector"), request.getfixturevalue("white_pictures")
        model = load_detector(request.getfixturevalue("small_scrfd")() if task == "scrfd" else source)
    _graph(model.entry.path, model, "openvino", "int8", folder, tmp_path, print)
    level = {"detector": 1, "classifier": -1, "scrfd": 127.5 / 128}[task]  # of white, and of the black faces
    size = model._engine.inputs[0].shape[1:]
    assert [(one.shape, one.dtype, float(one.mean())) for one in given] == [((1, *size), np.float32, level)] * len(given)
    assert given


def test_a_place_that_takes_no_file_is_one_sentence(tmp_path, small_scrfd, white_pictures):
    asked = ["engine", str(small_scrfd()), "--backend", "openvino", "--precision", "fp32", "--calibration", str(white_pictures)]
    output = tmp_path / "m.xml"
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "-", sys.executable, "-m", "engines.cli", *asked, "-o", str(output)],  # no file above 1 kB
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1].startswith(f"fer-build: cannot write {output} (")) == (1, True)
    assert "Traceback" not in done.stderr
    if Path("/proc").is_dir():
        with pytest.raises(EngineError, match=r"cannot write /proc/m\.xml"):
            build_engine(small_scrfd(), backend="openvino", precision="fp32", calibration=white_pictures, output=Path("/proc/m.xml"))


def test_a_disagreeing_engine_is_not_written(tmp_path, sensitive_classifier):
    pytest.importorskip("skimage", reason="needs the extra demo")
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(EngineError, match=r"was not written, it does not answer as sensitive\.onnx does"):
        build_engine(sensitive_classifier, backend="openvino", precision="fp16", output=folder / "m.xml")
    assert list(folder.iterdir()) == []


def test_batches_on_the_command_line():
    for batch in ("a", "1:2", "1:2:3:4", ""):
        done = fer_build("engine", "emotion_cnn", "--backend", "onnx", "--batch", batch)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "MIN:OPT:MAX" in done.stderr


def test_a_missing_library_names_its_extra(tmp_path):
    for backend in ("tensorrt", "tensorrt-rtx"):
        try:
            __import__(backend.replace("-", "_"))
        except ImportError:
            with pytest.raises(EngineError, match=rf"fer-stream\[{backend}\]"):
                build_engine("emotion_cnn", backend=backend, output=tmp_path / "m.engine")


def test_compare_gives_a_row_for_each_backend_and_precision():
    pytest.importorskip("skimage", reason="needs the extra demo")
    done = fer_build("compare", "--model", "emotion_cnn", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["processor"]
    rows = {(row["backend"], row["precision"]): row for row in found["rows"]}
    assert {("openvino", "f32"), ("openvino", "bf16")} <= set(rows)
    exact = rows["openvino", "f32"]
    assert set(exact["ms"]) == {"1", "4", "8", "16"}
    assert (exact["max_deviation"], exact["agreement"], exact["problem"]) == (0, 1, "")
    assert all(ms > 0 for ms in exact["ms"].values())
    done = fer_build("compare", "--model", "nobody")
    assert done.returncode == 2
    assert "shipped: emotion_cnn" in done.stderr


def test_the_table_shows_what_ran_and_says_why_the_rest_did_not():
    ran = Row("detector", "a", "openvino", "bf16", ms={1: 12.345}, load_s=0.5)
    text = text_of([ran, Row("detector", "a", "torch", "f32", problem="is not there")])
    assert "12.35" in text or "12.34" in text
    assert "a torch f32: is not there" in text
    ran.problem = "could not be compared"
    assert "12.3" in text_of([ran])
    assert "a openvino bf16: could not be compared" in text_of([ran])


def test_data_that_cannot_be_read_is_said_before_anything_is_timed(tmp_path):
    said: list[str] = []
    with pytest.raises(UsageError, match="cannot read faces"):
        compare(data=tmp_path / "none", models=("emotion_cnn",), say=said.append)
    assert said == []


def test_a_backend_that_fails_at_the_comparison_does_not_end_the_others():
    pytest.importorskip("skimage", reason="needs the extra demo")
    closed, whole = load_classifier(backend="fake"), load_classifier("emotion_cnn", precision="f32")
    closed.close()
    rows = [Row("classifier", "emotion_cnn", name, "f32") for name in ("fake", "openvino")]
    loaded = {row.backend: (row, one) for row, one in zip(rows, (closed, whole), strict=True)}
    _add_deviations(shipped()["emotion_cnn"], None, loaded, print)
    assert "was closed" in rows[0].problem
    assert (rows[1].problem, rows[1].agreement) == ("", 1)


def test_timing_takes_turns():
    order: list[str] = []
    found = ms_per_image({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, rounds=2)
    assert "".join(order) == "ab" + "aaabbb" * 2
    assert set(found) == {"a", "b"}
    assert example_batch((None, None, None, 3), 2, (32, 64)).shape == (2, 32, 64, 3)
    assert example_batch((None, 1, 40, 40), 3, (32, 64)).shape == (3, 1, 40, 40)


needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs the extras tensorrt-rtx and build")
PROFILES = {
    "emotion_cnn": Profile("faces", (1, 1, 40, 40), (8, 1, 40, 40), (32, 1, 40, 40)),
    "yolo11n_face": Profile("images", (1, 32, 32, 3), (1, 384, 640, 3), (8, 640, 640, 3)),
    "emotion_cnn_int8": Profile("faces", (1, 1, 40, 40), (8, 1, 40, 40), (32, 1, 40, 40)),
}


@needs_rtx
@pytest.mark.parametrize("model", PROFILES)
def test_tensorrt_rtx_builds_without_a_gpu(model):
    from engines.build.tensorrt_from_onnx import tensorrt_from_onnx

    made = tensorrt_from_onnx(MODELS / f"{model}.onnx", library="tensorrt-rtx", profile=PROFILES[model])
    assert len(made) > 500_000


@needs_rtx
def test_tensorrts_own_words_reach_the_user(absurd_onnx):
    from engines.build.tensorrt_from_onnx import tensorrt_from_onnx

    wrong = Profile("faces", (1, 2, 40, 40), (1, 2, 40, 40), (1, 2, 40, 40))
    with pytest.raises(EngineError, match=r"could not build|refuses the profile"):
        tensorrt_from_onnx(MODELS / "emotion_cnn.onnx", library="tensorrt-rtx", profile=wrong)
    with pytest.raises((EngineError, ModelError)):
        tensorrt_from_onnx(absurd_onnx, library="tensorrt-rtx", profile=PROFILES["yolo11n_face"])


def test_int8_is_symmetric_and_signed_and_agrees(tmp_path, data):
    for package in ("nncf", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extras build and onnxruntime")
    import onnx

    from engines.build.calibration import samples_of
    from engines.build.int8_from_onnx import KEPT, int8_from_onnx

    entry = shipped()["emotion_cnn"]
    samples = samples_of(load_classifier(), data, "train", 40)
    path = int8_from_onnx(entry.path, tmp_path / "m.onnx", samples, kept=KEPT["classifier"])
    model = onnx.load(str(path))
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantisers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(quantisers) > 16
    assert {(values[node.input[2]].dtype.name, bool(values[node.input[2]].any())) for node in quantisers} == {("int8", False)}
    batch = np.concatenate(samples)
    answers = [load_classifier(one, precision="f32").infer(batch).argmax(1) for one in (path, entry.path)]
    assert (answers[0] == answers[1]).mean() > 0.85


@pytest.mark.parametrize("name", ["emotion_cnn", "yolo11n_face"])
def test_int8_for_openvino_is_in_its_own_form_and_agrees(tmp_path, data, name):
    pytest.importorskip("nncf", reason="needs the extra build")
    from engines.build.engine import build_engine

    built = build_engine(name, backend="openvino", precision="int8", calibration=data, output=tmp_path / "m.xml")
    assert "FakeQuantize" in built.path.read_text()
    assert built.size < 0.8 * shipped()[name].size
    assert built.parity.problems("int8") == []


def test_fp16_graphs_answer_like_fp32_with_the_same_types(tmp_path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extras build and onnxruntime")
    from engines import load_detector
    from engines.build.fp16_from_onnx import fp16_from_onnx
    from engines.build.int8_from_onnx import KEPT

    batch = np.random.default_rng(0).integers(0, 255, (1, 64, 96, 3), dtype=np.uint8)
    path = fp16_from_onnx(MODELS / "yolo11n_face.onnx", tmp_path / "m.onnx", kept=KEPT["detector"])
    mine, original = (load_detector(one, backend="onnxruntime")._engine for one in (path, None))
    assert mine.inputs[0].dtype == original.inputs[0].dtype
    assert np.abs(mine.infer([batch])[0] - original.infer([batch])[0]).max() < 0.2
