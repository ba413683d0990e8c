"""Data that cannot be used: one message each, that says what is wrong and what to do."""

from pathlib import Path

import pytest

from hf_transfer.data import loading
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.table import RawTable, stored_images
from hf_transfer.errors import UserError
from tests.data.pictures import config_for, png, write_folder
from tests.hub_server import HubServer


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"a": 5}, "has only one class, 'a'"),
        ({"train/a": 5, "test/a": 5}, "has only one class, 'a'"),
        ({"a": 5, "b": 0, "c": 3}, "has no training pictures for 1 of its 3 classes: 'b'"),
        ({"train/a": 5, "train/b": 5, "val/a": 1, "val/dog": 1}, "validation split .* training split lacks: 'dog'"),
        ({"train/a": 5, "train/b": 5, "test/a": 0}, "No pictures were found in the class folders of .*/test"),
        ({"train/a": 5, "train/b": 5, "test": 0}, "/test has no class folders"),
        ({"a": 1, "b": 1}, "too small to make a test split: no class has a picture to spare"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, counts: dict[str, int], words: str):
    with pytest.raises(UserError, match=words):
        load_image_data(config_for(write_folder(tmp_path / "pets", counts)))


def test_numbers_that_do_not_count_from_zero(tmp_path: Path):
    write_folder(tmp_path, {"pictures": 4})
    rows = [f"pictures/{number}.png,{1 + number % 2}" for number in range(4)]
    (tmp_path / "pets.csv").write_text("\n".join(["image,label", *rows]))
    with pytest.raises(UserError, match=r"labels of .*pets.csv are the numbers 1, 2\."):
        load_image_data(config_for(tmp_path / "pets.csv"))


def test_an_empty_split_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    empty = {
        "train": RawTable(stored_images(contents=[png(0), png(1)]), ["a", "b"]),
        "test": RawTable(stored_images(), []),
    }
    monkeypatch.setattr(loading, "read_hub_dataset", lambda config: (empty, "0" * 40))
    with pytest.raises(UserError, match="The test split of someone/pets has no pictures"):
        load_image_data(config_for("someone/pets"))


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 15])
@pytest.mark.parametrize("flag", ["validation_fraction", "test_fraction"])
def test_shares_outside_of_their_range(tmp_path: Path, flag: str, value: float):
    with pytest.raises(UserError, match=f"--{flag} {value:g}") as raised:
        load_image_data(config_for(write_folder(tmp_path / "pets", {"a": 2, "b": 2}), **{flag: value}))
    assert raised.value.allowed == "a share between 0 and 1"


@pytest.mark.parametrize(
    "name",
    [
        "./photos",
        "../photos",
        "a/b/c",
        "a b",
        "a--b",
        "x.git",
        "photos.csv",
        "photos.zip",
        "~nobody-here/photos",
        "x" * 200,
    ],
)
def test_neither_a_path_nor_an_id(name: str, hub: HubServer):
    with pytest.raises(UserError, match="does not exist, and is no id of a Hub data set either") as raised:
        load_image_data(config_for(name))
    assert "`owner/name` on the Hub" in str(raised.value)
    assert hub.requests == []


def test_a_file_of_unknown_kind(tmp_path: Path):
    (tmp_path / "photo.png").write_bytes(png(0))
    with pytest.raises(UserError, match="is a file of unknown kind"):
        load_image_data(config_for(tmp_path / "photo.png"))
