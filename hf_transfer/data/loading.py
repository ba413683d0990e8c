"""`load_image_data`: from what the user gave as --dataset to `ImageData`.

Knows the order of the steps: read, choose splits, number labels, make missing splits, limit. Each is made next door.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_transfer.config import FinetuneConfig
from hf_transfer.data import digits
from hf_transfer.data.archives import is_archive, unpack
from hf_transfer.data.fingerprint import content_hashes, dataset_fingerprint
from hf_transfer.data.folders import LAYOUT, canonical_split, read_folder
from hf_transfer.data.hub import read_hub_dataset
from hf_transfer.data.image_data import SPLIT_NAMES, ImageData
from hf_transfer.data.labels import resolve_labels
from hf_transfer.data.splits import Rows, carve, limit
from hf_transfer.data.table import RawSplits, RawTable, stored_images
from hf_transfer.data.tables import is_table, read_table
from hf_transfer.errors import UserError, nearest

Part = tuple[str, Rows]
"""A table's name and rows of it."""


def load_image_data(config: FinetuneConfig) -> ImageData:
    """Reads, splits, labels and fingerprints the pictures of a run.

    Args:
        config (`FinetuneConfig`):
            `dataset` and everything that goes with it.

    Returns:
        `ImageData`

    Raises:
        UserError: for data that cannot be had, read, split or labelled, with what to do about it.
    """
    _check_fractions(config)
    raw, kind, revision = _read(config)
    tables = _choose_splits(raw, config)
    _check_not_empty(tables, config.dataset)
    names, labels, notes = resolve_labels(tables, config.dataset)
    hashes = {split: content_hashes(table.images) for split, table in tables.items()}
    parts, methods = _make_splits(hashes, labels, config)
    base, rows = parts["train"]
    kept = limit(
        hashes[base],
        labels[base],
        rows,
        max_samples=config.max_train_samples,
        per_class=config.images_per_class,
    )
    limited = (f"Training uses {len(kept)} of {len(rows)} pictures, as asked.",) if len(kept) < len(rows) else ()
    parts["train"] = (base, kept)
    chosen = {split: [hashes[table][row] for row in members] for split, (table, members) in parts.items()}
    numbers = {split: [labels[table][row] for row in members] for split, (table, members) in parts.items()}
    whole = {split: _labelled(tables[split], labels[split], names) for split in tables}
    # Arrow keeps what it made on the way for tables that are not going to come.
    pa.default_memory_pool().release_unused()
    return ImageData(
        name=config.dataset,
        kind=kind,
        train=whole[base].select(kept),
        validation=whole[parts["validation"][0]].select(parts["validation"][1]),
        test=whole[parts["test"][0]].select(parts["test"][1]),
        label_names=names,
        split_methods=methods,
        fingerprint=dataset_fingerprint(names, {split: (chosen[split], numbers[split]) for split in SPLIT_NAMES}),
        revision=revision,
        content_hashes={split: tuple(chosen[split]) for split in SPLIT_NAMES},
        notes=(*notes, *limited, *_missing_classes(numbers, names, methods), *_overlaps(chosen)),
    )


def _read(config: FinetuneConfig) -> tuple[RawSplits, str, str | None]:
    """Returns the tables, the kind of source and the commit, by what --dataset is: a path wins over a Hub id."""
    path = Path(os.path.expanduser(config.dataset))
    if config.dataset == digits.NAME and not path.exists():
        contents, labels = digits.load_digit_scans()
        return {"all": RawTable(stored_images(contents=contents), labels)}, "digits", None
    if path.is_dir():
        return read_folder(path), "imagefolder", None
    if path.is_file() and is_archive(path):
        return read_folder(unpack(path)), "archive", None
    if path.is_file() and is_table(path):
        return read_table(path, config.image_column, config.label_column), "table", None
    if path.exists():
        raise UserError(f"--dataset {config.dataset} is a file of unknown kind.", f"{LAYOUT}; an archive or a table")
    if not _is_hub_id(config.dataset) or is_table(path) or is_archive(path):
        raise no_such_dataset(config.dataset)
    tables, revision = read_hub_dataset(config)
    return tables, "hub", revision


def no_such_dataset(dataset: str) -> UserError:
    """Returns the error for a name that is neither on this disk nor an id of the Hub."""
    return UserError(
        f"--dataset {dataset} does not exist, and is no id of a Hub data set either.",
        "an existing folder, archive or table, `owner/name` on the Hub, or `digits`",
        "correct the path; it is relative to the current folder",
    )


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _choose_splits(raw: RawSplits, config: FinetuneConfig) -> RawSplits:
    """Returns the tables as `train`, `validation` and `test`, by the user's word or by their names."""
    _check_distinct(config)
    chosen: RawSplits = {}
    for split in SPLIT_NAMES:
        asked = getattr(config, f"{split}_split")
        if asked is not None and asked not in raw:
            close = nearest(asked, list(raw))
            raise UserError(
                f"--{split}_split {asked}: {config.dataset} has no such split.",
                ", ".join(raw),
                f"--{split}_split {close}" if close else None,
            )
        found = [name for name in raw if canonical_split(name) == split and name not in _asked(config)]
        if asked is not None:
            chosen[split] = raw[asked]
        elif found:
            chosen[split] = raw[found[0]]
    if "train" not in chosen:
        if len(raw) > 1 or config.validation_split or config.test_split:
            raise UserError(
                f"{config.dataset} has no training split among its splits.", ", ".join(raw), "--train_split NAME"
            )
        return {"train": next(iter(raw.values()))}
    return chosen


def _check_distinct(config: FinetuneConfig) -> None:
    named = [getattr(config, f"{split}_split") for split in SPLIT_NAMES]
    twice = [name for name, count in Counter(named).items() if name and count > 1]
    if twice:
        raise UserError(
            f"The split {twice[0]!r} is named for two purposes.",
            "a split of its own each for training, validation and test",
            "leave --validation_split or --test_split out, and it is made from the training pictures",
        )


def _asked(config: FinetuneConfig) -> set[str | None]:
    return {config.train_split, config.validation_split, config.test_split}


def _make_splits(
    hashes: Mapping[str, Sequence[str]], labels: Mapping[str, Sequence[int]], config: FinetuneConfig
) -> tuple[dict[str, Part], dict[str, str]]:
    """Makes the missing splits from the training pictures and says in words how."""
    parts: dict[str, Part] = {split: (split, list(range(len(rows)))) for split, rows in hashes.items()}
    methods = dict.fromkeys(parts, "as given")
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    remaining = parts["train"][1]
    for split, fraction in fractions.items():
        if split in parts:
            continue
        remaining, taken = carve(hashes["train"], labels["train"], remaining, fraction, split)
        if not taken:
            raise UserError(
                f"{config.dataset} is too small to make a {split} split: no class has a picture to spare.",
                "two different pictures or more in some class",
                f"add pictures, or give a {split} split",
            )
        parts[split] = ("train", taken)
        of = "of the training pictures" + (
            " that the test split left" if methods.get("test", "as given") != "as given" else ""
        )
        methods[split] = f"made: {fraction * 100:g} % {of}, stratified by class, by content hash"
        methods["train"] = "what the made splits left of it"
    parts["train"] = ("train", remaining)
    return parts, {split: methods[split] for split in SPLIT_NAMES}


def _labelled(table: RawTable, labels: list[int], names: tuple[str, ...]) -> datasets.Dataset:
    return table.images.add_column("label", labels, feature=datasets.ClassLabel(names=list(names)))


def _check_fractions(config: FinetuneConfig) -> None:
    for flag in ("validation_fraction", "test_fraction"):
        value = getattr(config, flag)
        if not 0 < value < 1:
            raise UserError(f"--{flag} {value:g}", "a share between 0 and 1", f"--{flag} 0.15")


def _check_not_empty(tables: RawSplits, source: str) -> None:
    for split, table in tables.items():
        if len(table) == 0:
            raise UserError(f"The {split} split of {source} has no pictures.", hint="add some, or leave the split out")


def _missing_classes(
    numbers: Mapping[str, Sequence[int]], names: Sequence[str], methods: Mapping[str, str]
) -> tuple[str, ...]:
    """Names the classes that are too rare for a split that was made here."""
    notes = []
    for split in ("validation", "test"):
        present = set(numbers[split])
        absent = [name for index, name in enumerate(names) if index not in present]
        if absent and methods[split] != "as given":
            shown = ", ".join(repr(name) for name in absent[:6])
            notes.append(f"Too rare for the {split} split that was made, and kept for training: {shown}.")
    return tuple(notes)


def _overlaps(hashes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Counts pictures that are, byte for byte, in two splits at once."""
    notes = []
    for split, other, words in (
        ("validation", "train", "the training split"),
        ("test", "train", "the training split"),
        ("test", "validation", "the validation split"),
    ):
        known = set(hashes[other])
        count = sum(content in known for content in hashes[split])
        if count:
            notes.append(f"{count} of {len(hashes[split])} {split} pictures are in {words} too.")
    return tuple(notes)
