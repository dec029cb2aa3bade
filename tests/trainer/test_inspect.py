"""`fer-train data inspect`: what it counts is what lies there, and the picture shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engines.contract import LABELS
from engines.errors import UsageError
from trainer.inspect import data_group, inspect_data

COUNTS = {"train": dict.fromkeys(LABELS, 3) | {"happy": 6}, "test": dict.fromkeys(LABELS, 2) | {"disgust": 0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders, none for disgust in test; train's first sad face stands in test as well, once more in another brightness."""
    random = np.random.default_rng(1)
    root = tmp_path / "faces"
    for split, counts in COUNTS.items():
        for label, n in counts.items():
            for i in range(n):
                (root / split / label).mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 256, (48, 48), np.uint8)).save(root / split / label / f"{i}.png")
    face = Image.open(root / "train" / "sad" / "0.png")
    face.save(root / "test" / "fear" / "0.png")
    face.point(lambda grey: grey // 2 + 50).save(root / "test" / "fear" / "1.png")
    return root


def run(*arguments: object) -> str:
    done = CliRunner().invoke(data_group, ["inspect", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_counts_weights_duplicates_and_warnings(folder: Path) -> None:
    found = inspect_data(folder, near=True)
    assert found["faces"] == 36
    assert found["pictures"] == {"48x48 grey": 36}
    assert found["splits"]["Training"]["counts"] == COUNTS["train"]
    assert found["splits"]["PublicTest"]["counts"] == COUNTS["test"]
    assert found["splits"]["PublicTest"]["weights"] == dict.fromkeys(LABELS, 1.0) | {"disgust": 0.0}
    assert found["splits"]["Training"]["weights"]["sad"] == pytest.approx(2 * found["splits"]["Training"]["weights"]["happy"], abs=1e-3)
    assert found["duplicates"] == {"Training": 0, "Training+PublicTest": 1, "PublicTest": 0}
    assert found["near_duplicates"] == {"Training": 0, "Training+PublicTest": 2, "PublicTest": 1}
    assert found["crowd"] is None
    assert any("PublicTest has no disgust" in text for text in found["warnings"])
    assert any("Training is not the original FER2013's" in text for text in found["warnings"])


def test_the_command_says_it_as_a_table_and_as_json(folder: Path) -> None:
    table = run(folder, "--near")
    for words in ("disgust", "PublicTest has no disgust", "48x48 grey 36", "equal images"):
        assert words in " ".join(table.split())
    found = json.loads(run(folder, "--json"))
    assert found["splits"]["Training"]["faces"] == 24
    assert found["near_duplicates"] is None


def test_the_picture_has_a_row_for_each_class_and_a_cell_for_each_face(folder: Path, tmp_path: Path) -> None:
    for label in LABELS:  # one plain grey level per class, so that it can be counted in the picture
        for file in folder.glob(f"*/{label}/*.png"):
            Image.new("L", (48, 48), 40 + 20 * LABELS.index(label)).save(file)
    run(folder, "--picture", tmp_path / "samples.png")
    picture = np.asarray(Image.open(tmp_path / "samples.png").convert("L")).astype(int)
    area = [int((abs(picture - 40 - 20 * i) <= 1).sum()) for i in range(len(LABELS))]
    shown = [sum(counts[label] for counts in COUNTS.values()) for label in LABELS]
    assert np.array(area) / area[0] * shown[0] == pytest.approx(shown, rel=0.05)
    assert picture.shape[1] > picture.shape[0]
    assert {p.name for p in tmp_path.iterdir()} == {"faces", "samples.png"}


def test_the_picture_never_goes_among_the_faces_nor_over_the_data(folder: Path, tmp_path: Path) -> None:
    for output in (folder / "train" / "happy" / "samples.png", tmp_path / "samples.jpg"):
        with pytest.raises(UsageError, match="outside of"):
            inspect_data(folder, output)
    with pytest.raises(UsageError, match="cannot be written"):
        inspect_data(folder, tmp_path / "nowhere" / "samples.png")


def test_a_broken_picture_is_one_sentence(folder: Path) -> None:
    (folder / "train" / "fear" / "2.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UsageError, match=r"2\.png cannot be read as a picture"):
        inspect_data(folder)


def test_the_real_set(data: Path) -> None:
    found = inspect_data(data / "fer2013.npz")
    assert not found["warnings"]
    assert found["left_out"] == {"lossy": 149, "not_a_face": 3}
    assert found["duplicates"] == {"Training": 1035, "Training+PublicTest": 270, "PublicTest": 26}
    assert found["crowd"]["majority"] == 30150
    assert found["crowd"]["agreement"] == pytest.approx(0.657, abs=0.001)
