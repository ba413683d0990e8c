"""The run that a saved model came from: which model is meant, and which pictures it was trained on.

Knows the folder of a run from outside, and how its data set is described again. Does not load pictures or a model.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_transfer.config import DATA_FIELDS, FinetuneConfig
from hf_transfer.errors import UserError

if TYPE_CHECKING:
    from hf_transfer.data.image_data import ImageData


def resolve_model(given: str) -> tuple[str, dict[str, Any] | None]:
    """Returns the folder or Hub id of the model, and the `run.json` of its run if there is one."""
    folder = Path(given).expanduser()
    if (folder / "model").is_dir() and not (folder / "config.json").is_file():
        return str(folder / "model"), _read_run(folder / "run.json")
    if folder.is_dir() and folder.resolve().name == "model":
        return given, _read_run(folder.resolve().parent / "run.json")
    return given, None


def _read_run(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is damaged: {error}", hint="give --dataset and the folder of the model itself"
        ) from error
    return run if isinstance(run, dict) else None


def data_config(options: argparse.Namespace, run: dict[str, Any] | None) -> FinetuneConfig:
    """Describes the data: the user's word first, then the run's where it is about the same data set."""
    trained_on = (run or {}).get("config", {})
    dataset = options.dataset or trained_on.get("dataset")
    if dataset is None:
        raise UserError(
            f"{options.model} does not say which data set to measure on.",
            "--dataset, or the folder of a run (with its run.json)",
            f"hf-transfer evaluate {options.model} --dataset DATASET",
        )
    values: dict[str, Any] = {}
    if dataset == trained_on.get("dataset"):
        # Split in another way, pictures of the training would be among those of the test.
        values = {name: trained_on[name] for name in DATA_FIELDS if trained_on.get(name) is not None}
    given = {name: getattr(options, name, None) for name in DATA_FIELDS}
    values |= {name: value for name, value in given.items() if value is not None}
    return FinetuneConfig(model=options.model, dataset=dataset, **values)


def changed_data_note(run: dict[str, Any] | None, config: FinetuneConfig, data: "ImageData") -> str | None:
    """Says so if the run's data set is not what it was when the model was trained."""
    if run is None or run.get("config", {}).get("dataset") != config.dataset:
        return None
    before = run.get("data", {}).get("fingerprint")
    if before is None or before == data.fingerprint:
        return None
    return (
        f"{config.dataset} is not what it was when the model was trained (its fingerprint differs), so pictures of "
        "the training may be among those measured on."
    )
