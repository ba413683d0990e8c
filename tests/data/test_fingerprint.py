"""Fingerprints see contents, labels and splits, and nothing else."""

import hashlib
from pathlib import Path

import datasets
import pytest

from hf_transfer.data.fingerprint import content_hashes, dataset_fingerprint
from hf_transfer.data.table import STORED_IMAGE, stored_images
from hf_transfer.errors import UserError
from tests.data.pictures import png

SPLITS = {"train": (["aa", "bb", "cc"], [0, 1, 1]), "test": (["dd"], [0])}
PRINT = dataset_fingerprint(("cat", "dog"), SPLITS)


def test_files_and_contents_hash_alike(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(3))
    expected = [hashlib.sha256(png(3)).hexdigest()]
    assert content_hashes(stored_images(paths=[str(tmp_path / "a.png")])) == expected
    assert content_hashes(stored_images(contents=[png(3)])) == expected


def test_hashes_come_in_the_order_of_the_rows():
    pictures = [number.to_bytes(4, "little") for number in range(2_500)]
    expected = [hashlib.sha256(picture).hexdigest() for picture in pictures]
    assert content_hashes(stored_images(contents=pictures)) == expected


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="gone.png' cannot be opened: No such file"):
        content_hashes(stored_images(paths=[str(tmp_path / "gone.png")]))


def test_a_row_without_a_picture_is_named():
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": png(0), "path": None}, None]}, features=datasets.Features({"image": STORED_IMAGE})
    )
    with pytest.raises(UserError, match="Row 1 of the data set has no picture"):
        content_hashes(rows)


def test_order_of_rows_and_splits_does_not_matter():
    again = {"test": (["dd"], [0]), "train": (["cc", "aa", "bb"], [1, 0, 1])}
    assert dataset_fingerprint(("cat", "dog"), again) == PRINT


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("cat", "hound"), SPLITS),
        (("dog", "cat"), SPLITS),
        (("cat", "dog"), {**SPLITS, "train": (["aa", "bb", "cc"], [0, 1, 0])}),
        (("cat", "dog"), {**SPLITS, "train": (["aa", "bb", "ce"], [0, 1, 1])}),
        (("cat", "dog"), {**SPLITS, "train": (["aa", "bb", "cc", "cc"], [0, 1, 1, 1])}),
        (("cat", "dog"), {"train": (["aa", "bb"], [0, 1]), "test": (["dd", "cc"], [0, 1])}),
        (("cat", "dog"), {"validation": SPLITS["train"], "test": SPLITS["test"]}),
    ],
    ids=["name", "order of names", "label", "content", "copy", "moved", "split"],
)
def test_what_matters_changes_it(names: tuple[str, ...], splits: dict):
    assert dataset_fingerprint(names, splits) != PRINT


def test_it_stays_the_same_from_release_to_release():
    # Written into run.json: who compares runs must be able to compare old ones.
    assert PRINT == "887b5bff9ea484f24c46f5facc880cfc9e45d68f785a69597a4966cac45c48e6"
