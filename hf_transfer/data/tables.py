"""CSV, JSON lines and parquet files with a column of pictures and a column of labels.

Knows how a `datasets` table becomes a `RawTable`, which the Hub's data sets do too (`hf_transfer.data.hub`). Does not
number labels.
"""

import glob
from collections.abc import Iterable
from pathlib import Path

import datasets
import pyarrow.compute as pc

from hf_transfer.data.columns import find_columns
from hf_transfer.data.folders import canonical_split
from hf_transfer.data.table import STORED_IMAGE, RawSplits, RawTable, stored_images
from hf_transfer.errors import UserError

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
# How `datasets` fails on a table of column names alone: CSV and JSON lines, then parquet.
_NO_ROWS = ("corresponds to no data", "BatchSize must be greater than 0")
# pandas would take classes called "None", "NA" or "null" for missing labels.
_CSV_OPTIONS = {"keep_default_na": False, "na_values": [""]}


def is_table(path: Path) -> bool:
    """Tells by its name whether a file is a table that can be read."""
    return path.suffix.lower() in FORMATS


def read_table(path: Path, image_column: str | None, label_column: str | None) -> RawSplits:
    """Reads a table; a column called `split` divides it.

    Args:
        path (`Path`):
            The file. Paths of pictures in it are relative to its folder.
        image_column (`str`, *optional*):
            Column of paths or of file contents; guessed when left out.
        label_column (`str`, *optional*):
            Column of labels; guessed when left out.

    Raises:
        UserError: if it cannot be read, a column is missing, or pictures are.
    """
    kind = FORMATS[path.suffix.lower()]
    options = dict(_CSV_OPTIONS) if kind == "csv" else {}
    if path.suffix.lower() == ".tsv":
        options["sep"] = "\t"
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty.", "a table with a row for each picture")
        table = _load(kind, path, options)
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        if any(words in str(error.__cause__ or error) for words in _NO_ROWS):
            raise UserError(f"{path} has column names and no rows.", "a table with a row for each picture") from error
        reason = error.__cause__ or error
        raise UserError(f"{path} cannot be read as {kind}: {reason}", ", ".join(FORMATS)) from error
    raw = raw_table(table, image_column, label_column, str(path), folder=path.parent)
    if "split" not in table.column_names:
        return {"all": raw}
    return _divide(raw, table["split"], path)


def raw_table(
    table: datasets.Dataset, image_column: str | None, label_column: str | None, source: str, folder: Path | None
) -> RawTable:
    """Takes pictures and labels out of a `datasets` table.

    Args:
        table (`datasets.Dataset`):
            Any table with a column of pictures, of file contents, or of paths.
        image_column (`str`, *optional*):
            Guessed when left out.
        label_column (`str`, *optional*):
            Guessed when left out.
        source (`str`):
            The data set, for messages.
        folder (`Path`, *optional*):
            The folder that paths are relative to.

    Raises:
        UserError: if the columns are not there or are of another kind.
    """
    image_name, label_name = find_columns(table.features, image_column, label_column, source)
    feature = table.features[label_name]
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    if not isinstance(feature, datasets.Value | datasets.ClassLabel):
        several = isinstance(feature, datasets.Sequence | datasets.List)
        raise UserError(
            f"The label column {label_name!r} of {source} holds "
            + ("several labels for each picture." if several else f"{type(feature).__name__} values."),
            "one name or number for each picture",
            "another --label_column",
        )
    return RawTable(_images(table, image_name, source, folder), list(table[label_name]), names)


def _images(table: datasets.Dataset, column: str, source: str, folder: Path | None) -> datasets.Dataset:
    feature = table.features[column]
    pictures = table.select_columns([column])
    if column != "image":
        pictures = pictures.rename_column(column, "image")
    if isinstance(feature, datasets.Image):
        return pictures.cast_column("image", STORED_IMAGE)
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
        return stored_images(paths=_resolved(pictures["image"], source, folder))
    if isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary"):
        contents = list(pictures["image"])
        _check_no_gaps(contents, column, source)
        return stored_images(contents=contents)
    if isinstance(feature, dict) and set(feature) == {"bytes", "path"}:
        complete = pc.struct_field(pictures.data.column("image"), "bytes").null_count == 0
        if complete:
            return pictures.cast_column("image", STORED_IMAGE)
        return _from_structs(list(pictures["image"]), column, source, folder)
    raise UserError(
        f"The image column {column!r} of {source} holds {feature}.",
        "paths, contents of image files, or pictures as `datasets` stores them",
        "another --image_column",
    )


def _from_structs(rows: list[dict | None], column: str, source: str, folder: Path | None) -> datasets.Dataset:
    _check_no_gaps([row and (row["bytes"] or row["path"]) for row in rows], column, source)
    filled = [row for row in rows if row]
    linked = [row["path"] for row in filled if row["bytes"] is None]
    if linked:
        paths = iter(_resolved(linked, source, folder))
        filled = [row if row["bytes"] is not None else {"bytes": None, "path": next(paths)} for row in filled]
    return datasets.Dataset.from_dict({"image": filled}, features=datasets.Features({"image": STORED_IMAGE}))


def _check_no_gaps(pictures: list, column: str, source: str) -> None:
    gaps = sum(not picture for picture in pictures)
    if gaps:
        raise UserError(
            f"{gaps} of {len(pictures)} rows of {source} have no picture in the column {column!r}.",
            hint="remove these rows, or name another column with --image_column",
        )


def _resolved(paths: Iterable[str | None], source: str, folder: Path | None) -> list[str]:
    if folder is None:
        raise UserError(f"The image column of {source} holds paths, which lead nowhere outside of a local table.")
    full: list[str] = []
    missing: list[str | None] = []
    for given in paths:
        full.append(str(folder / given) if given else "")
        if not given or not Path(full[-1]).is_file():
            missing.append(given)
    if missing:
        shown = ", ".join(repr(path) for path in missing[:3])
        raise UserError(
            f"{len(missing)} of {len(full)} pictures named in {source} do not exist: {shown}"
            + (" ..." if len(missing) > 3 else ""),
            f"absolute paths, or paths relative to {folder}",
        )
    return full


def _divide(raw: RawTable, splits: list[str], path: Path) -> RawSplits:
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(splits):
        split = canonical_split(str(name))
        if split is None:
            raise UserError(f"The split column of {path} holds {name!r}.", "train, validation and test")
        rows.setdefault(split, []).append(index)
    return {
        split: RawTable(raw.images.select(indices), [raw.labels[index] for index in indices], raw.names)
        for split, indices in rows.items()
    }


def _load(kind: str, path: Path, options: dict) -> datasets.Dataset:
    # Escaped, since `datasets` takes a name for a pattern: `photos[1].csv`.
    return datasets.load_dataset(kind, data_files=glob.escape(str(path)), split="train", **options)
