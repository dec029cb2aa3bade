"""torch compiled, in bf16, and on a GPU: the answers stay the same."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from engines import load_classifier, load_detector  # noqa: E402
from engines.backends.torch_cuda import fastest_exact  # noqa: E402
from engines.backends.torch_program import OnnxProgram  # noqa: E402
from engines.errors import EngineError, UsageError  # noqa: E402
from engines.manifest import MODELS  # noqa: E402
from engines.onnx_file import read_onnx  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA")


def faces(count: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 255, (count, 1, 40, 40), dtype=np.uint8)


def test_options_are_checked(small_classifier):
    with pytest.raises(UsageError, match="the backend torch has no option 'compiled'; it has compile, cuda_graphs"):
        load_classifier(backend="torch", device="cpu", options={"compiled": True})
    with pytest.raises(UsageError, match="the option compile of torch must be one of False, True, got 'yes'"):
        load_classifier(backend="torch", device="cpu", options={"compile": "yes"})
    with pytest.raises(UsageError, match="openvino has no option 'compile'; it has none"):
        load_classifier(backend="openvino", options={"compile": True})


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("gcc")), reason="inductor needs a C++ compiler on the CPU")
def test_a_compiled_model_answers_like_an_eager_one_also_from_two_threads(small_classifier):
    path = small_classifier(4, labels="a,b,c,d", softmax=True)
    eager = load_classifier(path, backend="torch", device="cpu")
    compiled = load_classifier(path, backend="torch", device="cpu", options={"compile": True})
    found: dict[int, np.ndarray] = {}

    def run(count: int) -> None:
        found[count] = compiled.infer(faces(count))

    threads = [threading.Thread(target=run, args=(count,)) for count in (3, 4)]  # one shape: each costs seconds to compile
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for count in (3, 4):
        assert found[count] == pytest.approx(eager.infer(faces(count)), abs=1e-5)


def test_convolutions_have_their_weights_channels_last_and_in_the_precision_that_they_compute_in():
    program = OnnxProgram(read_onnx(MODELS / "emotion_cnn.onnx"), torch.device("cpu"), torch.bfloat16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        plan = program.prepare(((2, 1, 40, 40),))
    weights = [step.arguments[1] for step in plan if len(step.arguments) > 1 and getattr(step.arguments[1], "ndim", 0) == 4]
    kernels = [weight for weight in weights if weight.shape[2] > 1]
    assert len(kernels) >= 3
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) and kernel.dtype == torch.bfloat16 for kernel in kernels)


def test_bf16_stays_near_f32_and_f32_is_what_a_cpu_computes_in():
    exact, rough, default = (load_classifier(backend="torch", device="cpu", precision=p).infer(faces(5)) for p in ("f32", "bf16", None))
    assert 0 < np.abs(exact - rough).max() < 0.1
    assert np.array_equal(exact, default)


def test_the_precision_of_a_gpu_is_the_fastest_that_is_exact_enough():
    exact = [np.array([[1.0, 100], [2, 200]])]
    near, far, broken = [exact[0] * 1.001], [exact[0] * [[1, 1.1]]], [exact[0] * np.nan]
    assert fastest_exact({"f32": (1, exact), "f16": (0.6, near), "bf16": (0.5, far)}) == "f16"
    assert fastest_exact({"f32": (1, exact), "f16": (0.6, near), "bf16": (0.5, near)}) == "bf16"
    assert fastest_exact({"f32": (1, exact), "f16": (0.97, near), "bf16": (1.2, near)}) == "f32"
    assert fastest_exact({"f32": (1, exact), "f16": (0.5, broken)}) == "f32"


def test_a_closed_model_says_so(small_classifier):
    one = load_classifier(small_classifier(), backend="torch", device="cpu")
    one.close()
    one.close()
    with pytest.raises(EngineError, match="was closed"):
        one.infer(faces(1))


@needs_cuda
@pytest.mark.parametrize("options", [{}, {"cuda_graphs": False}, {"compile": True}], ids=["graphs", "eager", "compiled"])
def test_a_gpu_answers_like_fp32_on_the_cpu_in_every_batch_and_from_three_threads(options):
    one = load_classifier(backend="torch", device="cuda", precision="f32", options=options)
    crops = faces(33)
    exact = load_classifier(backend="torch", device="cpu").infer(crops)
    for count in (1, 2, 5, 32, 33, 1):
        assert np.abs(one.infer(crops[:count]) - exact[:count]).max() < 5e-3  # TF32
    found: list[float] = []

    def run(start: int) -> None:
        for _ in range(20):
            found.append(float(np.abs(one.infer(crops[start : start + 8]) - exact[start : start + 8]).max()))

    threads = [threading.Thread(target=run, args=(start,)) for start in (0, 8, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    assert max(found) < 5e-3


@needs_cuda
def test_a_gpu_chooses_a_precision_that_finds_the_same_faces_and_two_engines_run_at_once():
    pictures = np.random.default_rng(6).integers(0, 255, (2, 96, 160, 3), dtype=np.uint8)
    detector, classifier = load_detector(backend="torch", device="cuda"), load_classifier(backend="torch", device="cuda")
    exact = load_detector(backend="torch", device="cpu")._engine.infer([pictures])[0]
    deviations: list[float] = []

    def detect() -> None:
        for _ in range(20):
            deviations.append(float(np.abs(detector._engine.infer([pictures])[0][:, 4] - exact[:, 4]).max()))

    thread = threading.Thread(target=detect)
    thread.start()
    answers = [classifier.infer(faces(9)) for _ in range(20)]
    thread.join()
    assert len(deviations) == 20
    assert max(deviations) < 0.05
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
