"""Splits that are missing, made from what there is; and fewer pictures for a quick look.

Knows hashes and labels of rows. What a row lands in depends on the contents of its picture: not on file names, not on
order, not on the machine. Does not read pictures.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from hf_transfer.errors import UserError

Rows = list[int]


def carve(
    hashes: Sequence[str], labels: Sequence[int], rows: Sequence[int], fraction: float, purpose: str
) -> tuple[Rows, Rows]:
    """Takes a share of the rows of each class out of a split.

    Equal pictures stay together, so that none ends up on both sides; those filed under two classes all stay. A class
    keeps at least one picture; a class with only one gives none.

    Args:
        hashes (`Sequence[str]`):
            Content hash of every row of the table.
        labels (`Sequence[int]`):
            Class of every row of the table.
        rows (`Sequence[int]`):
            The rows to divide.
        fraction (`float`):
            Share to take out of each class.
        purpose (`str`):
            `validation` or `test`: salts the hash, so that the two are drawn independently.

    Returns:
        `tuple[list[int], list[int]]`: what stays and what was taken, each in the order of `rows`.
    """
    taken: set[int] = set()
    disputed = _in_several_classes(hashes, labels, rows)
    for members in _by_class(labels, rows).values():
        most = len(members) - 1
        wanted = min(max(1, round(fraction * len(members))), most)
        clear = [row for row in members if hashes[row] not in disputed]
        taken |= _smallest(hashes, clear, wanted, purpose, most)
    return [row for row in rows if row not in taken], [row for row in rows if row in taken]


def limit(
    hashes: Sequence[str],
    labels: Sequence[int],
    rows: Sequence[int],
    *,
    max_samples: int | None,
    per_class: int | None,
) -> Rows:
    """Keeps fewer rows: at most `per_class` of each class, at most `max_samples` in all, in proportion.

    Raises:
        UserError: if a limit leaves a class without any picture.
    """
    if per_class is not None:
        if per_class < 1:
            raise UserError(f"--images_per_class {per_class}", "1 or more", "--images_per_class 20")
        rows = _keep(hashes, labels, rows, dict.fromkeys(set(labels), per_class))
    if max_samples is not None and len(rows) > max_samples:
        classes = _by_class(labels, rows)
        if max_samples < len(classes):
            raise UserError(
                f"--max_train_samples {max_samples} is less than the {len(classes)} classes.",
                f"{len(classes)} or more",
                f"--max_train_samples {10 * len(classes)}",
            )
        rows = _keep(hashes, labels, rows, _quotas({label: len(m) for label, m in classes.items()}, max_samples))
    return list(rows)


def _keep(hashes: Sequence[str], labels: Sequence[int], rows: Sequence[int], quotas: dict[int, int]) -> Rows:
    kept: set[int] = set()
    for label, members in _by_class(labels, rows).items():
        kept |= set(_ordered(hashes, members, "limit")[: quotas[label]])
    return [row for row in rows if row in kept]


def _quotas(counts: dict[int, int], total: int) -> dict[int, int]:
    """Shares `total` out in proportion to `counts`, at least one each, by largest remainder."""
    spare, available = total - len(counts), sum(counts.values()) - len(counts)
    exact = {label: (count - 1) * spare / available for label, count in counts.items()}
    quotas = {label: 1 + int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (int(exact[label]) - exact[label], label))
    for label in by_remainder[: total - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def _smallest(hashes: Sequence[str], members: Sequence[int], wanted: int, purpose: str, most: int) -> set[int]:
    """Returns rows with the smallest salted hashes, as whole groups of equal pictures.

    Their number is `wanted` or, where the groups leave no other way, the next possible one up to `most`.
    """
    groups: dict[str, Rows] = defaultdict(list)
    for row in _ordered(hashes, members, purpose):
        groups[hashes[row]].append(row)
    taken: set[int] = set()
    for group in groups.values():
        if len(taken) + len(group) <= wanted:
            taken.update(group)
    if not taken:
        smallest = min(groups.values(), key=len, default=[])
        return set(smallest) if len(smallest) <= most else set()
    return taken


def _in_several_classes(hashes: Sequence[str], labels: Sequence[int], rows: Sequence[int]) -> set[str]:
    first: dict[str, int] = {}
    return {hashes[row] for row in rows if first.setdefault(hashes[row], labels[row]) != labels[row]}


def _ordered(hashes: Sequence[str], members: Sequence[int], purpose: str) -> Rows:
    return sorted(members, key=lambda row: (hashlib.sha256(f"{purpose} {hashes[row]}".encode()).digest(), row))


def _by_class(labels: Sequence[int], rows: Sequence[int]) -> dict[int, Rows]:
    classes: dict[int, Rows] = defaultdict(list)
    for row in rows:
        classes[labels[row]].append(row)
    return classes
