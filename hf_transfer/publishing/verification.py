"""A run's folder held against its `run.json`: which files are still what the run left.

Knows what can be computed again: hashes of the saved model and of figures, tables and card from `run.json`, the
manifest's hashes and fingerprint, and, with the data set at hand, every picture. Finds what was changed, lost or added
by accident or by hand; it does not prove who wrote the folder, since `run.json` itself could be replaced with all the
rest.
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_transfer.config import DATA_FIELDS, FinetuneConfig
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.manifest import ManifestRow, manifest_fingerprint, manifest_rows, read_manifest, split_hashes
from hf_transfer.errors import UserError
from hf_transfer.publishing.card import CARD, render_card
from hf_transfer.publishing.lineage import sha256_of

_MOST_NAMED = 20


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    what: str
    expected: str
    found: str

    @property
    def holds(self) -> bool:
        """Whether it is as the run left it."""
        return self.expected == self.found


def verify_run(folder: Path, report: Mapping[str, Any], dataset: str | None = None) -> tuple[Check, ...]:
    """Compares a run's folder with its `run.json`.

    Args:
        folder (`Path`):
            The run's folder.
        report (`Mapping`):
            Its `run.json`.
        dataset (`str`, *optional*):
            Where the pictures are now; they are compared too.

    Returns:
        `tuple[Check, ...]`: all that was compared, in the order of the files.

    Raises:
        UserError: where the run recorded no lineage, or the data set cannot be read.
    """
    if not report.get("lineage"):
        raise UserError(
            f"{folder} was made before lineage was recorded: there is nothing to compare with.",
            "a run with `lineage` in its run.json",
        )
    rows = _read_rows(folder, report)
    pictures = _pictures(report, rows, dataset) if dataset is not None else ()
    return (
        *_model(folder, report),
        *_figures(folder, report),
        *_tables(folder, report),
        *_card(folder, report),
        *_report(report),
        *_manifest(folder, report, rows),
        *pictures,
    )


def _model(folder: Path, report: Mapping[str, Any]) -> Iterator[Check]:
    model = report["outputs"]["model"]
    recorded = report["lineage"]["model_files"]
    for name, expected in recorded.items():
        yield Check(f"{model}/{name}", expected, _hash(folder / model / name))
    found = {path.relative_to(folder / model).as_posix() for path in (folder / model).rglob("*") if path.is_file()}
    for name in sorted(found - recorded.keys()):
        yield Check(f"{model}/{name}", "no such file", _hash(folder / model / name))


def _figures(folder: Path, report: Mapping[str, Any]) -> Iterator[Check]:
    for name, expected in report["lineage"]["files"].items():
        yield Check(name, expected, _hash(folder / name))


def _tables(folder: Path, report: Mapping[str, Any]) -> Iterator[Check]:
    name = report["outputs"]["metrics"]
    expected = {split: values["metrics"] for split, values in report["evaluation"].items()}
    yield _compared(name, expected, _read_json(folder / name))
    name = report["outputs"]["history"]
    yield _compared(name, [_cells(row) for row in report["history"]], _read_csv(folder / name))


def _card(folder: Path, report: Mapping[str, Any]) -> Iterator[Check]:
    path = folder / CARD
    if not path.is_file():
        yield Check(CARD, "as rendered from run.json", "no such file")
        return
    same = path.read_bytes() == render_card(report).encode("utf-8")
    yield Check(CARD, "as rendered from run.json", "as rendered from run.json" if same else "another text")


def _report(report: Mapping[str, Any]) -> Iterator[Check]:
    """Compares what `run.json` says twice."""
    lineage, checkpoint, data = report["lineage"], report["checkpoint"], report["data"]
    pairs = (
        ("weights of the checkpoint", lineage["base_model"]["weights_sha256"], checkpoint["weights_sha256"]),
        ("commit of the checkpoint", lineage["base_model"]["commit"], checkpoint["revision"]),
        ("fingerprint of the data", lineage["data"]["fingerprint"], data["fingerprint"]),
        ("code", lineage["code"]["version"], report["versions"]["hf-transfer-learning"]),
    )
    for what, expected, found in pairs:
        yield Check(f"run.json: {what}", str(expected), str(found))
    sizes = {split: facts["pictures"] for split, facts in lineage["data"]["splits"].items()}
    yield Check("run.json: pictures of each split", str(sizes), str(data["split_sizes"]))


def _read_rows(folder: Path, report: Mapping[str, Any]) -> list[ManifestRow] | str:
    """Returns the rows of the manifest, or in words why there are none."""
    try:
        return read_manifest(folder / report["lineage"]["data"]["manifest"])
    except FileNotFoundError:
        return "no such file"
    except ValueError as error:
        return str(error)


def _manifest(folder: Path, report: Mapping[str, Any], rows: list[ManifestRow] | str) -> Iterator[Check]:
    lineage = report["lineage"]["data"]
    name = lineage["manifest"]
    if isinstance(rows, str):
        yield Check(name, "the pictures of the run", rows)
        return
    yield Check(name, lineage["manifest_sha256"], _hash(folder / name))
    hashes = split_hashes(rows)
    for split, facts in lineage["splits"].items():
        count = sum(row.split == split for row in rows)
        yield Check(f"{name}: {split}", f"{facts['pictures']} {facts['sha256']}", f"{count} {hashes[split]}")
    try:
        fingerprint = manifest_fingerprint(rows, report["data"]["label_names"])
    except KeyError as error:
        fingerprint = f"a label that the run does not know: {error}"
    yield Check(f"{name}: fingerprint", lineage["fingerprint"], fingerprint)


def _pictures(report: Mapping[str, Any], rows: list[ManifestRow] | str, dataset: str) -> Iterator[Check]:
    """Reads the data set as the run did and compares every picture, by its contents, label and split."""
    config = report["config"]
    values = {name: config[name] for name in DATA_FIELDS if config.get(name) is not None}
    if dataset != config["dataset"]:
        # A commit belongs to the data set that the run read, and a copy has none.
        values.pop("dataset_revision", None)
    elif report["data"]["revision"]:
        values["dataset_revision"] = report["data"]["revision"]
    data = load_image_data(FinetuneConfig(model=config["model"], dataset=dataset, **values))
    yield Check(f"{dataset}: fingerprint", report["lineage"]["data"]["fingerprint"], data.fingerprint)
    if isinstance(rows, str):
        return
    now = list(manifest_rows(data))
    recorded, present = (Counter((row.split, row.label, row.sha256) for row in part) for part in (rows, now))
    for part, missing, words in (
        (rows, recorded - present, ("as recorded", "not there, or changed")),
        (now, present - recorded, ("no such picture", "there")),
    ):
        named = list(_named(part, missing))
        for row in named[:_MOST_NAMED]:
            yield Check(f"{dataset}: {row.split}, {row.label}, {row.file}", *words)
        if len(named) > _MOST_NAMED:
            yield Check(f"{dataset}: {len(named) - _MOST_NAMED} more pictures", *words)


def _named(rows: list[ManifestRow], wanted: Counter) -> Iterator[ManifestRow]:
    left = Counter(wanted)
    for row in rows:
        key = (row.split, row.label, row.sha256)
        if left[key] > 0:
            left[key] -= 1
            yield row


def _compared(name: str, expected: Any, found: Any) -> Check:
    if expected == found:
        return Check(name, "as in run.json", "as in run.json")
    return Check(name, "as in run.json", found if isinstance(found, str) else _first_difference(expected, found))


def _first_difference(expected: Any, found: Any, place: str = "") -> str:
    """Names the first place where two values of dictionaries, lists and numbers differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if expected.get(key) != found.get(key):
                return _first_difference(expected.get(key), found.get(key), f"{place}{' ' if place else ''}{key}")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        number = next(index for index, (one, other) in enumerate(zip(expected, found, strict=True)) if one != other)
        return _first_difference(expected[number], found[number], f"row {number + 1}")
    if isinstance(expected, list) and isinstance(found, list):
        return f"{len(found)} rows in place of {len(expected)}"
    return f"{place} is {found} in place of {expected}".strip()


def _hash(path: Path) -> str:
    return sha256_of(path) if path.is_file() else "no such file"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "no such file"
    except ValueError as error:
        return f"damaged: {error}"


def _read_csv(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_cells(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return "no such file"
    except ValueError as error:
        return f"damaged: {error}"


def _cells(row: Mapping[str, Any]) -> dict[str, float | str]:
    """Returns the cells that hold something, as numbers: a table writes none for what JSON does not know."""
    cells = {key: _cell(value) for key, value in row.items() if value not in (None, "")}
    return {key: value for key, value in cells.items() if isinstance(value, str) or math.isfinite(value)}


def _cell(value: Any) -> float | str:
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
