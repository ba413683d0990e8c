"""The facts of a run that go into its report, taken from the objects of each stage.

Knows which fields of data, checkpoint and training are worth keeping. Does not measure anything.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Set
from typing import Any

from transformers import BaseImageProcessor

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import TrainingInput
from hf_transfer.data.image_data import SPLIT_NAMES, ImageData
from hf_transfer.data.manifest import duplicates
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.training.session import TrainingOutcome
from hf_transfer.training.trainer import TransferTrainer

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
        "duplicates": duplicates(data.content_hashes),
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
        "preprocessing": _settings(checkpoint.image_processor),
        "notes": checkpoint.notes,
    }


def training_facts(
    outcome: TrainingOutcome, pictures: TrainingInput, trainer: TransferTrainer, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Returns what came of the training, without its history, which has a place of its own."""
    facts = dataclasses.asdict(outcome)
    del facts["history"]
    facts["layer_groups"] = _group_facts(trainer, checkpoint, outcome.steps)
    facts["varied_on"] = dataclasses.asdict(pictures.varied)
    facts["pictures"] = {"decoded": pictures.decoded, "reason": pictures.reason, "kept": pictures.stores}
    return facts


def not_measured() -> tuple[str, ...]:
    """Returns what a run does not look at, for whoever reads its results."""
    return (
        "How results vary with the seed: this is one run.",
        "Pictures of another source than the test pictures: other cameras, places or times.",
        "Near-duplicates across splits; only pictures that are the same byte for byte were looked for.",
        "Labels that are wrong in the data set itself.",
        "Pictures of none of the classes: every picture gets one of the labels.",
        "Differences between groups of people, or of anything else that the labels do not name.",
    )


def _group_facts(trainer: TransferTrainer, checkpoint: Checkpoint, steps: int) -> list[dict[str, Any]] | None:
    """Returns for each layer group whether it learned at any step; `None` where no step was taken in this start."""
    schedule = trainer.unfreezing.schedule
    if schedule is None:
        return None
    sizes = {name: parameter.numel() for name, parameter in checkpoint.model.named_parameters()}
    norms_alone = trainer.unfreezing.unfreezing.tune_norms is not None
    found: list[dict[str, Any]] = []
    for group, segments in zip(trainer.groups, schedule.segments, strict=True):
        learned = any(segment.start < steps for segment in segments)
        if norms_alone and learned and group is not trainer.groups[-1]:
            found += _norms_and_rest(group, sizes, trainer.unfreezing.never_learns)
        else:
            found.append(_learning_fact(group.name, group.parameter_names, sizes, learned))
    return found


def _norms_and_rest(group: LayerGroup, sizes: Mapping[str, int], never_learns: Set[str]) -> list[dict[str, Any]]:
    """Returns the two parts of a group whose norms alone learned; the group, where it has none."""
    norms = [name for name in group.parameter_names if name not in never_learns]
    if not norms:
        return [_learning_fact(group.name, group.parameter_names, sizes, learned=False)]
    rest = [name for name in group.parameter_names if name in never_learns]
    return [
        _learning_fact(f"{group.name} but for its norms", rest, sizes, learned=False),
        _learning_fact(f"norms of {group.name}", norms, sizes, learned=True),
    ]


def _learning_fact(name: str, parameters: Iterable[str], sizes: Mapping[str, int], learned: bool) -> dict[str, Any]:
    return {"name": name, "num_parameters": sum(sizes[parameter] for parameter in parameters), "learned": learned}


def _settings(image_processor: BaseImageProcessor) -> dict[str, Any]:
    """Returns the settings of an image processor that are set."""
    return {name: value for name, value in image_processor.to_dict().items() if value is not None}


def _is_secret(key: str) -> bool:
    return any(word in key for word in _SECRETS)
