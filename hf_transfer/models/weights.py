"""Weights from safetensors into a model, and an account of every tensor that did not fit.

Knows what may differ between a file and a model: the head, and nothing else. Does not know where the files come from.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from hf_transfer.errors import UserError
from hf_transfer.models.configuration import ModelPlan
from hf_transfer.models.head import find_head
from hf_transfer.models.processors import quiet_transformers
from hf_transfer.models.source import CheckpointFiles


def load_weights(plan: ModelPlan, files: CheckpointFiles, keep_head: bool) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Builds the model and fills it from the files.

    Args:
        plan ([`ModelPlan`]):
            Class and configuration.
        files ([`CheckpointFiles`]):
            The checkpoint.
        keep_head (`bool`):
            Whether the head, too, must come from the files.

    Returns:
        `tuple[PreTrainedModel, tuple[str, ...]]`: the model in float32 on the CPU, and notes on tensors left unused.

    Raises:
        [`~hf_transfer.errors.UserError`]: where a tensor other than the head's is missing or has another shape, or the
        file holds tensors that the architecture has no place for.
    """
    model, info = read_network(plan, files)
    model.config.name_or_path = files.source
    head = set(find_head(model))
    mismatched = {name: (tuple(found), tuple(needed)) for name, found, needed in info["mismatched_keys"]}
    _check_shapes(files, mismatched, head, keep_head)
    _check_missing(files, plan, set(info["missing_keys"]), head, keep_head)
    return model, _unused_tensors(files, plan, sorted(info["unexpected_keys"]))


def read_network(plan: ModelPlan, files: CheckpointFiles) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Builds the model, fills in what fits, and tells what did not; the caller judges that.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the weights cannot be read, or a package is missing.
    """
    try:
        with quiet_transformers():  # its table of tensors that do not fit: they are an error, or reported, elsewhere
            loaded: Any = plan.model_class.from_pretrained(
                files.folder,
                config=plan.config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise UserError(
            f"The weights of {files.source!r} are damaged: {error}", hint="download or copy the file again"
        ) from error
    except ImportError as error:
        raise UserError(f"{plan.architecture} needs a package that is not installed: {error}") from error
    return loaded


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Returns the SHA-256 of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _check_shapes(
    files: CheckpointFiles, mismatched: dict[str, tuple[tuple, tuple]], head: set[str], keep_head: bool
) -> None:
    wrong = {name: shapes for name, shapes in mismatched.items() if keep_head or name not in head}
    if not wrong:
        return
    if keep_head and set(wrong) <= head:
        (found, needed) = next(iter(wrong.values()))
        raise UserError(
            f"--keep_head: the head of {files.source!r} has {found[0]} labels, the data set has {needed[0]}.",
            "a data set with the checkpoint's own labels",
            "drop --keep_head to get a new head",
        )
    listed = [f"{name} is {found}, should be {needed}" for name, (found, needed) in sorted(wrong.items())]
    raise UserError(
        f"The weights of {files.source!r} do not fit its config.json: {_some(listed)}.",
        "weights and config.json saved together",
    )


def _check_missing(
    files: CheckpointFiles, plan: ModelPlan, missing: set[str], head: set[str], keep_head: bool
) -> None:
    beyond_head = sorted(missing - head)
    if beyond_head:
        saved_from = f" (saved from {plan.trained_as[0]})" if plan.trained_as else ""
        raise UserError(
            f"{files.source!r}{saved_from} lacks tensors that {plan.architecture} needs besides its head: "
            f"{_some(beyond_head)}.",
            "a checkpoint in which at most the head is missing",
            "choose a checkpoint of this family that was fine-tuned for classification",
        )
    if missing and keep_head:
        raise UserError(f"--keep_head: {files.source!r} has no classification head to keep.", hint="drop --keep_head")


def _unused_tensors(files: CheckpointFiles, plan: ModelPlan, unexpected: list[str]) -> tuple[str, ...]:
    if not unexpected:
        return ()
    if not plan.trained_as or plan.model_class.__name__ in plan.trained_as:
        raise UserError(
            f"{files.source!r} holds tensors that {plan.architecture} has no place for: {_some(unexpected)}.",
            "weights and config.json saved together",
        )
    return (
        f"{files.source} was saved from {plan.trained_as[0]}; {plan.architecture} has no use for "
        f"{len(unexpected)} of its tensors: {_some(unexpected)}.",
    )


def _some(items: list[str], limit: int = 5) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
