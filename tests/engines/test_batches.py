"""However a batch falls, whoever calls, each image gets its own answer: on every backend that is here."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engines import load_classifier, load_detector, select
from engines.backends.base import in_parts
from engines.classifier import Classifier

CASES = [(backend, model) for backend in ("openvino", "onnxruntime", "torch") for model in (None, "emotion_cnn_int8")]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1] or 'default'}")
def case(request):
    backend, model = request.param
    if not select.installed(backend):
        pytest.skip(f"needs the extra {backend}")
    if backend == "torch" and model:
        pytest.skip("the backend torch does not run int8 graphs")
    return backend, model


@pytest.fixture
def faces() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 255, (34, 1, 40, 40), dtype=np.uint8)


def tolerance(backend: str, model: str | None) -> float:
    """OpenVINO answers bit for bit alike; the others choose other kernels for other sizes. Rounding flips an int8 step now and then."""
    return 0.0 if backend == "openvino" else 0.05 if model else 1e-4


def test_faces_in_batches_of_1_to_33_are_as_one_by_one(case, faces):
    backend, model = case
    one = load_classifier(model, backend=backend, device="cpu")
    alone = np.concatenate([one.infer(face[None]) for face in faces])
    for size in (*range(1, 10), 16, 17, 31, 32, 33):  # 32 is the largest that is run at once
        assert np.abs(one.infer(faces[:size]) - alone[:size]).max() <= tolerance(backend, model), size


def test_pictures_in_batches_of_1_to_9_are_as_one_by_one(case):
    backend, model = case
    if model:
        pytest.skip("there is no such detector")
    batch = np.random.default_rng(6).integers(0, 255, (9, 96, 160, 3), dtype=np.uint8)
    one = load_detector(backend=backend, device="cpu")
    alone = np.concatenate([one._engine.infer([picture[None]])[0] for picture in batch])
    for size in range(1, 10):
        deviation = np.abs(one._engine.infer([batch[:size]])[0] - alone[:size])
        assert deviation[:, 4].max() <= tolerance(backend, None)
        assert deviation[:, :4].max() <= 500 * tolerance(backend, None)  # pixels


@pytest.mark.parametrize("requests", [2, 3])
def test_pictures_side_by_side_are_as_one_by_one_also_from_three_threads(requests):
    batch = np.random.default_rng(7).integers(0, 255, (7, 96, 160, 3), dtype=np.uint8)
    one = load_detector(backend="openvino", device="cpu", requests=requests)
    alone = np.concatenate([one._engine.infer([picture[None]])[0] for picture in batch])
    for size in range(1, 8):
        assert np.array_equal(one._engine.infer([batch[:size]])[0], alone[:size]), size
    wrong: list[int] = []

    def run(start: int) -> None:
        for _ in range(5):
            if not np.array_equal(one._engine.infer([batch[start : start + 3]])[0], alone[start : start + 3]):
                wrong.append(start)

    threads = [threading.Thread(target=run, args=(start,)) for start in (0, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_engines_in_two_threads(case, faces):
    backend, model = case
    engines = [load_classifier(model, head=head, backend=backend, device="cpu", threads=1) for head in ("crowd", "fer2013")]
    alone = [one.infer(faces) for one in engines]
    wrong: list[str] = []

    def work(i: int) -> None:
        wrong.extend(engines[i].head for _ in range(15) if np.abs(engines[i].infer(faces) - alone[i]).max() > tolerance(backend, model))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not np.allclose(*alone)


def threads_of(one: Classifier) -> int:
    """What the library itself says that it runs on."""
    if one.backend == "openvino":
        (told,) = {r.get_compiled_model().get_property("INFERENCE_NUM_THREADS") for rs, _ in one._engine._compiled.values() for r in rs}
        return told
    if one.backend == "onnxruntime":
        return one._engine._session.get_session_options().intra_op_num_threads
    import torch

    return torch.get_num_threads()


@pytest.mark.parametrize("threads", [1, 2])
def test_answers_do_not_depend_on_the_number_of_threads(case, faces, threads):
    backend, model = case
    one = load_classifier(model, backend=backend, device="cpu", threads=threads)
    few = one.infer(faces)
    told = threads_of(one)
    whole = load_classifier(model, backend=backend, device="cpu")
    assert np.abs(few - whole.infer(faces)).max() <= max(tolerance(backend, model), 1e-3)
    assert told == (min(threads, threads_of(whole)) if backend == "openvino" else threads)  # OpenVINO takes no more than there are cores


def test_answers_without_an_axis_of_the_batch_are_not_cut():
    assert in_parts(lambda arrays: [np.arange(7)], [np.zeros((1, 3))], 1)[0].tolist() == list(range(7))
