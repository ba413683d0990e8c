"""Folders of class folders, in the layouts that people have them."""

import shutil
from pathlib import Path

import pytest

from hf_transfer.data.folders import canonical_split, read_folder
from hf_transfer.data.table import RawTable
from hf_transfer.errors import UserError
from tests.data.pictures import png, write_folder


def found(table: RawTable) -> list[tuple[str, str]]:
    """Returns label and file name of each row."""
    return [
        (label, Path(image["path"]).name) for label, image in zip(table.labels, table.images["image"], strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRN", "train"),
        ("val", "validation"),
        ("Valid", "validation"),
        ("VALIDATION", "validation"),
        ("dev", "validation"),
        ("Test", "test"),
        ("testing", "test"),
        ("cats", None),
        ("trainer", None),
    ],
)
def test_split_names(name: str, split: str | None):
    assert canonical_split(name) == split


def test_without_split_folders(tmp_path: Path):
    write_folder(tmp_path, {"dog": 1, "cat": 2})
    splits = read_folder(tmp_path)
    assert list(splits) == ["all"]
    assert splits["all"].names == ("cat", "dog")
    assert found(splits["all"]) == [("cat", "0.png"), ("cat", "1.png"), ("dog", "0.png")]


def test_with_split_folders(tmp_path: Path):
    write_folder(tmp_path, {"Training/cat": 2, "Training/dog": 1, "val/cat": 1, "TEST/dog": 3, "extra/cat": 1})
    splits = read_folder(tmp_path)
    assert {name: table.labels for name, table in splits.items()} == {
        "train": ["cat", "cat", "dog"],
        "validation": ["cat"],
        "test": ["dog"] * 3,
    }


def test_wrapped_in_folders_with_files_beside_them(tmp_path: Path):
    write_folder(tmp_path, {"flowers/data/train/rose": 1, "flowers/data/test/rose": 1})
    (tmp_path / "flowers" / "README.md").write_text("About flowers.")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".git").mkdir()
    assert list(read_folder(tmp_path)) == ["test", "train"]


def test_what_is_not_a_picture_is_left_out(tmp_path: Path):
    write_folder(tmp_path, {"cat": 1, "dog": 1})
    for name in (".DS_Store", "Thumbs.db", "._0.png", "notes.txt", "card.pdf", "no_extension"):
        (tmp_path / "cat" / name).write_bytes(png(0))
    write_folder(tmp_path / "cat", {".cache": 1})
    assert found(read_folder(tmp_path)["all"]) == [("cat", "0.png"), ("dog", "0.png")]


def test_extensions_that_pillow_opens(tmp_path: Path):
    write_folder(tmp_path, {"cat": 0, "dog": 1})
    names = ["a.JPG", "b.jpeg", "c.webp", "d.TIF", "e.bmp", "f.gif"]
    for name in names:
        (tmp_path / "cat" / name).write_bytes(png(0))
    assert [name for label, name in found(read_folder(tmp_path)["all"]) if label == "cat"] == names


def test_folders_within_a_class(tmp_path: Path):
    write_folder(tmp_path, {"cat/kittens": 1, "cat/old": 1, "dog": 1})
    assert read_folder(tmp_path)["all"].labels == ["cat", "cat", "dog"]


def test_links(tmp_path: Path):
    write_folder(tmp_path / "real", {"cats": 2, "dogs": 1})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "real" / "cats")
    (tmp_path / "data" / "dog").mkdir()
    (tmp_path / "data" / "dog" / "linked.png").symlink_to(tmp_path / "real" / "dogs" / "0.png")
    assert read_folder(tmp_path / "data")["all"].labels == ["cat", "cat", "dog"]


def test_classes_that_go_by_the_name_of_a_split(tmp_path: Path):
    write_folder(tmp_path, {"train": 2, "car": 1, "bus": 1})
    assert read_folder(tmp_path)["all"].labels == ["bus", "car", "train", "train"]


def test_two_folders_for_one_split(tmp_path: Path):
    write_folder(tmp_path, {"train/cat": 1, "val/cat": 1, "valid/cat": 1})
    with pytest.raises(UserError, match="two folders for the validation split: 'val' and 'valid'"):
        read_folder(tmp_path)


@pytest.mark.parametrize("pictures", [0, 2])
def test_pictures_without_class_folders(tmp_path: Path, pictures: int):
    write_folder(tmp_path, {"all": pictures})
    with pytest.raises(UserError, match="has no class folders") as raised:
        read_folder(tmp_path / "all")
    assert "<folder>/<class>/<picture>" in str(raised.value)
    assert "<folder>/train/<class>/<picture>" in str(raised.value)


@pytest.mark.parametrize("pictures", [0, 2])
def test_a_split_without_class_folders_is_not_passed_over(tmp_path: Path, pictures: int):
    write_folder(tmp_path, {"train/cat": 1, "train/dog": 1, "test": pictures})
    with pytest.raises(UserError, match=r"/test has no class folders"):
        read_folder(tmp_path)


def test_class_folders_without_pictures(tmp_path: Path):
    write_folder(tmp_path, {"cat": 0, "dog": 0})
    with pytest.raises(UserError, match="No pictures were found in the class folders"):
        read_folder(tmp_path)


def test_an_empty_class_keeps_its_name(tmp_path: Path):
    write_folder(tmp_path, {"cat": 1, "dog": 0})
    assert read_folder(tmp_path)["all"].names == ("cat", "dog")


def test_one_class_is_no_wrapper(tmp_path: Path):
    write_folder(tmp_path, {"cat": 2})
    assert read_folder(tmp_path)["all"].labels == ["cat", "cat"]


def test_the_place_does_not_matter(tmp_path: Path):
    write_folder(tmp_path / "a", {"cat": 3, "dog": 2})
    shutil.copytree(tmp_path / "a", tmp_path / ".hidden" / "b [1]")
    assert found(read_folder(tmp_path / ".hidden" / "b [1]")["all"]) == found(read_folder(tmp_path / "a")["all"])
