"""The head of a classifier: found, renewed, reordered.

The head is what depends on the number of labels. It is found by building the model a second time, without memory
(torch's meta device), for one label more, and comparing shapes: no list of names, so it holds for renamed heads, two
heads (distilled DeiT and LeViT) and timm. A pooler, a last normalisation, or a hidden layer of the head whose shape
does not depend on the number of labels counts as backbone and keeps its weights.

Does not know how a head is trained.
"""

import copy
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_transfer.errors import UserError


def find_head(model: PreTrainedModel) -> tuple[str, ...]:
    """Finds the parameters (and buffers, if any) that depend on the number of labels.

    Args:
        model (`PreTrainedModel`):
            A classifier; it is not changed.

    Returns:
        `tuple[str, ...]`: their names, in the order of `model.state_dict()`.

    Raises:
        [`~hf_transfer.errors.UserError`]: where nothing depends on it.
    """
    return tuple(_label_dimensions(model))


def find_head_dropout(model: PreTrainedModel, head_parameter_names: Collection[str]) -> tuple[nn.Dropout, ...]:
    """Finds the dropout layers right before the head: the module that its parent defines just before it.

    A dropout that is a function call inside `forward` (timm's EfficientNet, ResNet and kin) is no module, and is
    not found here; `hf_transfer.models.head_dropout` knows timm's `drop_rate`.

    Args:
        model (`PreTrainedModel`):
            A classifier.
        head_parameter_names (`Collection[str]`):
            What [`find_head`] returned.

    Returns:
        `tuple[nn.Dropout, ...]`: without repetition; empty where there is none.
    """
    found: dict[int, nn.Dropout] = {}
    for owner in sorted({name.rpartition(".")[0] for name in head_parameter_names}):
        parent, _, child = owner.rpartition(".")
        siblings = list(model.get_submodule(parent).named_children())
        position = [name for name, _ in siblings].index(child)
        before = siblings[position - 1][1] if position > 0 else None
        if isinstance(before, nn.Dropout):
            found[id(before)] = before
    return tuple(found.values())


def renew_head(model: PreTrainedModel, head: Sequence[str]) -> None:
    """Draws the head anew, as the model's own `_init_weights` does, from torch's random generator.

    Needed even where the checkpoint's head has the right size: its rows stand for other labels (transformers#15876).

    Args:
        model (`PreTrainedModel`):
            Changed in place.
        head (`Sequence[str]`):
            What [`find_head`] returned.
    """
    tensors = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name in head:
            tensors[name].fill_(float("nan"))
            tensors[name]._is_hf_initialized = False
    for name in head:
        parts = name.split(".")[:-1]
        for depth in range(len(parts) + 1):  # transformers skips modules, and their parents, that are marked as done
            module: Any = model.get_submodule(".".join(parts[:depth]))
            module._is_hf_initialized = False
    model.initialize_weights()
    untouched = [name for name in head if not tensors[name].isfinite().all()]
    if untouched:
        raise UserError(
            f"{type(model).__name__} does not say how to initialise its head ({', '.join(untouched)}).",
            "an architecture whose head is a linear or convolution layer",
        )


def order_head(model: PreTrainedModel, old: Sequence[str], new: Sequence[str], source: str) -> None:
    """Reorders the rows of a kept head so that row i stands for the label `new[i]`.

    Args:
        model (`PreTrainedModel`):
            Changed in place.
        old (`Sequence[str]`):
            The checkpoint's labels, in the order of its logits.
        new (`Sequence[str]`):
            The labels asked for.
        source (`str`):
            The checkpoint, for messages.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the two are not the same names, or a name stands for two rows.
    """
    repeated = [name for name, count in Counter(old).items() if count > 1]
    if repeated:
        raise UserError(
            f"--keep_head: {source!r} has several labels called {repeated[0]!r}, so its rows cannot be told apart by "
            "name.",
            "a checkpoint whose labels differ from each other",
            "drop --keep_head to get a new head",
        )
    row_of = {name: row for row, name in enumerate(old)}
    missing = [name for name in new if name not in row_of]
    extra = sorted(set(old) - set(new), key=row_of.__getitem__)
    if missing or extra:
        raise UserError(
            f"--keep_head: the labels of {source!r} are not those of the data set: the checkpoint lacks "
            f"{_listed(missing)}, the data set lacks {_listed(extra)}.",
            "the same label names in both",
            "drop --keep_head to get a new head, or rename the classes of the data set",
        )
    rows = torch.tensor([row_of[name] for name in new])
    tensors = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, dimension in _label_dimensions(model).items():
            tensors[name].copy_(tensors[name].index_select(dimension, rows))


def meta_twin(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Builds a model without memory for its weights, to look at its layers and shapes."""
    with torch.device("meta"):
        return model_class(copy.deepcopy(config))


def _label_dimensions(model: PreTrainedModel) -> dict[str, int]:
    """Returns, for each tensor of the head, the dimension that counts the labels."""
    config = copy.deepcopy(model.config)
    config.num_labels = (model.config.num_labels or 0) + 1
    twin = meta_twin(type(model), config).state_dict()
    dimensions = {}
    for name, tensor in model.state_dict().items():
        for dimension, (here, there) in enumerate(zip(tensor.shape, twin[name].shape, strict=True)):
            if here != there:
                dimensions[name] = dimension
    if not dimensions:
        raise UserError(
            f"{type(model).__name__} has no head whose size depends on the number of labels, so it cannot learn new "
            "ones.",
            "a classifier with a trainable head",
        )
    return dimensions


def _listed(names: Sequence[str], limit: int = 5) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more
