"""Labels for picture files, and the tables that they are written to.

Knows which files a path on the command line stands for, what a row of the result holds, and three file formats. Does
not know how pictures go through the model (`hf_transfer.evaluation.inference`).
"""

import csv
import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from tqdm import tqdm

from hf_transfer.atomic import write_atomically
from hf_transfer.errors import UserError
from hf_transfer.evaluation.classifier import Classifier
from hf_transfer.evaluation.inference import stream_logits

# What a spreadsheet may take for the beginning of a formula (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n")


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file, or why it says nothing."""

    file: str
    labels: tuple[str, ...]
    """The most likely first; empty where the file could not be read."""
    scores: tuple[float, ...]
    """Their softmax probabilities."""
    error: str | None = None

    def to_row(self, top_k: int) -> dict[str, str | float | None]:
        """Returns the columns `file`, `label`, `score`, `label_2`, `score_2`, ..., `error`."""
        row: dict[str, str | float | None] = {"file": self.file}
        for rank in range(top_k):
            ending = "" if rank == 0 else f"_{rank + 1}"
            row[f"label{ending}"] = self.labels[rank] if self.labels else None
            row[f"score{ending}"] = self.scores[rank] if self.scores else None
        return row | {"error": self.error}


def find_pictures(paths: Sequence[str]) -> list[Path]:
    """Finds the files that the paths stand for.

    A file is taken as it is; of a folder, all pictures in it and below, by their suffix and in order of their names,
    except hidden ones; anything else is a pattern such as `scans/**/*.png`, of which the same are taken.

    Args:
        paths (`Sequence[str]`):
            Files, folders, patterns.

    Returns:
        `list[Path]`: each file once.

    Raises:
        [`~hf_transfer.errors.UserError`]: for a path that stands for nothing.
    """
    found: dict[str, Path] = {}
    for given in paths:
        files = _expand(given)
        if not files:
            raise UserError(
                f"{given!r} is no file, no folder with pictures and no pattern that matches a picture.",
                "pictures that Pillow opens (.jpg, .png, .webp, .tif, ...), folders of them, or patterns",
                "hf-transfer predict MODEL 'folder/*.jpg'",
            )
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def predict_files(
    classifier: Classifier,
    files: Sequence[Path],
    *,
    top_k: int = 1,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
) -> Iterator[Prediction]:
    """Predicts files; labels and scores are those of `transformers.pipeline("image-classification")`.

    Args:
        classifier ([`~hf_transfer.evaluation.classifier.Classifier`]):
            The model.
        files (`Sequence[Path]`):
            The pictures.
        top_k (`int`, *optional*, defaults to 1):
            How many labels a picture gets; at most as many as there are.
        batch_size, num_workers, device:
            As in [`~hf_transfer.evaluation.evaluator.predict_logits`].

    Yields:
        [`Prediction`]: one for each file, in order, also for those that cannot be read.
    """
    top_k = min(top_k, len(classifier.label_names))
    answers = stream_logits(classifier.model, classifier.image_processor, list(files), batch_size, num_workers, device)
    for file, answer in zip(files, tqdm(answers, total=len(files), unit=" pictures", disable=None), strict=True):
        if isinstance(answer, UserError):
            yield Prediction(_printable(file), (), (), error=_printable(str(answer.given)))
            continue
        scores = torch.from_numpy(answer).double().softmax(dim=0)
        # Stable, so that equal scores come in the order of the labels, as in the pipeline.
        ranks = torch.argsort(scores, descending=True, stable=True)[:top_k].tolist()
        labels = tuple(classifier.label_names[rank] for rank in ranks)
        yield Prediction(_printable(file), labels, tuple(float(scores[rank]) for rank in ranks))


def write_predictions(predictions: Sequence[Prediction], path: Path, top_k: int) -> None:
    """Writes a table whose kind is the suffix of `path`; a reader finds either the old file or the whole new one.

    In a CSV file, a cell that a spreadsheet would take for a formula gets an apostrophe in front, and a carriage
    return is written as `\\r`; the other kinds keep every name as it is.

    Args:
        predictions (`Sequence[Prediction]`):
            The rows.
        path (`Path`):
            `.csv`, `.jsonl` or `.parquet`.
        top_k (`int`):
            How many labels each row has.
    """
    rows = [prediction.to_row(top_k) for prediction in predictions]
    columns = list(Prediction("", (), ()).to_row(top_k))
    write = WRITERS[path.suffix.lower()]
    write_atomically(path, lambda temporary: write(rows, columns, temporary))


Rows = list[dict[str, str | float | None]]


def _write_csv(rows: Rows, columns: list[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)


def _write_jsonl(rows: Rows, columns: list[str], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(rows: Rows, columns: list[str], path: Path) -> None:
    # A schema of our own: a column without a single value would otherwise have no type.
    schema = pa.schema([(name, pa.float64() if name.startswith("score") else pa.string()) for name in columns])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


WRITERS: dict[str, Callable[[Rows, list[str], Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
"""By suffix."""


def _harmless(value: str | float | None) -> str | float | None:
    if not isinstance(value, str):
        return value
    # Python's csv writer leaves a lone carriage return unquoted before 3.13, and readers end the row there.
    value = value.replace("\r", "\\r")
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value


def _printable(name: str | Path) -> str:
    """Returns a file name that can be written as UTF-8, whatever bytes the file system allows."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _expand(given: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        return _pictures_below(path)
    if path.exists() or path.is_symlink():
        return [path]
    files: list[Path] = []
    for match in sorted(glob.glob(str(path), recursive=True)):
        if os.path.isdir(match):
            # `folder/**` matches every folder below as well; `folder/*` matches those that it should descend into.
            files += _pictures_below(Path(match))
        elif _is_picture(match):
            files.append(Path(match))
    return files


def _pictures_below(folder: Path) -> list[Path]:
    files: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in sorted(names) if not name.startswith(".") and _is_picture(name)]
    return files


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in _suffixes()


@cache
def _suffixes() -> frozenset[str]:
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)
