"""Every form of labelled faces gives the same arrays, and what is broken is said in one sentence."""

from __future__ import annotations

import gzip
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.contract import LABELS
from engines.errors import UsageError
from trainer.data import PUBLISHED, DataWarning, class_counts, class_weights, crowd_targets, load_faces, stratified_split

pytestmark = pytest.mark.filterwarnings("ignore::trainer.data.DataWarning")

PER_CLASS = {"Training": 4, "PublicTest": 2, "PrivateTest": 1}
KAGGLE_FOLDERS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
OTHER_NAMES = ("Anger", "Disgusted", "fearful", "Happiness", "NEUTRAL", "sadness", "surprised")


def faces(seed: int, n: int) -> np.ndarray:
    """(n, 48, 48) uint8, smooth as faces are and each one different."""
    noise = np.random.default_rng(seed).integers(0, 256, (n, 6, 6), np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((48, 48), Image.Resampling.BICUBIC)) for x in noise])


@pytest.fixture(scope="module")
def table() -> list[tuple[int, str, np.ndarray]]:
    """(emotion, Usage, image) rows as in FER2013, classes mixed."""
    keys = [(emotion, usage) for usage, n in PER_CLASS.items() for _ in range(n) for emotion in range(7)]
    return [(emotion, usage, image) for (emotion, usage), image in zip(keys, faces(0, len(keys)), strict=True)]


def text_of(rows: list, header: str = "emotion,pixels,Usage") -> str:
    order = [name.strip().lower() for name in header.split(",")]
    lines = [header]
    for emotion, usage, image in rows:
        cell = {"emotion": str(emotion), "usage": usage, "pixels": " ".join(map(str, np.ravel(image)))}
        lines.append((", " if " " in header and "usage" in order else ",").join(cell[name] for name in order))
    return "\n".join(lines) + "\n"


def csv_of(folder: Path, rows: list, header: str = "emotion,pixels,Usage", name: str = "fer2013.csv") -> Path:
    path = folder / name
    path.write_text(text_of(rows, header))
    return path


def votes_of(folder: Path, rows: list, votes: list[list[int]], nameless: tuple[int, ...] = ()) -> Path:
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    lines = [
        ",".join([usage, "" if i in nameless else f"fer{i:07d}.png", *map(str, vote)])
        for i, ((_, usage, _), vote) in enumerate(zip(rows, votes, strict=True))
    ]
    path = folder / "fer2013new.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def folders_of(root: Path, rows: list, names: tuple[str, ...] = KAGGLE_FOLDERS, splits: dict[str, str] | None = None) -> Path:
    splits = splits or {"Training": "train", "PublicTest": "test"}
    for i, (emotion, usage, image) in enumerate(rows):
        if usage in splits:
            wanted = LABELS[emotion][:3]
            folder = root / splits[usage] / next(name for name in names if name.lower().startswith(wanted))
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:03d}.png")
    return root


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(getattr(a[split], name), getattr(b[split], name)) for split in a for name in ("images", "label", "crowd", "majority")
    )


def contents(found: dict) -> dict[str, set[tuple[bytes, str]]]:
    return {s: {(image.tobytes(), f.classes[label]) for image, label in zip(f.images, f.label, strict=True)} for s, f in found.items()}


def test_csv_gives_pixels_labels_and_splits(tmp_path: Path, table: list) -> None:
    found = load_faces(csv_of(tmp_path, table))
    assert {split: len(f) for split, f in found.items()} == {split: 7 * n for split, n in PER_CLASS.items()}
    for split, f in found.items():
        mine = [row for row in table if row[1] == split]
        assert f.images.dtype == np.uint8
        assert np.array_equal(f.images, [image for _, _, image in mine])
        assert f.label.tolist() == [emotion for emotion, _, _ in mine]
        assert f.crowd.shape == (len(f), 7)
        assert not f.crowd.any()
        assert (f.majority == -1).all()


@pytest.mark.parametrize("header", [" emotion, Usage, pixels", "Usage,emotion,pixels", "EMOTION,PIXELS,USAGE"])
def test_spellings_and_orders_of_the_header_give_equal_sets(tmp_path: Path, table: list, header: str) -> None:
    other = csv_of(tmp_path, table, header, "icml_face_data.csv")
    assert same(load_faces(csv_of(tmp_path, table)), load_faces(other))


def test_gz_and_zip_give_what_the_plain_csv_gives(tmp_path: Path, table: list) -> None:
    plain = csv_of(tmp_path, table)
    (tmp_path / "fer2013.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(plain, "fer2013/fer2013.csv")
        archive.writestr("__MACOSX/._fer2013.csv", b"\0\5\26")
        archive.writestr("fer2013/README", b"about")
    for name in ("fer2013.csv.gz", "archive.zip"):
        assert same(load_faces(plain), load_faces(tmp_path / name))


def test_csv_without_usage_is_split_in_proportion_and_by_seed(tmp_path: Path, table: list) -> None:
    pytest.importorskip("sklearn", reason="splits need the train extra")
    path = csv_of(tmp_path, table, "emotion,pixels")
    with pytest.warns(DataWarning, match="no held-out split"):
        found = load_faces(path)
    assert class_counts(found["PublicTest"].label).tolist() == [1] * 7
    assert class_counts(found["Training"].label).tolist() == [sum(PER_CLASS.values()) - 1] * 7
    assert same(found, load_faces(path))
    assert not same(found, load_faces(path, seed=2))


@pytest.mark.parametrize("names", [KAGGLE_FOLDERS, OTHER_NAMES])
@pytest.mark.parametrize("held", ["test", "val", "validation", "Valid"])
def test_folders_are_labelled_by_their_names_not_by_their_order(tmp_path: Path, table: list, names: tuple, held: str) -> None:
    found = load_faces(folders_of(tmp_path / "faces", table, names, {"Training": "train", "PublicTest": held}))
    wanted = contents(load_faces(csv_of(tmp_path, table)))
    assert contents(found) == {split: wanted[split] for split in ("Training", "PublicTest")}


def test_test_beside_val_is_kept_aside_as_private_test(tmp_path: Path, table: list) -> None:
    root = folders_of(tmp_path / "faces", table, splits={"Training": "train", "PublicTest": "val", "PrivateTest": "test"})
    assert contents(load_faces(root)) == contents(load_faces(csv_of(tmp_path, table)))


def test_class_folders_alone_are_split_in_proportion(tmp_path: Path, table: list) -> None:
    pytest.importorskip("sklearn", reason="splits need the train extra")
    found = load_faces(folders_of(tmp_path / "faces", table, splits=dict.fromkeys(PER_CLASS, ".")))
    assert {split: class_counts(f.label).tolist() for split, f in found.items()} == {"Training": [6] * 7, "PublicTest": [1] * 7}


def test_a_split_that_is_not_there_is_one_sentence(tmp_path: Path, table: list) -> None:
    found = load_faces(folders_of(tmp_path / "faces", table, splits={"PublicTest": "test"}))
    assert list(found) == ["PublicTest"]
    with pytest.raises(UsageError, match="no split Training"):
        found["Training"]


def test_pictures_of_any_size_and_colour_become_squares_of_the_asked_kind(tmp_path: Path) -> None:
    red = np.zeros((90, 120, 3), np.uint8)
    red[..., 0] = 255
    for split in ("train", "test"):
        (tmp_path / split / "happy").mkdir(parents=True)
        Image.fromarray(red).save(tmp_path / split / "happy" / "a.png")
    colour = load_faces(tmp_path, size=64, colour="rgb")["Training"].images
    assert colour.shape == (1, 64, 64, 3)
    assert (colour == (255, 0, 0)).all()
    grey = load_faces(tmp_path, size=32)["Training"].images
    assert grey.shape == (1, 32, 32)
    assert (grey == 76).all()  # ITU-R 601: .299 of 255


def test_grey_csv_in_colour_and_another_size_repeats_the_grey_level(tmp_path: Path, table: list) -> None:
    images = load_faces(csv_of(tmp_path, table), size=60, colour="rgb")["Training"].images
    assert images.shape == (28, 60, 60, 3)
    assert (images == images[..., :1]).all()


def test_a_subset_of_classes_drops_the_others_and_counts_anew(tmp_path: Path, table: list) -> None:
    six = tuple(label for label in LABELS if label != "disgust")
    path = csv_of(tmp_path, table)
    disgust_and_fear = [0, 0, 0, 0, 0, 6, 4, 0, 0, 0]
    found = load_faces(path, classes=six, votes=votes_of(tmp_path, table, [disgust_and_fear] * len(table)))
    assert found["Training"].classes == six
    whole = contents(load_faces(path))
    assert contents(found) == {split: {pair for pair in pairs if pair[1] != "disgust"} for split, pairs in whole.items()}
    assert (found["Training"].crowd == np.eye(6)[six.index("fear")]).all()
    assert (found["Training"].majority == -1).all()  # the majority is disgust


def test_a_class_that_is_none_of_the_seven_cannot_be_asked_for(tmp_path: Path, table: list) -> None:
    with pytest.raises(UsageError, match="contempt"):
        load_faces(csv_of(tmp_path, table), classes=("happy", "contempt"))


def test_votes_are_joined_by_row_whatever_the_image_names(tmp_path: Path, table: list) -> None:
    columns = [4, 5, 6, 1, 3, 2, 0]  # of FER+, in the order of LABELS
    votes = [[0] * 10 for _ in table]
    for i, vote in enumerate(votes):
        vote[columns[i % 7]], vote[columns[(i + 1) % 7]], vote[8] = 6, 2, 2
    votes[0] = [0] * 9 + [10]  # not a face
    votes[1] = [0, 0, 0, 0, 5, 5, 0, 0, 0, 0]  # angry and disgust
    votes[2] = [0, 2, 0, 0, 0, 0, 0, 8, 0, 0]  # contempt
    found = load_faces(csv_of(tmp_path, table), votes=votes_of(tmp_path, table, votes, nameless=(0, 3, 5, 30)))
    training, public = found["Training"], found["PublicTest"]
    assert len(training) == 27  # without the one that is not a face
    assert training.majority.tolist() == [-1, -1, 3, 4, 5, 6, *(i % 7 for i in range(7, 28))]
    assert public.majority.tolist() == [i % 7 for i in range(28, 42)]
    assert training.crowd[2] == pytest.approx([0, 0, 0, 0.75, 0.25, 0, 0])
    assert training.crowd[0] == pytest.approx([0.5, 0.5, 0, 0, 0, 0, 0])


def test_votes_of_another_number_of_rows_are_an_error_with_both_numbers(tmp_path: Path, table: list) -> None:
    votes = votes_of(tmp_path, table[:-3], [[1] * 10] * (len(table) - 3))
    with pytest.raises(UsageError, match=f"{len(table) - 3} rows .* {len(table)}"):
        load_faces(csv_of(tmp_path, table), votes=votes)


def test_votes_in_another_order_are_an_error(tmp_path: Path, table: list) -> None:
    votes = votes_of(tmp_path, table[::-1], [[1] * 10] * len(table))
    with pytest.raises(UsageError, match="row 1 is PrivateTest"):
        load_faces(csv_of(tmp_path, table), votes=votes)


def test_votes_for_folders_are_an_error(tmp_path: Path, table: list) -> None:
    with pytest.raises(UsageError, match="leave the votes out"):
        load_faces(folders_of(tmp_path / "faces", table), votes=votes_of(tmp_path, table, [[1] * 10] * len(table)))


def test_what_the_crowd_head_learns(tmp_path: Path, table: list) -> None:
    votes = [[0, 6, 0, 2, 0, 0, 0, 0, 2, 0]] * 41 + [[0] * 7 + [10, 0, 0]] * 8
    found = load_faces(csv_of(tmp_path, table), votes=votes_of(tmp_path, table, votes))
    training, private = found["Training"], found["PrivateTest"]
    assert (crowd_targets(training, "probability") == np.float32([0, 0, 0, 0.75, 0.25, 0, 0])).all()
    assert (crowd_targets(training, "majority") == np.eye(7)[3]).all()
    assert not crowd_targets(private, "majority").any()
    assert (crowd_targets(private, "original").argmax(1) == private.label).all()
    with pytest.raises(UsageError, match="plurality"):
        crowd_targets(training, "plurality")


def test_duplicates_across_splits_stay_unless_asked_otherwise(tmp_path: Path, table: list) -> None:
    again = [*table, (2, "PublicTest", table[0][2]), (3, "PrivateTest", table[5][2])]
    path = csv_of(tmp_path, again)
    found = load_faces(path)
    assert len(found["Training"]) == 28
    assert found["PublicTest"].in_training.tolist() == [False] * 14 + [True]
    assert found["PrivateTest"].in_training.tolist() == [False] * 7 + [True]
    dropped = load_faces(path, drop_duplicates=True)
    assert len(dropped["Training"]) == 26
    assert len(dropped["PublicTest"]) == 15


def test_counts_unlike_the_originals_are_a_warning_that_names_them(tmp_path: Path, table: list) -> None:
    with pytest.warns(DataWarning, match="PublicTest is not the original FER2013's: 14 faces for 3,589 .2 angry for 467"):
        load_faces(csv_of(tmp_path, table))


def broken(table: list, row: int, **cells: object) -> list:
    emotion, usage, image = table[row]
    changed = (cells.get("emotion", emotion), cells.get("usage", usage), cells.get("image", image))
    return [*table[:row], changed, *table[row + 1 :]]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"image": np.zeros(2303, int)}, "2303 pixels, expected 2304"),
        ({"image": np.full(2304, 256)}, "0…255"),
        ({"image": np.full(2304, -1)}, "0…255"),
        ({"image": np.array(["x"] * 2304)}, "0…255"),
        ({"image": np.array([], int)}, "0 pixels"),
        ({"emotion": 7}, "emotion must be 0…6"),
        ({"emotion": ""}, "emotion must be 0…6"),
        ({"usage": "Testing"}, "Usage must be one of"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, table: list, cells: dict, said: str) -> None:
    with pytest.raises(UsageError, match=rf"fer2013\.csv, line 7: .*{said}"):
        load_faces(csv_of(tmp_path, broken(table, 5, **cells)))


def test_a_broken_picture_is_named(tmp_path: Path, table: list) -> None:
    root = folders_of(tmp_path / "faces", table)
    whole = root / "train" / "sad" / "004.png"
    for content in (b"no picture", whole.read_bytes()[:400], b""):
        whole.write_bytes(content)
        with pytest.raises(UsageError, match=r"004\.png cannot be read as a picture .*remove or replace it"):
            load_faces(root)


@pytest.mark.parametrize(("name", "said"), [("3", "a digit means another class"), ("contempt", "unknown class 'contempt'")])
def test_class_folders_that_cannot_be_known_are_refused(tmp_path: Path, table: list, name: str, said: str) -> None:
    root = folders_of(tmp_path / "faces", table)
    (root / "train" / "happy").rename(root / "train" / name)
    with pytest.raises(UsageError, match=rf"train.{name}: {said}"):
        load_faces(root)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_files_that_are_something_else_are_one_sentence(tmp_path: Path, table: list) -> None:
    packed = gzip.compress(text_of(table).encode())
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "")
        archive.writestr("b.csv", "")
    (tmp_path / "empty").mkdir()
    for path, said in [
        (tmp_path / "nowhere.csv", "no training data at"),
        (tmp_path / "empty", "no pictures in class folders"),
        (tmp_path / "two.zip", "holds a.csv, b.csv"),
        (write(tmp_path / "a.txt", b"words"), "is no training data"),
        (write(tmp_path / "cut.csv.gz", packed[: len(packed) // 2]), "cannot be read as CSV"),
        (write(tmp_path / "no.zip", b"words"), "cannot be read as CSV"),
        (write(tmp_path / "no.npz", b"words"), "cannot be read as .npz"),
        (write(tmp_path / "no.csv", b"\xff\xfe\x00"), "cannot be read as CSV"),
        (write(tmp_path / "test.csv", b"pixels\n1 2 3\n"), "lacks the column emotion"),
        (write(tmp_path / "void.csv", b""), "lacks the column emotion, pixels"),
        (write(tmp_path / "header.csv", b"emotion,pixels,Usage\n"), "no faces"),
    ]:
        with pytest.raises(UsageError, match=said):
            load_faces(path)


def test_a_class_that_is_not_there_weighs_nothing() -> None:
    label = np.repeat([0, 2, 3], [10, 5, 20])
    weights = class_weights(label)
    assert weights.tolist() == pytest.approx([0.857143, 0, 1.714286, 0.428571, 0, 0, 0], abs=1e-5)


def test_a_stratified_split_keeps_every_row_once_and_a_lonely_class_in_training() -> None:
    pytest.importorskip("sklearn", reason="splits need the train extra")
    label = np.repeat([0, 1, 2], [60, 40, 1])
    kept, held = stratified_split(label, 0.2, seed=3)
    assert sorted([*kept, *held]) == list(range(101))
    assert class_counts(label[held], 3).tolist() == [12, 8, 0]


def test_the_real_set_has_the_published_counts_and_its_known_duplicates(data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_faces(data / "fer2013.npz")
    training, public = found["Training"], found["PublicTest"]
    assert class_counts(public.label).tolist() == list(PUBLISHED["PublicTest"])
    assert len(training) == 28557  # 28,709 without 149 lossy rows and 3 that are not a face
    assert public.in_training.sum() == 280
    assert (public.majority >= 0).sum() == 3372
    assert set(training.crowd.sum(1).round(5).tolist()) == {0, 1}
