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

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from hf_transfer.errors import UserError
from hf_transfer.models.execution_order import Execution, trace_execution
from hf_transfer.models.head import find_head

Granularity = Literal["stage", "block"]
MOST = 0.5
"""Share of the backbone's weights that its outermost chain has to hold."""
NEARLY_ALL = 0.8
"""Share above which one element of a chain is the network itself, and the chain around it no division of it."""


@dataclass(frozen=True)
class LayerGroup:
    """A part of the network that is frozen, thawed and given a learning rate as one."""

    name: str
    parameter_names: tuple[str, ...]
    """As in `model.named_parameters()`."""
    module_names: tuple[str, ...]
    """As in `model.named_modules()`: every module that belongs wholly to this group."""


@dataclass(frozen=True)
class _Unit:
    """An element of a chain, and the operations from its first to the last before the next begins."""

    name: str
    path: str
    """The module, or the first of several."""
    first: int
    last: int
    size: int | None
    """Positions of what it returns; `None` where that is no feature map."""


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
    stages = _chain_units(model, execution, head)
    blocks = [block for stage in stages for block in _blocks(model, execution, stage)]
    if len(blocks) == len(stages):
        stages = _merge_equal_sizes(stages)
    if granularity is None:
        granularity = "stage" if len(stages) > 1 and len(blocks) > len(stages) else "block"
    units = stages if granularity == "stage" else blocks
    return _groups(model, execution, head, _short_names(units))


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


# Chains


def _chain_units(model: nn.Module, execution: Execution, head: Collection[str]) -> list[_Unit]:
    """Returns the elements of the outermost chain that holds most of the backbone."""
    backbone = sum(p.numel() for name, p in model.named_parameters() if name not in head)
    chains = [chain for name, module in model.named_modules() for chain in _chains_in(name, module, execution, head)]
    heavy = [chain for chain in chains if _weight(model, chain) >= MOST * backbone]
    for chain in heavy:  # outermost first, as named_modules goes
        if not _is_wrapping(model, chain, heavy):
            return [_unit(element, execution) for element in chain]
    return [_unit(element, execution) for element in _children(model, execution, head)]


def _chains_in(name: str, module: nn.Module, execution: Execution, head: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Returns the chains whose elements are children of a module, by name."""
    prefix = f"{name}." if name else ""
    series: dict[str, list[str]] = defaultdict(list)
    for child_name, _ in module.named_children():
        if isinstance(module, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            series[""].append(prefix + child_name)
        elif numbered := re.fullmatch(r"(.*?)_?\d+", child_name):
            series[numbered[1]].append(prefix + child_name)
    modules = dict(module.named_children())
    for names in series.values():
        elements = [
            element
            for element in names
            if _is_element(element, modules[element.removeprefix(prefix)], execution, head)
        ]
        if len(elements) > 1 and _run_in_turn(elements, execution):
            yield tuple(elements)


def _is_element(name: str, module: nn.Module, execution: Execution, head: Collection[str]) -> bool:
    """Tells whether a module can be a link of a chain: made of modules, run, with weights, none of them the head's."""
    owned = [f"{name}.{inner}" for inner, _ in module.named_parameters()]
    first, last = execution.spans.get(name, (0, -1))
    return bool(owned) and last >= first and bool(list(module.children())) and not set(owned) & set(head)


def _run_in_turn(elements: Sequence[str], execution: Execution) -> bool:
    spans = [execution.spans[element] for element in elements]
    return all(before[1] < after[0] for before, after in zip(spans, spans[1:], strict=False))


def _weight(model: nn.Module, chain: Sequence[str]) -> int:
    return sum(p.numel() for element in chain for p in model.get_submodule(element).parameters())


def _is_wrapping(model: nn.Module, chain: Sequence[str], chains: Sequence[Sequence[str]]) -> bool:
    """Tells whether nearly all of a chain lies in one of its elements that is divided further."""
    heaviest = max(chain, key=lambda element: _weight(model, [element]))
    inner = [other for other in chains if all(element.startswith(f"{heaviest}.") for element in other)]
    most = max((_weight(model, other) for other in inner), default=0)
    return most >= NEARLY_ALL * _weight(model, chain)


def _children(model: nn.Module, execution: Execution, head: Collection[str]) -> list[str]:
    """Returns the parts of a network without chains: the children of the innermost module that holds all of it."""
    name, module = "", model
    while True:
        prefix = f"{name}." if name else ""
        parts = [
            prefix + child
            for child, inner in module.named_children()
            if {f"{prefix}{child}.{owned}" for owned, _ in inner.named_parameters()} - set(head)
            and prefix + child in execution.spans
        ]
        if len(parts) != 1 or not list(model.get_submodule(parts[0]).children()):
            break
        name, module = parts[0], model.get_submodule(parts[0])
    parts.sort(key=lambda part: execution.spans[part])
    return parts if parts and _run_in_turn(parts, execution) else [name] * bool(name)


def _unit(name: str, execution: Execution) -> _Unit:
    return _Unit(name, name, *execution.spans[name], execution.sizes.get(name))


def _blocks(model: nn.Module, execution: Execution, stage: _Unit) -> list[_Unit]:
    """Divides an element of a chain into the elements of the chain inside it, as deep as that goes."""
    module = model.get_submodule(stage.path)
    total = _weight(model, [stage.path])
    for inner_name, inner in module.named_modules():
        name = f"{stage.path}.{inner_name}" if inner_name else stage.path
        for chain in _chains_in(name, inner, execution, ()):
            if _weight(model, chain) >= MOST * total and _is_divided_by_cuts(chain, execution):
                units = [_unit(element, execution) for element in chain]
                units[0] = replace(units[0], first=stage.first)
                units[-1] = replace(units[-1], last=stage.last)
                return [block for unit in units for block in _blocks(model, execution, unit)]
    return [stage]


def _is_divided_by_cuts(chain: Sequence[str], execution: Execution) -> bool:
    """Tells whether the network is held together by a single result between most elements of a chain.

    It is not between the layers inside a residual block, whose input is still needed.
    """
    spans = [execution.spans[element] for element in chain]
    divided = [
        any(operation in execution.cuts for operation in range(before[1], after[0]))
        for before, after in zip(spans, spans[1:], strict=False)
    ]
    return sum(divided) > len(divided) / 2


def _merge_equal_sizes(units: Sequence[_Unit]) -> list[_Unit]:
    """Joins neighbours that work at one size into stages; a chain at one size throughout stays as it is."""
    sizes = {unit.size for unit in units}
    if len(sizes) == 1 or None in sizes:
        return list(units)
    merged: list[list[_Unit]] = []
    for unit in units:
        if merged and merged[-1][-1].size == unit.size:
            merged[-1].append(unit)
        else:
            merged.append([unit])
    return [_joined(members) for members in merged]


def _joined(members: Sequence[_Unit]) -> _Unit:
    first, last = members[0], members[-1]
    name = first.name if len(members) == 1 else f"{first.name}-{last.name.rpartition('.')[2]}"
    return _Unit(name, first.path, first.first, last.last, last.size)


def _short_names(units: Sequence[_Unit]) -> list[_Unit]:
    """Drops what all names begin with, but for the name of the outermost chain itself."""
    parts = [unit.name.split(".") for unit in units]
    shared = 0
    while all(len(p) > shared + 2 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    if len(units) == 1 or parts[0][shared].isdigit():
        shared = max(0, shared - 1)
    return [replace(unit, name=".".join(part[shared:])) for part, unit in zip(parts, units, strict=True)]


# From units to groups


def _groups(
    model: nn.Module, execution: Execution, head: Collection[str], units: Sequence[_Unit]
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


def _number_at(operation: int, units: Sequence[_Unit]) -> int:
    """Returns the group that an operation belongs to: 0 before the chain, and up to the last unit after it."""
    if units and operation < units[0].first:
        return 0
    passed = sum(operation > unit.last for unit in units)
    return min(passed + 1, len(units))


def _parameter_numbers(
    model: nn.Module, execution: Execution, head: Collection[str], units: Sequence[_Unit]
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


def _is_around(owner: str, units: Sequence[_Unit]) -> bool:
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
    model: nn.Module, execution: Execution, parameters: dict[str, int], units: Sequence[_Unit], head: int
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
    span: tuple[int, int], module: nn.Module, units: Sequence[_Unit], head: int, head_starts: int, body_ends: int
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
