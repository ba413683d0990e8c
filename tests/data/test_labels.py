"""One list of labels by name, or a message that says what is wrong with them."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from hf_transfer.data.labels import resolve_labels
from hf_transfer.data.table import RawTable, stored_images
from hf_transfer.errors import UserError


def table(labels: Sequence[Any], names: Sequence[str] | None = None) -> RawTable:
    """Returns a table whose pictures are never looked at."""
    return RawTable(stored_images(), list(labels), None if names is None else tuple(names))


def names_of(labels: Sequence[Any], names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the label names of a single split."""
    return resolve_labels({"train": table(labels, names)}, "pets")[0]


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        ([2, 0, 1], ("0", "1", "2"), [2, 0, 1]),
        ([1.0, 0.0], ("0", "1"), [1, 0]),
        (list(range(11)), tuple(str(number) for number in range(11)), list(range(11))),
        ([True, False], ("false", "true"), [1, 0]),
        (["10", "9"], ("10", "9"), [0, 1]),
    ],
)
def test_what_labels_may_be(labels: list, names: tuple[str, ...], numbers: list[int]):
    assert resolve_labels({"train": table(labels)}, "pets") == (names, {"train": numbers}, ())


def test_declared_names_keep_their_order():
    names, numbers, _ = resolve_labels({"train": table([0, 1, 2], ["zebra", "ant", "moth"])}, "pets")
    assert names == ("zebra", "ant", "moth")
    assert numbers == {"train": [0, 1, 2]}


def test_splits_meet_by_name_however_they_number():
    splits = {
        "train": table([0, 1, 2], ["ant", "bee", "cat"]),
        "validation": table([0, 1, 0], ["cat", "ant"]),
        "test": table(["bee", "ant", "cat"]),
    }
    names, numbers, notes = resolve_labels(splits, "pets")
    assert names == ("ant", "bee", "cat")
    assert numbers == {"train": [0, 1, 2], "validation": [2, 0, 2], "test": [1, 0, 2]}
    assert notes == ("The validation split has no pictures of 'bee'.",)


@pytest.mark.parametrize(
    ("labels", "shown", "count"),
    [
        ([1, 2, 3], "1, 2, 3", 3),
        ([0, 2], "0, 2", 2),
        ([-1, 0, 1], "-1, 0, 1", 3),
        ([0.5, 1.0], "0.5, 1", 2),
        ([*range(1, 20)], "1, 2, 3, 4, 5, 6, 7, 8, ...", 19),
    ],
)
def test_numbers_that_do_not_count_from_zero(labels: list, shown: str, count: int):
    with pytest.raises(UserError) as raised:
        names_of(labels)
    assert raised.value.given == f"The labels of pets are the numbers {shown}."
    assert raised.value.allowed == f"numbers from 0 to {count - 1} for {count} classes, or names"
    assert "--label_column" in str(raised.value.hint)


@pytest.mark.parametrize(("labels", "names"), [(["cat", "cat"], None), ([0, 0], None), ([0], ["cat"])])
def test_one_class(labels: list, names: list[str] | None):
    with pytest.raises(UserError, match="pets has only one class") as raised:
        names_of(labels, names)
    assert raised.value.allowed == "two classes or more"


def test_no_class():
    with pytest.raises(UserError, match="pets has no classes"):
        names_of([])


@pytest.mark.parametrize("hole", [None, "", float("nan")])
def test_rows_without_a_label(hole: Any):
    with pytest.raises(UserError, match="2 of 4 pictures in the test split of pets have no label"):
        resolve_labels({"train": table(["a", "b"]), "test": table(["a", hole, "b", hole])}, "pets")


def test_the_hub_s_way_of_having_no_label():
    with pytest.raises(UserError, match="3 of 3 pictures in the test split of pets have no label"):
        resolve_labels({"train": table([0, 1], ["a", "b"]), "test": table([-1] * 3, ["a", "b"])}, "pets")


def test_two_classes_of_one_name():
    # ImageNet has two kinds of crane; a map from names would lose one of them.
    with pytest.raises(UserError, match="pets has several classes called 'crane'"):
        names_of([0, 1, 2], ["crane", "ant", "crane"])


@pytest.mark.parametrize("labels", [[0, 2], ["a", "c"]])
def test_classes_without_training_pictures(labels: list):
    with pytest.raises(UserError, match="pets has no training pictures for 2 of its 4 classes: 'b', 'd'"):
        names_of(labels, ["a", "b", "c", "d"])


def test_a_class_that_training_lacks():
    with pytest.raises(UserError) as raised:
        resolve_labels({"train": table(["cat", "dog"]), "validation": table(["cat", "Dog"])}, "pets")
    assert raised.value.given == "The validation split of pets has classes that the training split lacks: 'Dog'."
    assert "'cat', 'dog'" in str(raised.value.allowed)


def test_long_lists_are_cut():
    with pytest.raises(UserError, match=r"'3', '4', '5', '6' and 12 more\."):
        names_of([0], [str(number) for number in range(19)])


def test_many_classes_take_no_time():
    names = [f"{number:05}" for number in range(5_000)]
    labels = list(range(5_000)) * 20
    start = time.process_time()
    assert len(resolve_labels({"train": table(labels, names), "test": table(labels, names)}, "pets")[0]) == 5_000
    assert time.process_time() - start < 5
