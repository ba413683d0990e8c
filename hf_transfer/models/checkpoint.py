"""`load_checkpoint`: any image-classification checkpoint, with a head for the labels asked for.

Knows the order of the steps and what a loaded checkpoint is. Does not know where files come from
(`hf_transfer.models.source`), how a configuration is read (`hf_transfer.models.configuration`), how weights are
checked (`hf_transfer.models.weights`), or how any of it is trained.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import BaseImageProcessor, PreTrainedModel

from hf_transfer.errors import UserError
from hf_transfer.models.configuration import ModelPlan, plan_model
from hf_transfer.models.head import find_head, order_head, renew_head
from hf_transfer.models.head_dropout import dropout_note, set_head_dropout
from hf_transfer.models.processors import load_image_processor
from hf_transfer.models.source import find_files
from hf_transfer.models.timm_checkpoint import fresh_timm_weights
from hf_transfer.models.weights import load_weights, sha256_of_files


@dataclass(frozen=True)
class Checkpoint:
    """A model that is ready to be trained or evaluated, and where it came from."""

    model: PreTrainedModel
    """In float32 on the CPU; `config.id2label` and `config.label2id` hold the labels asked for, in their order."""
    image_processor: BaseImageProcessor
    """The checkpoint's own."""
    source: str
    """What the user gave as --model."""
    revision: str | None
    """The commit (40 hex digits) that the files came from; `None` for a local folder."""
    architecture: str
    """The model's class, and for a timm checkpoint the timm architecture."""
    new_tensors: tuple[str, ...]
    """Names of the tensors with fresh weights: the head, nothing with a kept head, everything for `fresh_weights`."""
    head_parameter_names: tuple[str, ...]
    """Exactly the parameters whose shape depends on the number of labels (`hf_transfer.models.head`)."""
    weights_sha256: str | None
    """SHA-256 of the safetensors file (of all, one after the other, if sharded); `None` for fresh weights."""
    notes: tuple[str, ...]
    """What was noticed on the way, a sentence each."""


def load_checkpoint(
    model: str,
    *,
    label_names: Sequence[str],
    revision: str | None = None,
    keep_head: bool = False,
    fresh_weights: bool = False,
    head_dropout: float | None = None,
) -> Checkpoint:
    """Loads a checkpoint and gives it a head for `label_names`.

    A new head is drawn from torch's random generator, so seed it first. The pooler and the last normalisation stay
    the checkpoint's: only tensors whose shape depends on the number of labels are new.

    Args:
        model (`str`):
            Hub id, local folder (transformers' or timm's), or `quickstart` for the checkpoint inside this package.
        label_names (`Sequence[str]`):
            The labels, in the order of the logits.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        keep_head (`bool`, *optional*, defaults to `False`):
            Keep the checkpoint's head, its rows matched to `label_names` by name.
        fresh_weights (`bool`, *optional*, defaults to `False`):
            Take only the architecture and the image processor; all weights are drawn anew.
        head_dropout (`float`, *optional*):
            Dropout right before the head, in place of the checkpoint's own.

    Returns:
        [`Checkpoint`]: model, image processor and provenance.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the checkpoint cannot be had, is no image classifier, or its tensors
        do not fit its architecture.
    """
    labels = tuple(label_names)
    _check_request(labels, keep_head, fresh_weights)
    files = find_files(model, revision, with_weights=not fresh_weights)
    plan = plan_model(files, labels)
    image_processor = load_image_processor(files)
    if head_dropout is not None:
        plan = set_head_dropout(plan, head_dropout)
    try:
        network, notes = (_fresh_model(plan), ()) if fresh_weights else load_weights(plan, files, keep_head)
    except ImportError as error:
        raise UserError(
            f"{plan.architecture} needs a package that is not installed: {str(error).strip()}",
            hint="install that package, or choose a checkpoint of another family",
        ) from error
    head = find_head(network)
    if keep_head:
        order_head(network, plan.old_label_names, labels, files.source)
    elif not fresh_weights:
        renew_head(network, head)
    return Checkpoint(
        model=network,
        image_processor=image_processor,
        source=model,
        revision=files.revision,
        architecture=plan.architecture,
        new_tensors=_new_tensors(network, head, keep_head, fresh_weights),
        head_parameter_names=head,
        weights_sha256=None if fresh_weights else sha256_of_files(files.weight_files),
        notes=(*notes, *dropout_note(network, head)),
    )


def _check_request(labels: tuple[str, ...], keep_head: bool, fresh_weights: bool) -> None:
    if len(labels) < 2:
        raise UserError(f"The data set has {len(labels)} label(s).", "two labels or more")
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise UserError(
            f"The label {repeated[0]!r} stands for more than one class.",
            "labels that differ from each other",
            "rename the classes of the data set so that no two share a name",
        )
    if keep_head and fresh_weights:
        raise UserError(
            "--keep_head and --strategy scratch exclude each other: from scratch there is no head to keep.",
            hint="drop --keep_head",
        )


def _fresh_model(plan: ModelPlan) -> PreTrainedModel:
    network = plan.model_class(plan.config).float()
    if plan.is_timm:
        fresh_timm_weights(network)
    network.config.name_or_path = ""
    return network.eval()


def _new_tensors(
    network: PreTrainedModel, head: tuple[str, ...], keep_head: bool, fresh_weights: bool
) -> tuple[str, ...]:
    if fresh_weights:
        return tuple(network.state_dict())
    return () if keep_head else head
