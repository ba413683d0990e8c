"""Splits that depend on what pictures are, not on how they are called or ordered."""

import hashlib
import random
from collections import Counter

import pytest

from hf_transfer.data.splits import carve, limit
from hf_transfer.errors import UserError


def hashed(count: int, salt: str = "") -> list[str]:
    """Returns content hashes of different pictures."""
    return [hashlib.sha256(f"{salt}{number}".encode()).hexdigest() for number in range(count)]


HASHES = hashed(100)
LABELS = [0] * 60 + [1] * 30 + [2] * 10


def content(hashes: list[str], rows: list[int]) -> set[str]:
    """Returns the hashes of rows."""
    return {hashes[row] for row in rows}


def test_sizes_are_shares_of_each_class():
    stays, taken = carve(HASHES, LABELS, range(100), 0.15, "test")
    assert Counter(LABELS[row] for row in taken) == {0: 9, 1: 4, 2: 2}
    assert sorted(stays + taken) == list(range(100))


def test_order_does_not_matter():
    _, taken = carve(HASHES, LABELS, range(100), 0.2, "test")
    order = random.Random(0).sample(range(100), 100)
    hashes, labels = [HASHES[row] for row in order], [LABELS[row] for row in order]
    _, again = carve(hashes, labels, range(100), 0.2, "test")
    assert content(hashes, again) == content(HASHES, taken)
    kept = limit(HASHES, LABELS, range(100), max_samples=37, per_class=20)
    kept_again = limit(hashes, labels, range(100), max_samples=37, per_class=20)
    assert content(hashes, kept_again) == content(HASHES, kept)


def test_more_pictures_of_one_class_leave_the_others_alone():
    _, taken = carve(HASHES, LABELS, range(100), 0.2, "test")
    hashes, labels = HASHES + hashed(50, "more"), LABELS + [0] * 50
    _, again = carve(hashes, labels, range(150), 0.2, "test")
    assert {row for row in again if labels[row] > 0} == {row for row in taken if LABELS[row] > 0}


def test_validation_and_test_are_drawn_independently():
    first = carve(HASHES, LABELS, range(100), 0.5, "test")[1]
    second = carve(HASHES, LABELS, range(100), 0.5, "validation")[1]
    assert 10 < len(set(first) & set(second)) < 40


def test_contents_decide_not_the_labels_numbers():
    _, taken = carve(HASHES, LABELS, range(100), 0.2, "test")
    _, again = carve(HASHES, [2 - label for label in LABELS], range(100), 0.2, "test")
    assert again == taken


def test_only_the_rows_given_are_divided():
    rows = list(range(0, 100, 2))
    stays, taken = carve(HASHES, LABELS, rows, 0.3, "test")
    assert sorted(stays + taken) == rows


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_equal_pictures_stay_together(copies: int):
    hashes = [digest for digest in hashed(20) for _ in range(copies)]
    stays, taken = carve(hashes, [0] * len(hashes), range(len(hashes)), 0.25, "test")
    assert not content(hashes, stays) & content(hashes, taken)
    assert len(taken) == 5 * copies


def test_a_large_group_of_equal_pictures_does_not_fill_the_split():
    for salt in "abcdefgh":
        hashes = hashed(1, salt) * 9 + hashed(4, salt + "other")
        assert len(carve(hashes, [0] * 13, range(13), 0.15, "test")[1]) == 2


def test_pictures_filed_under_two_classes_stay():
    hashes = hashed(20)
    doubled, labels = hashes + hashes[:5], [0] * 20 + [1] * 5
    stays, taken = carve(doubled, labels, range(25), 0.5, "test")
    assert not content(doubled, stays) & content(doubled, taken)
    assert not set(taken) & {*range(5), *range(20, 25)}
    assert len(taken) == 10


@pytest.mark.parametrize(
    ("size", "fraction", "expected"), [(1, 0.15, 0), (2, 0.15, 1), (3, 0.01, 1), (2, 0.9, 1), (10, 0.99, 9)]
)
def test_small_classes_keep_a_picture_and_give_one_if_they_can(size: int, fraction: float, expected: int):
    stays, taken = carve(hashed(size), [0] * size, range(size), fraction, "test")
    assert (len(stays), len(taken)) == (size - expected, expected)


def test_a_class_of_copies_of_one_picture_stays_whole():
    assert carve(hashed(1) * 4, [0] * 4, range(4), 0.5, "test") == ([0, 1, 2, 3], [])


def test_no_limit():
    assert limit(HASHES, LABELS, range(100), max_samples=None, per_class=None) == list(range(100))
    assert limit(HASHES, LABELS, range(100), max_samples=100, per_class=60) == list(range(100))


def test_images_per_class():
    kept = limit(HASHES, LABELS, range(100), max_samples=None, per_class=15)
    assert Counter(LABELS[row] for row in kept) == {0: 15, 1: 15, 2: 10}
    assert kept == sorted(kept)


def test_max_samples_keeps_proportions():
    kept = limit(HASHES, LABELS, range(100), max_samples=50, per_class=None)
    assert Counter(LABELS[row] for row in kept) == {0: 30, 1: 15, 2: 5}


def test_a_smaller_limit_is_part_of_a_larger_one():
    small = limit(HASHES, LABELS, range(100), max_samples=None, per_class=3)
    assert set(small) < set(limit(HASHES, LABELS, range(100), max_samples=None, per_class=7))


def test_both_limits():
    kept = limit(HASHES, LABELS, range(100), max_samples=20, per_class=12)
    assert len(kept) == 20
    assert max(Counter(LABELS[row] for row in kept).values()) <= 12


@pytest.mark.parametrize("max_samples", [3, 4, 7, 50, 99])
def test_every_class_keeps_a_picture_and_the_total_is_exact(max_samples: int):
    labels = [0] * 97 + [1, 2] + [0]
    kept = limit(HASHES, labels, range(100), max_samples=max_samples, per_class=None)
    assert len(kept) == max_samples
    assert {labels[row] for row in kept} == {0, 1, 2}


@pytest.mark.parametrize("max_samples", [2, 0, -5])
def test_fewer_pictures_than_classes(max_samples: int):
    with pytest.raises(UserError, match=f"--max_train_samples {max_samples} is less than the 3 classes"):
        limit(HASHES, LABELS, range(100), max_samples=max_samples, per_class=None)


@pytest.mark.parametrize("per_class", [0, -1])
def test_no_pictures_of_a_class(per_class: int):
    with pytest.raises(UserError, match=f"--images_per_class {per_class}"):
        limit(HASHES, LABELS, range(100), max_samples=None, per_class=per_class)
