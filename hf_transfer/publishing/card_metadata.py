"""The card's metadata: the YAML block that the Hub reads.

Knows which keys the Hub has for what a run knows, and that a key is left out where nothing is known. A licence appears
only where one was decided (`hf_transfer.publishing.outgoing_license`).
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from hf_transfer.publishing.card_text import plain
from hf_transfer.publishing.license_verdict import LicenseVerdict

TASK = "image-classification"
TAG = "hf-transfer-learning"
LIBRARY = "transformers"
"""Also where the weights are timm's: they are saved, and the snippet loads them, through transformers' wrapper."""
NAMES = {
    "loss": "Cross-entropy loss",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "top5_accuracy": "Top-5 accuracy",
}
_SPLITS = ("test", "validation")
_LONGEST_LINE = 10_000


def metadata_block(report: Mapping[str, Any], verdict: LicenseVerdict | None, name: str) -> str:
    """Returns the block with its two lines of dashes.

    Args:
        report (`Mapping`):
            `run.json`, without local places.
        verdict (`LicenseVerdict`, *optional*):
            Whose outgoing licence is written.
        name (`str`):
            The model's name in `model-index`.
    """
    facts: dict[str, Any] = {**_facts(report), **_licence(verdict)}
    data = ModelCardData(**facts, model_name=name, eval_results=_results(report))
    # huggingface_hub writes text as it is, and a line break in it could end the block.
    fields = _flat(data.to_dict())
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=_LONGEST_LINE)
    return f"---\n{text}---"


def metric_values(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the finite metrics of each split, as `metrics.json` holds them."""
    return {
        split: {
            key: float(value) for key, value in report["evaluation"][split]["metrics"].items() if value is not None
        }
        for split in _SPLITS
        if split in report["evaluation"]
    }


def shown_data(report: Mapping[str, Any]) -> str:
    """Returns the data set's Hub id, or the last part of its path."""
    data = report["data"]
    return data["name"] if data["kind"] == "hub" else PurePath(data["name"]).name or data["kind"]


def hub_base(report: Mapping[str, Any]) -> str | None:
    """Returns the Hub id of the checkpoint whose weights were taken; `None` for others, and for fresh weights."""
    lineage = report.get("lineage") or {}
    base = lineage.get("base_model") or {}
    checkpoint = report["checkpoint"]
    found = base.get("id") or (checkpoint["source"] if checkpoint.get("revision") else None)
    return found if checkpoint.get("weights_sha256") else None


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    base, data = hub_base(report), report["data"]
    return {
        "library_name": LIBRARY,
        "pipeline_tag": TASK,
        **({"base_model": base, "base_model_relation": "finetune"} if base else {}),
        **({"datasets": [data["name"]]} if data["kind"] == "hub" else {}),
        "metrics": [key for key in metric_values(report).get("test", {}) if key != "loss"],
        "tags": [TASK, "transfer-learning", TAG],
    }


def _licence(verdict: LicenseVerdict | None) -> dict[str, str]:
    outgoing = verdict.outgoing if verdict is not None else None
    if outgoing is None:
        return {}
    fields = {"license": outgoing.license, "license_name": outgoing.name, "license_link": outgoing.link}
    return {key: value for key, value in fields.items() if value}


def _results(report: Mapping[str, Any]) -> list[EvalResult]:
    data = report["data"]
    return [
        EvalResult(
            task_type=TASK,
            task_name="Image classification",
            # Where the data is no data set of the Hub its kind stands here: any name could be that of a stranger's.
            dataset_type=data["name"] if data["kind"] == "hub" else data["kind"],
            dataset_name=shown_data(report),
            dataset_config=report["config"].get("dataset_config"),
            dataset_split=split,
            dataset_revision=data["revision"],
            metric_type=key,
            metric_name=NAMES.get(key, key),
            metric_value=value,
        )
        for split, values in metric_values(report).items()
        for key, value in values.items()
    ]


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _flat(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_flat(item) for item in value]
    return plain(value) if isinstance(value, str) else value
