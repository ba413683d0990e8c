"""Fingerprints see contents, labels and splits, and nothing else."""

import hashlib
import tracemalloc
from pathlib import Path

import datasets
import pytest

from hf_transfer.data.fingerprint import content_hashes, dataset_fingerprint, sequence_digest
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


def test_rows_are_sorted_as_texts_of_content_and_label():
    names, hashes, labels = ("b'", 'a"', "c"), ["bb", "aa", "bb", "bb", "aa"], [0, 2, 1, 2, 2]
    digest = hashlib.sha256(repr(names).encode() + b"\ntrain\n")
    for row in sorted(f"{content} {names[label]!r}" for content, label in zip(hashes, labels, strict=True)):
        digest.update(row.encode())
    assert dataset_fingerprint(names, {"train": (hashes, labels)}) == digest.hexdigest()


def test_a_sequence_hashes_as_its_text_does():
    for separator in ("", "\n"):
        for hashes in ([], ["aa"], ["aa", "bb", "aa"]):
            assert sequence_digest(hashes, separator) == hashlib.sha256(separator.join(hashes).encode()).hexdigest()


def test_many_pictures_take_no_text_each():
    count = 20_000
    hashes, labels = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(count)], [0, 1] * (count // 2)
    tracemalloc.start()
    try:
        dataset_fingerprint(("cat", "dog"), {"train": (hashes, labels)})
        assert tracemalloc.get_traced_memory()[1] < 100 * count
        tracemalloc.reset_peak()
        sequence_digest(hashes)
        assert tracemalloc.get_traced_memory()[1] < 10 * count
    finally:
        tracemalloc.stop()
