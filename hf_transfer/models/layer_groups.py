"""Layer groups: the parts of a classifier from stem to head, each frozen, thawed and given a rate as one.

Where the network can be divided follows from the order in which its layers run
(`hf_transfer.models.execution_order`) and from chains of modules: lists, sequences, or siblings with numbered names
whose elements run one after the other. The outermost chain that holds most of the weights gives the stages, chains
inside its elements the blocks, where a block may not be divided at a place that a residual connection jumps over.

- What runs before the chain is the first group, `stem`: patch embedding, position embeddings, class tokens. Bare
  parameters of the module around the chain are in it as well, even where they are used later (CaiT's class token).
- What runs between two elements of the chain, such as a downsampling, belongs to the one that follows.
- What runs after the last one and is not the head (a final normalisation, a pooler) belongs to the last group before
  the head: it comes pretrained, and BEiT's and timm's layer decay too put it above the last block or level with it.
- The head is what depends on the number of labels, and the dropout before it.
- A parameter used in several groups belongs to the first of them; one that the forward pass never uses, to the first
  group that its module has a part in, or to the stem.

Does not know learning rates or when a group is open.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from hf_transfer.errors import UserError
from hf_transfer.models.chains import Unit, blocks_of, chain_units, merge_equal_sizes, short_names
from hf_transfer.models.execution_order import Execution, trace_execution
from hf_transfer.models.head import find_head

Granularity = Literal["stage", "block"]


@dataclass(frozen=True)
class LayerGroup:
    """A part of the network that is frozen, thawed and given a learning rate as one."""

    name: str
    parameter_names: tuple[str, ...]
    """As in `model.named_parameters()`."""
    module_names: tuple[str, ...]
    """As in `model.named_modules()`: every module that belongs wholly to this group."""


def layer_groups(model: nn.Module, granularity: Granularity | None = None) -> tuple[LayerGroup, ...]:
    """Divides a classifier into layer groups.

    Args:
        model (`nn.Module`):
            A transformers or timm classifier, on any device, the meta device included; it is left as it was.
        granularity (`str`, *optional*):
            `stage` or `block`; when left out, `stage` for networks with several stages and `block` for those, such as
            a plain ViT, whose blocks all work at one size.

    Returns:
        `tuple[LayerGroup, ...]`: from the stem to the head, which comes last. Every parameter is in exactly one group.

    Raises:
        [`~hf_transfer.errors.UserError`]: where no forward pass can be made, or no head is found.
    """
    execution = trace_execution(model)
    head = _head_parameters(model)
    stages = chain_units(model, execution, head)
    blocks = [block for stage in stages for block in blocks_of(model, execution, stage)]
    if len(blocks) == len(stages):
        stages = merge_equal_sizes(stages)
    if granularity is None:
        granularity = "stage" if len(stages) > 1 and len(blocks) > len(stages) else "block"
    units = stages if granularity == "stage" else blocks
    return _groups(model, execution, head, short_names(units))


def _head_parameters(model: nn.Module) -> frozenset[str]:
    if isinstance(model, PreTrainedModel):
        return frozenset(find_head(model))
    get_classifier: Any = getattr(model, "get_classifier", None)
    if get_classifier is None:
        raise UserError(
            f"{type(model).__name__} is no classifier of transformers or timm, so nobody knows its head.",
            "a model of transformers, or of timm with get_classifier()",
        )
    found = get_classifier()
    heads = found if isinstance(found, tuple | list) else (found,)
    ids = {id(parameter) for module in heads for parameter in module.parameters()}
    if not ids:
        raise UserError(
            f"{type(model).__name__} has no head with weights, so it cannot learn labels.",
            "a classifier with a trainable head",
            "timm.create_model(..., num_classes=N)",
        )
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in ids)


def _groups(
    model: nn.Module, execution: Execution, head: Collection[str], units: Sequence[Unit]
) -> tuple[LayerGroup, ...]:
    names = ["stem", *(unit.name for unit in units), "head"]
    numbers = _parameter_numbers(model, execution, head, units)
    modules = _module_numbers(model, execution, numbers, units, len(names) - 1)
    groups = tuple(
        LayerGroup(
            name,
            tuple(parameter for parameter, place in numbers.items() if place == number),
            tuple(module for module, place in modules.items() if place == number),
        )
        for number, name in enumerate(names)
    )
    groups = _without_empty(groups)
    placed = sorted(name for group in groups for name in group.parameter_names)
    assert placed == sorted(name for name, _ in model.named_parameters()), "every parameter is in exactly one group"
    return groups


def _number_at(operation: int, units: Sequence[Unit]) -> int:
    """Returns the group that an operation belongs to: 0 before the chain, and up to the last unit after it."""
    if units and operation < units[0].first:
        return 0
    passed = sum(operation > unit.last for unit in units)
    return min(passed + 1, len(units))


def _parameter_numbers(
    model: nn.Module, execution: Execution, head: Collection[str], units: Sequence[Unit]
) -> dict[str, int]:
    """Returns the group of every parameter by name, in the model's order."""
    numbers: dict[str, int] = {}
    for name, _ in model.named_parameters():
        if name in head:
            numbers[name] = len(units) + 1
        elif _is_around(name.rpartition(".")[0], units):
            numbers[name] = 0
        elif name in execution.first_use:
            numbers[name] = _number_at(execution.first_use[name], units)
    for name, _ in model.named_parameters():
        if name not in numbers:
            numbers[name] = _number_of_unused(name, numbers, len(units))
    return {name: numbers[name] for name, _ in model.named_parameters()}


def _is_around(owner: str, units: Sequence[Unit]) -> bool:
    """Tells whether a module holds the whole chain."""
    return len(units) > 1 and all(unit.path.startswith(f"{owner}." if owner else "") for unit in units)


def _number_of_unused(name: str, numbers: dict[str, int], last: int) -> int:
    """Returns the first group that the module of an unused parameter, or one around it, has a part in."""
    owner = name.rpartition(".")[0]
    while owner:
        near = [number for other, number in numbers.items() if other.startswith(f"{owner}.") and number <= last]
        if near:
            return min(near)
        owner = owner.rpartition(".")[0]
    return 0


def _module_numbers(
    model: nn.Module, execution: Execution, parameters: dict[str, int], units: Sequence[Unit], head: int
) -> dict[str, int]:
    """Returns the group of every module that belongs wholly to one."""
    of_parameter = {id(parameter): parameters[name] for name, parameter in model.named_parameters()}
    head_starts = min(
        (
            execution.first_use[name]
            for name, place in parameters.items()
            if place == head and name in execution.first_use
        ),
        default=execution.num_operations,
    )
    body_ends = max(
        (
            execution.first_use[name]
            for name, place in parameters.items()
            if place < head and name in execution.first_use
        ),
        default=-1,
    )
    numbers: dict[str, int] = {}
    for name, module in model.named_modules():
        found = {of_parameter[id(parameter)] for parameter in module.parameters()}
        around = name.rpartition(".")[0]
        if not found and name in execution.spans:
            found = _numbers_of_span(execution.spans[name], module, units, head, head_starts, body_ends)
        elif not found and around in numbers:
            found = {numbers[around]}
        if len(found) == 1:
            numbers[name] = next(iter(found))
    return numbers


def _numbers_of_span(
    span: tuple[int, int], module: nn.Module, units: Sequence[Unit], head: int, head_starts: int, body_ends: int
) -> set[int]:
    """Returns the groups in which a module without parameters runs."""
    first, last = span
    if last < first:
        # It did nothing, as dropout in evaluation: it stands before operation `first`.
        first = last = max(0, first - 1)
        before_head = isinstance(module, nn.Dropout) and first >= body_ends
        if before_head:
            return {head}
    if first >= head_starts:
        return {head}
    return {_number_at(first, units), _number_at(last, units)}


def _without_empty(groups: Sequence[LayerGroup]) -> tuple[LayerGroup, ...]:
    """Hands the modules of groups without parameters to the group before them, or after them at the start."""
    kept: list[LayerGroup] = []
    waiting: tuple[str, ...] = ()
    for group in groups:
        if group.parameter_names:
            kept.append(LayerGroup(group.name, group.parameter_names, (*waiting, *group.module_names)))
            waiting = ()
        elif kept:
            before = kept[-1]
            kept[-1] = LayerGroup(before.name, before.parameter_names, (*before.module_names, *group.module_names))
        else:
            waiting = group.module_names
    return tuple(kept)
