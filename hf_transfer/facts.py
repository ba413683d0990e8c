"""The facts of a run that go into its report, taken from the objects of each stage.

Knows which fields of data, checkpoint and training are worth keeping. Does not measure anything.
"""

import dataclasses
from typing import Any

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import TrainingInput
from hf_transfer.data.image_data import SPLIT_NAMES, ImageData
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.training.session import TrainingOutcome

_SECRETS = ("token",)


def config_facts(config: FinetuneConfig) -> dict[str, Any]:
    """Returns the configuration without tokens."""
    facts = dataclasses.asdict(config)
    facts["training"] = {key: "***" if _is_secret(key) else value for key, value in config.training.items()}
    return facts


def data_facts(data: ImageData) -> dict[str, Any]:
    """Returns name, revision, fingerprint, labels and sizes of the data."""
    return {
        "name": data.name,
        "kind": data.kind,
        "revision": data.revision,
        "fingerprint": data.fingerprint,
        "label_names": data.label_names,
        "split_sizes": {name: len(data.split(name)) for name in SPLIT_NAMES},
        "class_counts": {name: data.class_counts(name) for name in SPLIT_NAMES},
        "split_methods": data.split_methods,
        "notes": data.notes,
    }


def checkpoint_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns origin, architecture and sizes of the checkpoint as it was trained."""
    parameters = list(checkpoint.model.parameters())
    return {
        "source": checkpoint.source,
        "revision": checkpoint.revision,
        "architecture": checkpoint.architecture,
        "weights_sha256": checkpoint.weights_sha256,
        "new_tensors": checkpoint.new_tensors,
        "head_parameters": checkpoint.head_parameter_names,
        "num_parameters": sum(parameter.numel() for parameter in parameters),
        "num_trainable_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "image_processor": type(checkpoint.image_processor).__name__,
        "notes": checkpoint.notes,
    }


def training_facts(outcome: TrainingOutcome, pictures: TrainingInput) -> dict[str, Any]:
    """Returns what came of the training, without its history, which has a place of its own."""
    facts = dataclasses.asdict(outcome)
    del facts["history"]
    facts["pictures"] = {"decoded": pictures.decoded, "reason": pictures.reason, "kept": pictures.stores}
    return facts


def _is_secret(key: str) -> bool:
    return any(word in key for word in _SECRETS)
