"""The report: every file, nothing from outside, no face where none may be; the command as it is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer needs torch: pip install 'fer-stream[train]'")
pytest.importorskip("sklearn", reason="the trainer needs scikit-learn: pip install 'fer-stream[train]'")
pytest.importorskip("captum", reason="Grad-CAM needs captum: pip install 'fer-stream[train]'")

import torch
from click.testing import CliRunner
from PIL import Image

from engines.contract import LABELS
from engines.errors import UsageError
from trainer.figures import figures
from trainer.gradcam import gradcam
from trainer.judge import Judged
from trainer.models import build_model
from trainer.recipes import ModelSettings, Recipe
from trainer.report import read_log, write_report
from trainer.report_cli import evaluate_command

CHARTS = ("confusion_counts", "confusion_rates", "roc", "reliability", "risk_coverage", "f1")


def fabricated(head: str = "crowd", seed: int = 0) -> Judged:
    """Sixty faces, none of them disgust, and a model that is right more often than not."""
    random = np.random.default_rng(seed)
    truth = random.choice([0, 2, 3, 4, 5, 6], 60)
    probabilities = random.dirichlet(np.ones(7), 60) + np.eye(7)[truth]
    probabilities /= probabilities.sum(1, keepdims=True)
    found = figures(probabilities, truth, LABELS, in_training=truth == 0, threshold=0.5)
    images = random.integers(0, 256, (60, 48, 48), dtype=np.uint8)
    return Judged(head, "the labels", images, truth, probabilities, {"against": "the labels", "faces_without_truth": 0} | found)


def about(*judged: Judged) -> dict:
    return {
        "model": {"name": "<made>", "sha256": "ab" * 32, "labels": list(LABELS)}, "tta": "none", "made": "2030-01-02",
        "command": "fer-train evaluate --model made", "heads": {one.head: one.figures for one in judged},
        "data": {"name": "set.npz", "split": "PublicTest", "faces": 60, "notes": ["counts differ"]},
    }  # fmt: skip


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Two pictures of each of three classes, in folders."""
    random = np.random.default_rng(3)
    for split in ("train", "test"):
        for name in ("angry", "happy", "neutral"):
            folder = tmp_path / "faces" / split / name
            folder.mkdir(parents=True)
            for k in range(2):
                Image.fromarray(random.integers(0, 256, (48, 48), dtype=np.uint8)).save(folder / f"{k}.png")
    return tmp_path / "faces"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What the training loop leaves: a small network, two epochs."""
    folder = tmp_path / "small"
    folder.mkdir()
    recipe = Recipe(name="small", model=ModelSettings(widths=[4, 8]))
    torch.manual_seed(0)
    state = build_model(recipe.model, recipe.data).state_dict()
    torch.save({"ema": state, "epoch": 2, "metrics": {}}, folder / "best.ckpt")
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    lines = [{"epoch": e, "loss": 3 / e, "fer2013_accuracy": e / 5, "seconds": 1.0} for e in (1, 2, 2)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_report_holds_every_file_and_its_page_nothing_from_outside(tmp_path: Path) -> None:
    judged = [fabricated("crowd"), fabricated("fer2013", seed=1)]
    files = write_report(tmp_path / "report", about(*judged), judged)
    names = {f"{one.head}_{name}.png" for one in judged for name in (*CHARTS, "misclassified")}
    assert {path.name for path in (tmp_path / "report").iterdir()} == names | {"metrics.json", "index.html"} == {f.name for f in files}
    for name in names:
        assert min(Image.open(tmp_path / "report" / name).size) > 300
    page = files[-1].read_text()
    assert page.count("data:image/png;base64,") == len(names)
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert set(re.findall(r'(?:src|href)="([^;]*;)', page)) == {"data:image/png;"}
    for word in ("&lt;made&gt;", "ab" * 32, "set.npz", "counts differ", "at work or in education is prohibited", "--model made"):
        assert word in page
    assert "it needs gradients" in page  # why there is no Grad-CAM
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["heads"]["crowd"]["labels"]["disgust"]["support"] == 0


def test_no_faces_leaves_no_face_picture(tmp_path: Path) -> None:
    judged = fabricated()
    files = write_report(tmp_path, about(judged), [judged], faces=False)
    assert {path.name for path in files if path.suffix == ".png"} == {f"crowd_{name}.png" for name in CHARTS}
    page = files[-1].read_text()
    assert page.count("<img") == len(CHARTS)
    assert "--no-faces" in page


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    judged = fabricated()
    for folder in ("a", "b"):
        write_report(tmp_path / folder, about(judged), [judged])
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    judged = fabricated()
    with pytest.raises(UsageError, match="cannot write the report"):
        write_report(tmp_path / "file", about(judged), [judged])


def test_gradcam_marks_the_place_that_speaks_for_the_label() -> None:
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[3].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    faces = np.zeros((2, 1, 8, 8), np.uint8)
    faces[:, 0, 1, 6] = 200
    heat = gradcam(_Tuple(net), faces, 0, np.array([0, 1]))
    assert np.unravel_index(heat[0].argmax(), (8, 8)) == (1, 6)
    assert heat[0].max() == pytest.approx(1)
    assert not heat[1].any()  # the same place speaks against the other label


def test_gradcam_of_an_attention_network_is_refused_with_a_reason() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 2, 2))
    net.add_module("mix", torch.nn.MultiheadAttention(4, 1))
    net.forward = lambda x: (net[0](x).mean((2, 3)),)
    with pytest.raises(UsageError, match="attention"):
        gradcam(net, np.zeros((1, 1, 8, 8), np.uint8), 0, np.array([0]))


class _Tuple(torch.nn.Module):
    """A network's logits as the trainer's networks give them: a tuple, one per head."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, faces: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.net(faces.float()),)


def test_the_last_row_of_a_repeated_epoch_counts(run: Path) -> None:
    assert [row["epoch"] for row in read_log(run / "log.jsonl")] == [1, 2]
    assert read_log(run / "none.jsonl") == []


def test_a_run_is_reported_with_its_training_and_gradcam(run: Path, faces: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    done = CliRunner().invoke(
        evaluate_command, ["--model", str(run), "--data", str(faces), "--report", str(report), "--tta", "ten-crop"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    names = {path.name for path in report.iterdir()}
    assert {"training.png", "crowd_gradcam.png", "fer2013_gradcam.png", "fer2013_misclassified.png"} <= names
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["tta"] == "ten-crop"
    assert metrics["heads"]["fer2013"]["confusion"]["counts"][1] == [0] * 7
    assert metrics["command"].startswith("fer-train evaluate --model")
    without = [path for path in report.iterdir() if path.suffix == ".part"]
    assert not without


def test_a_run_says_which_heads_it_has(run: Path, faces: Path) -> None:
    with pytest.raises(UsageError, match="no head 'feelings'; it has crowd, fer2013"):
        CliRunner().invoke(evaluate_command, ["--model", str(run), "--data", str(faces), "--head", "feelings"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--model", "emotion_cmn"], "did you mean emotion_cnn"),
        (["--split", "Validation"], "has no split Validation"),
        (["--label-map", "happy"], "expected old=new"),
        (["--label-map", "bored=sad"], "no such folder"),
        (["--no-faces"], "give its folder with --report"),
        (["--head", "feelings"], "has no head 'feelings'"),
    ],
)
def test_what_was_asked_wrongly_is_one_sentence(faces: Path, extra: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        CliRunner().invoke(evaluate_command, ["--model", "emotion_cnn", "--data", str(faces), *extra], catch_exceptions=False)
    assert "\n" not in str(raised.value)


def test_the_shipped_model_is_judged_on_real_faces(data: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    arguments = ["--model", "emotion_cnn", "--data", str(data / "fer2013.npz"), "--limit", "400", "--json", "--no-faces"]
    done = CliRunner().invoke(evaluate_command, [*arguments, "--report", str(report)], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["heads"]["crowd"]["accuracy"] > 0.75
    assert found["heads"]["crowd"]["ece"] < 0.08
    assert found["heads"]["fer2013"]["accuracy"] > 0.55
    assert found["heads"]["fer2013"]["faces"] == 400
    assert found == json.loads((report / "metrics.json").read_text())
    assert not [path.name for path in report.iterdir() if "misclassified" in path.name or "gradcam" in path.name]
