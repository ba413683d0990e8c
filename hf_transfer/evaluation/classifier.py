"""A saved image classifier, reloaded to be used and not to be trained.

Knows how to load one from its files alone, and what to say where the files hold no finished classifier. Does not
predict anything (`hf_transfer.evaluation.evaluator`), and gives no model a new head: that is
`hf_transfer.models.checkpoint`.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import BaseImageProcessor, PreTrainedModel

from hf_transfer.errors import UserError
from hf_transfer.models.configuration import ModelPlan, plan_model
from hf_transfer.models.processors import load_image_processor
from hf_transfer.models.source import CheckpointFiles, find_files
from hf_transfer.models.weights import read_network


@dataclass(frozen=True)
class Classifier:
    """A model with its own labels and its own image processor."""

    model: PreTrainedModel
    """In float32, in evaluation mode, on the CPU."""
    image_processor: BaseImageProcessor
    label_names: tuple[str, ...]
    """In the order of the logits; not always unique (ImageNet has two classes called `crane`)."""


def load_classifier(model: str | Path) -> Classifier:
    """Loads a finished classifier from its files.

    Args:
        model (`str` or `Path`):
            Local folder, Hub id, or `quickstart`.

    Returns:
        [`Classifier`]

    Raises:
        [`~hf_transfer.errors.UserError`]: where there is no such model, or its files hold no classifier with a head of
        its own: a head with random weights would answer too.
    """
    files = find_files(str(model))
    problem_type = files.read_config().get("problem_type")
    if problem_type not in (None, "single_label_classification"):
        raise UserError(
            f"{files.source!r} was trained for {problem_type.replace('_', ' ')}.",
            "models that give every picture one label",
        )
    # The labels asked for here do not matter yet: the first plan only tells the checkpoint's own.
    label_names = plan_model(files, ("first", "second")).old_label_names
    network = _load_network(plan_model(files, label_names), files)
    return Classifier(network.eval(), load_image_processor(files), label_names)


def _load_network(plan: ModelPlan, files: CheckpointFiles) -> PreTrainedModel:
    network, info = read_network(plan, files)
    wrong = sorted(set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]})
    if wrong:
        raise UserError(
            f"{files.source!r} is no finished classifier: its files lack {', '.join(wrong[:3])}"
            f"{' and more' if len(wrong) > 3 else ''} of {plan.architecture}, or hold it in another shape.",
            "a model that was trained for classification",
            f"train it first: hf-transfer train --model {files.source} --dataset DATASET",
        )
    return network
