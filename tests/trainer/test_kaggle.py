"""Data by the name that Kaggle gives it, through a stand-in for kagglehub on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from drawn_faces import write_csv

from engines.errors import FerError, UsageError
from trainer.cli import cli
from trainer.kaggle import faces_in, fetched


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a kagglehub on the path says it has fetched owner/name to; it has no other data set."""
    (tmp_path / "path").mkdir()
    folder = tmp_path / "cache" / "versions" / "1"
    folder.mkdir(parents=True)
    (tmp_path / "path" / "kagglehub.py").write_text(
        "def dataset_download(handle):\n"
        "    if handle != 'owner/name':\n"
        "        raise ConnectionError('no route to host\\nmore')\n"
        f"    return {str(folder)!r}\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.delitem(sys.modules, "kagglehub", raising=False)
    yield folder
    sys.modules.pop("kagglehub", None)


def test_a_command_takes_the_csv_with_usage_of_what_was_fetched(hub: Path) -> None:
    (hub / "deep").mkdir()
    write_csv(hub / "deep" / "icml_face_data.csv", 14, 7)
    (hub / "train.csv").write_text("emotion,pixels\n" + "0,0\n" * 40_000)
    (hub / "submission.csv").write_text("id,emotion\n")
    done = CliRunner().invoke(cli, ["data", "inspect", "kaggle:owner/name", "--json"], catch_exceptions=False)
    assert '"faces": 21' in done.output


@pytest.mark.parametrize(("pictures", "found"), [("images/train/happy", "images"), ("images/train/Fearful", "images"), ("angry", ".")])
def test_class_folders_are_found_however_deep(pictures: str, found: str, tmp_path: Path) -> None:
    for folder in (pictures, pictures.replace("train", "validation")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert faces_in(tmp_path) == tmp_path / found


def test_a_data_set_without_faces_is_one_sentence(hub: Path) -> None:
    (hub / "titanic.csv").write_text("age,survived\n")
    with pytest.raises(UsageError, match=r"no class folders \(it holds titanic\.csv\)"):
        fetched("owner/name")


def test_without_network_or_kagglehub_it_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FerError, match=r"ConnectionError: no route to host.*https://www\.kaggle\.com/datasets/other/one") as caught:
        fetched("other/one")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(FerError, match="pip install kagglehub"):
        fetched("owner/name")


@pytest.mark.parametrize("handle", ["", "owner", "owner/", "/name"])
def test_a_handle_without_owner_or_name_is_refused(handle: str) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        fetched(handle)
