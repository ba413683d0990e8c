"""From --dataset to `ImageData`: what is read, what is made of it, and what is refused."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import datasets
import numpy as np
import pytest

from hf_transfer.data.images import to_rgb
from hf_transfer.data.loading import load_image_data
from hf_transfer.errors import UserError
from tests.data.pictures import config_for, contents, png, write_folder

SPLITS = ("train", "validation", "test")


def sizes(data) -> tuple[int, ...]:
    """Returns the number of pictures of each split."""
    return tuple(len(data.split(name)) for name in SPLITS)


def pets(root: Path, counts: Mapping[str, int] | None = None) -> Path:
    """Writes a folder of three classes without splits."""
    return write_folder(root / "pets", counts or {"ant": 20, "bee": 20, "cat": 10})


# Digits


@pytest.fixture(scope="module")
def digits():
    return load_image_data(config_for("digits"))


def test_digits(digits):
    assert digits.kind == "digits"
    assert digits.label_names == tuple("0123456789")
    assert sum(sizes(digits)) == 1797
    for split in SPLITS:
        assert digits.split(split).column_names == ["image", "label"]
        assert digits.split(split).features["image"] == datasets.Image(decode=False)
        assert min(digits.class_counts(split)) > 0
    assert digits.split_methods == {
        "train": "what the made splits left of it",
        "validation": "made: 15 % of the training pictures that the test split left, stratified by class, "
        "by content hash",
        "test": "made: 15 % of the training pictures, stratified by class, by content hash",
    }


def test_the_scans_are_those_of_scikit_learn(digits):
    from sklearn.datasets import load_digits

    scans = load_digits()
    known = {
        (scan * 255 / 16).round().astype(np.uint8).tobytes(): str(label)
        for scan, label in zip(scans.images, scans.target, strict=True)
    }
    for row in digits.test:
        pixels = np.asarray(to_rgb(row["image"]))
        assert pixels.shape == (8, 8, 3)
        assert known[pixels[:, :, 0].tobytes()] == digits.label_names[row["label"]]


def test_digits_are_split_the_same_in_another_process(digits):
    code = (
        "from hf_transfer.config import FinetuneConfig; from hf_transfer.data.loading import load_image_data;"
        "print(load_image_data(FinetuneConfig(model='none', dataset='digits')).fingerprint)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert output.stdout.strip() == digits.fingerprint


def test_no_picture_of_digits_is_in_two_splits(digits):
    splits = [contents(digits.split(name)) for name in SPLITS]
    assert not splits[0] & splits[1] | splits[0] & splits[2] | splits[1] & splits[2]
    assert digits.notes == ()


def test_a_folder_called_digits_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pets(tmp_path).rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load_image_data(config_for("digits")).kind == "imagefolder"


# Which splits there are, and which are made


def test_a_folder_without_splits(tmp_path: Path):
    data = load_image_data(config_for(pets(tmp_path), test_fraction=0.2, validation_fraction=0.25))
    assert data.kind == "imagefolder"
    assert data.label_names == ("ant", "bee", "cat")
    assert [data.class_counts(name) for name in SPLITS] == [(12, 12, 6), (4, 4, 2), (4, 4, 2)]
    assert data.split_methods["test"].startswith("made: 20 % of the training pictures, stratified")
    for name in SPLITS:
        for row in data.split(name):
            assert Path(row["image"]["path"]).parent.name == data.label_names[row["label"]]


def test_every_split_as_given(tmp_path: Path):
    folder = write_folder(
        tmp_path / "pets", {f"{split}/{pet}": 2 for split in ("train", "val", "test") for pet in "ab"}
    )
    data = load_image_data(config_for(folder))
    assert sizes(data) == (4, 4, 4)
    assert set(data.split_methods.values()) == {"as given"}
    assert contents(data.validation) == {png(number) for number in range(4, 8)}


def test_only_validation_beside_training(tmp_path: Path):
    """The validation split stays what it is; a test split comes out of training."""
    folder = write_folder(tmp_path / "pets", {"train/a": 10, "train/b": 10, "val/a": 3, "val/b": 3})
    data = load_image_data(config_for(folder, test_fraction=0.2))
    assert sizes(data) == (16, 6, 4)
    assert contents(data.validation) == {png(number) for number in range(20, 26)}
    assert contents(data.train) | contents(data.test) == {png(number) for number in range(20)}
    assert data.split_methods == {
        "train": "what the made splits left of it",
        "validation": "as given",
        "test": "made: 20 % of the training pictures, stratified by class, by content hash",
    }


def test_only_test_beside_training(tmp_path: Path):
    folder = write_folder(tmp_path / "pets", {"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 3})
    data = load_image_data(config_for(folder, validation_fraction=0.125))
    assert sizes(data) == (18, 2, 6)
    assert data.split_methods["validation"].startswith("made: 12.5 % of the training pictures, stratified")
    assert data.split_methods["test"] == "as given"


@pytest.mark.parametrize("only", ["validation", "test", "train"])
def test_a_single_split_is_all_there_is_whatever_its_name(tmp_path: Path, only: str):
    folder = write_folder(tmp_path / "pets", {f"{only}/a": 10, f"{only}/b": 10})
    data = load_image_data(config_for(folder))
    assert sum(sizes(data)) == 20
    assert min(sizes(data)) > 0
    plain = write_folder(tmp_path / "plain", {"a": 10, "b": 10})
    assert load_image_data(config_for(plain)).fingerprint == data.fingerprint


def test_validation_and_test_without_training(tmp_path: Path):
    folder = write_folder(tmp_path / "pets", {"val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2})
    with pytest.raises(UserError, match="has no training split") as raised:
        load_image_data(config_for(folder))
    assert raised.value.allowed == "test, validation"
    assert raised.value.hint == "--train_split NAME"
    assert contents(load_image_data(config_for(folder, train_split="validation")).test) == {
        png(n) for n in range(4, 8)
    }


def test_splits_that_the_user_names(tmp_path: Path):
    folder = write_folder(
        tmp_path / "pets", {f"{split}/{pet}": 2 for split in ("train", "val", "test") for pet in "ab"}
    )
    data = load_image_data(config_for(folder, train_split="test", test_split="validation"))
    assert contents(data.train) | contents(data.validation) == {png(number) for number in range(8, 12)}
    assert contents(data.test) == {png(number) for number in range(4, 8)}
    assert data.split_methods["validation"].startswith("made:")


@pytest.mark.parametrize("settings", [{"validation_split": "validation"}, {"test_split": "validation"}])
def test_the_only_split_is_not_for_judging_alone(tmp_path: Path, settings: dict):
    folder = write_folder(tmp_path / "pets", {"val/a": 5, "val/b": 5})
    with pytest.raises(UserError, match="has no training split"):
        load_image_data(config_for(folder, **settings))


def test_a_split_that_is_not_there(tmp_path: Path):
    folder = write_folder(tmp_path / "pets", {"train/a": 2, "train/b": 2, "test/a": 1})
    with pytest.raises(UserError, match="--test_split tset: .* has no such split") as raised:
        load_image_data(config_for(folder, test_split="tset"))
    assert raised.value.hint == "--test_split test"


@pytest.mark.parametrize("twice", [("validation", "test"), ("train", "validation")])
def test_one_split_for_two_purposes(tmp_path: Path, twice: tuple[str, str]):
    folder = write_folder(tmp_path / "pets", {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    with pytest.raises(UserError, match="The split 'test' is named for two purposes"):
        load_image_data(config_for(folder, **{f"{purpose}_split": "test" for purpose in twice}))


# Determined by content


def test_names_order_and_place_of_files_do_not_matter(tmp_path: Path):
    first = load_image_data(config_for(pets(tmp_path), max_train_samples=20))
    moved = tmp_path / "elsewhere" / "animals"
    for path in sorted((tmp_path / "pets").rglob("*.png")):
        target = moved / path.parent.name / f"{99 - int(path.stem)} renamed.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    second = load_image_data(config_for(moved, max_train_samples=20))
    for name in SPLITS:
        assert contents(second.split(name)) == contents(first.split(name))
    assert second.fingerprint == first.fingerprint


def test_a_picture_more_changes_the_fingerprint_and_moves_few(tmp_path: Path):
    folder = pets(tmp_path)
    before = load_image_data(config_for(folder))
    (folder / "ant" / "new.png").write_bytes(png(1000))
    after = load_image_data(config_for(folder))
    assert after.fingerprint != before.fingerprint
    assert len(contents(after.test) ^ contents(before.test)) <= 2


def test_equal_pictures_are_not_split_apart(tmp_path: Path):
    folder = pets(tmp_path)
    for path in list(folder.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    data = load_image_data(config_for(folder))
    assert sum(sizes(data)) == 100
    assert data.notes == ()


def test_limits_touch_training_only(tmp_path: Path):
    folder = pets(tmp_path)
    whole = load_image_data(config_for(folder))
    limited = load_image_data(config_for(folder, images_per_class=3))
    assert limited.class_counts("train") == (3, 3, 3)
    assert contents(limited.train) < contents(whole.train)
    for name in ("validation", "test"):
        assert contents(limited.split(name)) == contents(whole.split(name))
    assert limited.notes == (f"Training uses 9 of {len(whole.train)} pictures, as asked.",)
    assert limited.fingerprint != whole.fingerprint
    assert sum(load_image_data(config_for(folder, max_train_samples=7)).class_counts("train")) == 7


# What is noticed


def test_rare_classes_are_kept_for_training_and_named(tmp_path: Path):
    data = load_image_data(config_for(pets(tmp_path, {"ant": 20, "bee": 20, "yeti": 1, "elk": 2})))
    assert data.class_counts("train")[data.label_names.index("yeti")] == 1
    assert data.notes == (
        "Too rare for the validation split that was made, and kept for training: 'elk', 'yeti'.",
        "Too rare for the test split that was made, and kept for training: 'yeti'.",
    )


def test_a_class_that_a_given_split_lacks(tmp_path: Path):
    folder = write_folder(tmp_path / "pets", {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/b": 1})
    data = load_image_data(config_for(folder))
    assert data.notes == ("The test split has no pictures of 'a'.",)
    assert data.test["label"][:] == [1]


def test_the_same_picture_in_two_splits(tmp_path: Path):
    folder = write_folder(
        tmp_path / "pets", {f"{split}/{pet}": 4 for split in ("train", "val", "test") for pet in "ab"}
    )
    shutil.copy(folder / "train" / "a" / "0.png", folder / "test" / "a" / "leak.png")
    shutil.copy(folder / "train" / "b" / "1.png", folder / "val" / "b" / "leak.png")
    shutil.copy(folder / "train" / "b" / "2.png", folder / "val" / "b" / "leak 2.png")
    shutil.copy(folder / "val" / "a" / "3.png", folder / "test" / "a" / "3 again.png")
    assert load_image_data(config_for(folder)).notes == (
        "2 of 10 validation pictures are in the training split too.",
        "1 of 10 test pictures are in the training split too.",
        "1 of 10 test pictures are in the validation split too.",
    )


# What --dataset may be


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pets(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_image_data(config_for("~/pets")).kind == "imagefolder"


def test_local_data_never_asks_the_hub(tmp_path: Path, hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "someone" / "pets", {"a": 4, "b": 4})
    (tmp_path / "pets.csv").write_text(
        "image,label\n" + "".join(f"someone/pets/{c}/{n}.png,{c}\n" for c in "ab" for n in range(4))
    )
    assert load_image_data(config_for("someone/pets")).kind == "imagefolder"
    assert load_image_data(config_for("pets.csv")).kind == "table"
    assert hub.requests == []


# Real pictures


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [("clothing10", 10, (1403, 341, 372)), ("rbc12", 12, (5184, 728, 1245)), ("bccd3", 3, (1264, 505, 420))],
)
def test_real_data_sets(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int, expected: tuple
):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = load_image_data(config_for(assets / "datasets" / f"{name}.tar"))
    assert data.kind == "archive"
    assert sizes(data) == expected
    assert len(data.label_names) == classes
    assert set(data.split_methods.values()) == {"as given"}
    # The assets' README says that no byte-identical picture crosses splits.
    assert not [note for note in data.notes if "split too" in note]
    for split in SPLITS:
        picture = to_rgb(data.split(split)[0]["image"])
        assert min(picture.size) > 16
