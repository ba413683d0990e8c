"""Chains of modules that run one after the other, and how they divide a network into stages and blocks.

Knows lists, sequences and siblings with numbered names, and where a residual connection forbids a division. Does not
know which parameters lie where (`hf_transfer.models.layer_groups`).
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from hf_transfer.models.execution_order import Execution

MOST = 0.5
"""Share of the backbone's weights that its outermost chain has to hold."""
ENOUGH = 0.1
"""The same where the network is one line through the chain, as in small networks with large embeddings, or where the
chain is a part of the trunk, not of a block."""
NEARLY_ALL = 0.95
"""Share above which a module is the network itself: a chain around it is no division of it."""


@dataclass(frozen=True)
class Unit:
    """An element of a chain, and the operations from its first to the last before the next begins."""

    name: str
    path: str
    """The module, or the first of several."""
    first: int
    last: int
    size: int | None
    """Positions of what it returns; `None` where that is no feature map."""


def chain_units(model: nn.Module, execution: Execution, head: Collection[str]) -> list[Unit]:
    """Returns the elements of the outermost chains that hold most of the backbone, in the order in which they run."""
    backbone = sum(p.numel() for name, p in model.named_parameters() if name not in head)
    chains = [chain for name, module in model.named_modules() for chain in _chains_in(name, module, execution, head)]
    heavy = [
        chain
        for chain in chains
        if _weight(model, chain) >= MOST * backbone
        or (
            _weight(model, chain) >= ENOUGH * backbone
            # Where several branches run side by side throughout, as in HRNet, there are no cuts.
            and (_is_divided_by_cuts(chain, execution) or _is_part_of_trunk(model, chain, backbone))
        )
    ]
    elements = [element for chain in _outermost(model, execution, heavy) for element in chain]
    return [_unit(element, execution) for element in elements] or _parts(model, execution, head)


def _outermost(model: nn.Module, execution: Execution, chains: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Returns the chains that lie in no other; of those that run at the same time, the heaviest."""
    dividing = [chain for chain in chains if not _is_wrapping(model, chain, chains)]
    outer = [
        chain for chain in dividing if not any(_lies_in(chain, element) for other in dividing for element in other)
    ]
    chosen: list[Sequence[str]] = []
    for chain in sorted(outer, key=lambda chain: _weight(model, chain), reverse=True):
        in_order = sorted([*chosen, chain], key=lambda chain: execution.spans[chain[0]])
        if _run_in_turn([element for chain in in_order for element in chain], execution):
            chosen = in_order
    return chosen


def _lies_in(chain: Sequence[str], module_name: str) -> bool:
    return all(element.startswith(f"{module_name}.") for element in chain)


def _chains_in(name: str, module: nn.Module, execution: Execution, head: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Returns the chains whose elements are children of a module, by name."""
    prefix = f"{name}." if name else ""
    series: dict[str, list[str]] = defaultdict(list)
    for child_name, _ in module.named_children():
        if isinstance(module, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            series[""].append(prefix + child_name)
        else:
            numbered = re.fullmatch(r"(.*?)_?\d+", child_name)
            # The first of a series may go without a number: `repeat`, `repeat_1`, `repeat_2`.
            series[numbered[1] if numbered else child_name].append(prefix + child_name)
    modules = dict(module.named_children())
    for names in series.values():
        elements = [
            element
            for element in names
            if _is_element(element, modules[element.removeprefix(prefix)], execution, head)
        ]
        elements.sort(key=execution.spans.__getitem__)
        if len(elements) > 1 and _run_in_turn(elements, execution):
            yield tuple(elements)


def _is_element(name: str, module: nn.Module, execution: Execution, head: Collection[str]) -> bool:
    """Tells whether a module can be a link of a chain: made of modules, run, with weights, none of them the head's.

    One with vectors alone, such as a normalisation with its activation, belongs to what it follows.
    """
    owned = {f"{name}.{inner}" for inner, _ in module.named_parameters()}
    first, last = execution.spans.get(name, (0, -1))
    return last >= first and bool(list(module.children())) and _has_matrices(module) and not owned & set(head)


def _has_matrices(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _run_in_turn(elements: Sequence[str], execution: Execution) -> bool:
    spans = [execution.spans[element] for element in elements]
    return all(before[1] < after[0] for before, after in zip(spans, spans[1:], strict=False))


def _weight(model: nn.Module, chain: Sequence[str]) -> int:
    return sum(p.numel() for element in chain for p in model.get_submodule(element).parameters())


def _is_part_of_trunk(model: nn.Module, chain: Sequence[str], backbone: int) -> bool:
    """Tells whether a chain, and modules that hold nothing else, lie directly in the module of the whole backbone."""
    around = chain[0].rpartition(".")[0]
    while around and _weight(model, chain) >= NEARLY_ALL * _weight(model, [around]):
        around = around.rpartition(".")[0]
    return _weight(model, [around]) >= NEARLY_ALL * backbone


def _is_wrapping(model: nn.Module, chain: Sequence[str], chains: Sequence[Sequence[str]]) -> bool:
    """Tells whether nearly all of a chain lies in one of its elements that is divided further."""
    heaviest = max(chain, key=lambda element: _weight(model, [element]))
    inner = [other for other in chains if _lies_in(other, heaviest)]
    most = max((_weight(model, other) for other in inner), default=0)
    return most >= NEARLY_ALL * _weight(model, chain)


def _parts(model: nn.Module, execution: Execution, head: Collection[str]) -> list[Unit]:
    """Divides a network without chains into the children of the innermost module that holds all of it.

    Sequences among them are divided as well, and what runs at the same time or is a normalisation is joined to the
    part before it.
    """
    names = _run_children("", model, execution, head)
    while len(names) == 1 and (inner := _run_children(names[0], model, execution, head)):
        names = inner
    elements = [
        element
        for name in names
        for element in (
            isinstance(model.get_submodule(name), nn.Sequential) and _run_children(name, model, execution, head)
        )
        or [name]
    ]
    units: list[Unit] = []
    for name in sorted(elements, key=execution.spans.__getitem__):
        unit = _unit(name, execution)
        if units and (unit.first <= units[-1].last or not _has_matrices(model.get_submodule(name))):
            units[-1] = replace(units[-1], last=max(unit.last, units[-1].last), size=unit.size)
        else:
            units.append(unit)
    return units


def _run_children(name: str, model: nn.Module, execution: Execution, head: Collection[str]) -> list[str]:
    """Returns the children of a module that run and have weights of the backbone."""
    prefix = f"{name}." if name else ""
    return [
        prefix + child
        for child, inner in model.get_submodule(name).named_children()
        if {f"{prefix}{child}.{owned}" for owned, _ in inner.named_parameters()} - set(head)
        and prefix + child in execution.spans
    ]


def _unit(name: str, execution: Execution) -> Unit:
    return Unit(name, name, *execution.spans[name], execution.sizes.get(name))


def blocks_of(model: nn.Module, execution: Execution, stage: Unit) -> list[Unit]:
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
                return [block for unit in units for block in blocks_of(model, execution, unit)]
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


def merge_equal_sizes(units: Sequence[Unit]) -> list[Unit]:
    """Joins neighbours that work at one size into stages; a chain at one size throughout stays as it is."""
    sizes = {unit.size for unit in units}
    if len(sizes) == 1 or None in sizes:
        return list(units)
    merged: list[list[Unit]] = []
    for unit in units:
        if merged and merged[-1][-1].size == unit.size:
            merged[-1].append(unit)
        else:
            merged.append([unit])
    return [_joined(members) for members in merged]


def _joined(members: Sequence[Unit]) -> Unit:
    first, last = members[0], members[-1]
    name = first.name if len(members) == 1 else f"{first.name}-{last.name.rpartition('.')[2]}"
    return Unit(name, first.path, first.first, last.last, last.size)


def short_names(units: Sequence[Unit]) -> list[Unit]:
    """Drops what all names begin with, but for a word before a number."""
    parts = [unit.name.split(".") for unit in units]
    shared = 0
    while parts and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    if any(part[shared][0].isdigit() for part in parts):
        shared = max(0, shared - 1)
    return [replace(unit, name=".".join(part[shared:])) for part, unit in zip(parts, units, strict=True)]
