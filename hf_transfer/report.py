"""`RunReport`: everything about a finished run, frozen and JSON-serialisable.

Knows the shape of `run.json` and how it is written. Does not compute any of it, and does not render it: the model card
and other pages are made from it elsewhere.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_transfer.atomic import write_atomically
from hf_transfer.errors import UserError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Decision:
    """One thing that was decided, by the user or by us, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class RunReport:
    """What was asked, decided, done and measured in one run; `run.json` holds the same."""

    command: tuple[str, ...]
    config: dict[str, Any]
    training_arguments: dict[str, Any]
    started: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    hardware: dict[str, Any]
    seed: int
    data: dict[str, Any]
    checkpoint: dict[str, Any]
    decisions: tuple[Decision, ...]
    history: tuple[dict[str, float], ...]
    training: dict[str, Any]
    evaluation: dict[str, dict[str, Any]]
    """Validation and test, measured on the model as reloaded from `model/`."""
    seconds: dict[str, float]
    """Wall-clock time by stage."""
    outputs: dict[str, str]
    """Paths relative to the run's folder."""
    license: dict[str, Any] | None = None
    """The `LicenseVerdict` of the chain; `None` in reports of before it was checked."""
    lineage: dict[str, Any] | None = None
    """Hashes of weights in and out, of the data and the code; `hf-transfer verify` recomputes them."""
    usage: dict[str, Any] | None = None
    """Whether the lines that show how the model is used `worked` when they were tried, and the `problem` if not;
    `None` where they were not tried."""
    linear_probe: dict[str, Any] | None = None
    """What a linear head on the frozen checkpoint reached (`hf_transfer.linear_probe`); `None` where nobody asked."""
    not_measured: tuple[str, ...] = ()
    """What nobody should take these results to tell, a sentence each."""
    schema_version: int = SCHEMA_VERSION

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The final metrics of each split, as `metrics.json` holds them."""
        return {split: dict(values["metrics"]) for split, values in self.evaluation.items()}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain dictionaries, lists, strings and numbers."""
        return to_plain(dataclasses.asdict(self))


def read_run(folder: Path) -> dict[str, Any]:
    """Reads the `run.json` of a finished run.

    Raises:
        UserError: where there is none, or it is damaged or of another shape.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished run: there is no run.json.", "the --output_dir of a run")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}", "the --output_dir of another run") from error
    required = {field.name for field in dataclasses.fields(RunReport) if field.default is dataclasses.MISSING}
    missing = sorted(required - (report.keys() if isinstance(report, dict) else set()))
    if missing:
        raise UserError(
            f"{path} is no report of a run: it lacks {', '.join(missing[:5])}.", "the --output_dir of a run"
        )
    if report.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} has the schema version {report.get('schema_version')}, this version of hf_transfer reads "
            f"{SCHEMA_VERSION}.",
            hint="the version of hf-transfer-learning that the run was made with",
        )
    return report


def to_plain(value: Any) -> Any:
    """Turns a value into what JSON can hold: numpy and torch scalars become numbers, paths and enums strings.

    Numbers that JSON does not know (infinity, not-a-number) become `None`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(getattr(value, "value", value))


def write_json(value: Any, path: Path) -> None:
    """Writes JSON so that a reader finds either the old file or the whole new one."""
    text = json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
