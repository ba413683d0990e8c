"""One list of labels by name for all splits.

Knows how names, integers and declared classes become one numbering, and refuses what cannot. Does not split anything.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hf_transfer.data.table import RawSplits, RawTable
from hf_transfer.errors import UserError


def resolve_labels(splits: RawSplits, source: str) -> tuple[tuple[str, ...], dict[str, list[int]], tuple[str, ...]]:
    """Numbers the labels of all splits by one list of names.

    Args:
        splits (`RawSplits`):
            The tables; `train` or `all` decides which classes there are.
        source (`str`):
            The data set, for messages.

    Returns:
        `tuple`: label names, for each split the index of each row, and notes.

    Raises:
        UserError: for missing labels, fewer than two classes, names that stand for two classes, integers that are not
            0 to K-1, a class without training pictures, or a class that only another split has.
    """
    by_name = {split: _as_names(table, split, source) for split, table in splits.items()}
    reference = "train" if "train" in splits else next(iter(splits))
    names = _class_names(splits[reference], by_name[reference], source)
    if len(names) < 2:
        raise UserError(
            f"{source} has only one class, {names[0]!r}." if names else f"{source} has no classes.",
            "two classes or more",
        )
    _check_present(names, by_name[reference], source)
    notes = _compare_splits(names, by_name, reference, source)
    index = {name: number for number, name in enumerate(names)}
    return names, {split: [index[label] for label in labels] for split, labels in by_name.items()}, notes


def _as_names(table: RawTable, split: str, source: str) -> list[str]:
    missing = sum(_is_missing(label) for label in table.labels)
    if missing or (table.names and -1 in table.labels):
        count = missing or table.labels.count(-1)
        raise UserError(
            f"{count} of {len(table)} pictures in the {split} split of {source} have no label.",
            hint="remove these rows, or use a split with labels (many test splits on the Hub have none)",
        )
    if table.names is not None and table.labels and isinstance(table.labels[0], int):
        _check_unique(table.names, source)
        return [table.names[label] for label in table.labels]
    if all(isinstance(label, bool) for label in table.labels):
        return [str(label).lower() for label in table.labels]
    return [_integer_name(label) for label in table.labels]


def _class_names(table: RawTable, labels: Sequence[str], source: str) -> tuple[str, ...]:
    if table.names is not None:
        _check_unique(table.names, source)
        return table.names
    found = set(labels)
    if not all(isinstance(label, int | float) and not isinstance(label, bool) for label in table.labels):
        return tuple(sorted(found))
    numbers = sorted(float(label) for label in found)
    if numbers != [float(number) for number in range(len(numbers))]:
        shown = ", ".join(f"{number:g}" for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
        raise UserError(
            f"The labels of {source} are the numbers {shown}.",
            f"numbers from 0 to {len(numbers) - 1} for {len(numbers)} classes, or names",
            "a column of names (--label_column), or number the classes from 0 without gaps",
        )
    return tuple(str(number) for number in range(len(numbers)))


def _check_unique(names: Sequence[str], source: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(
            f"{source} has several classes called {repeated[0]!r}.",
            "class names that differ from each other",
            "rename the classes of the data set",
        )


def _check_present(names: Sequence[str], labels: Sequence[str], source: str) -> None:
    found = set(labels)
    empty = [name for name in names if name not in found]
    if empty:
        raise UserError(
            f"{source} has no training pictures for {len(empty)} of its {len(names)} classes: {_listed(empty)}.",
            hint="add pictures, or remove these classes from the data set",
        )


def _compare_splits(
    names: Sequence[str], by_name: dict[str, list[str]], reference: str, source: str
) -> tuple[str, ...]:
    notes = []
    for split, labels in by_name.items():
        if split == reference:
            continue
        found = set(labels)
        unknown = sorted(found - set(names))
        if unknown:
            raise UserError(
                f"The {split} split of {source} has classes that the training split lacks: {_listed(unknown)}.",
                f"the classes of the training split: {_listed(names)}",
                "rename the folders or labels so that every split uses the same names",
            )
        absent = [name for name in names if name not in found]
        if absent:
            notes.append(f"The {split} split has no pictures of {_listed(absent)}.")
    return tuple(notes)


def _is_missing(label: Any) -> bool:
    return label is None or label == "" or (isinstance(label, float) and math.isnan(label))


def _integer_name(label: Any) -> str:
    """Returns the name of a label; a whole number read as a float, as CSV readers do, is that number."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _listed(names: Sequence[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more
