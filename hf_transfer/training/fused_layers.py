"""Layers below a cut that are computed in one go with others while features are computed once.

In evaluation BatchNorm multiplies and adds constants, which the convolution before it can do on the way (Jacob et al.
2018, section 3.2); an activation after it can write where it reads, since nobody else looks there; and zeros around a
map need not be laid out in memory for a convolution, which can take them for granted. The picture is then read and
written once less for each. What is handed on to whom is found in a pass, and all of it together is held against the
network as it is.

Knows convolutions, BatchNorm, activations and padding. Does not know what the features are kept for
(`hf_transfer.training.prefix_build`).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from hf_transfer.full_precision import full_precision
from hf_transfer.quicker_calls import standing_in
from hf_transfer.training.prefix_cut import PrefixCut
from hf_transfer.training.trial_pass import REFUSALS, agree

Pair = tuple[str, str]
"""Names of a convolution and of the BatchNorm that follows it."""
_Call = tuple[str, torch.Tensor | None, torch.Tensor]
"""The module, what it was given and what it returned."""


@dataclass(frozen=True)
class Fusions:
    """Names of modules that are computed with others."""

    norms: tuple[Pair, ...] = ()
    activations: tuple[str, ...] = ()
    """Those that write into what they are given."""
    padded: tuple[str, ...] = ()
    """Convolutions that are given a map with zeros around it."""


def find_fusions(cut: PrefixCut, pixel_values: torch.Tensor) -> Fusions:
    """Finds what can be computed in one go without changing what is kept, but for rounding.

    Args:
        cut (`PrefixCut`):
            The cut, whose model is in evaluation mode; it is left as it was.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Some pictures, on the model's device.

    Returns:
        [`Fusions`]: the norms alone, or nothing, where the network does something else with what is handed on.
    """
    # In TF32 sums of other terms are apart by more than answers may be.
    with full_precision():
        found, kept = _handed_on(cut, pixel_values)
        for fusions in (found, Fusions(norms=found.norms)):
            if _leads_to(kept, cut, fusions, pixel_values):
                return fusions
    return Fusions()


@contextmanager
def fused(model: nn.Module, fusions: Fusions) -> Iterator[Callable[[], AbstractContextManager[Any]]]:
    """Puts modules in place that do the work of others, and afterwards those of the model back.

    Args:
        model (`nn.Module`):
            The network.
        fusions ([`Fusions`]):
            Of this network.

    Yields:
        `Callable`: makes the context that each thread in which the network runs has to enter.
    """
    with ExitStack() as stack:
        for convolution, norm in fusions.norms:
            pair: tuple[Any, Any] = (model.get_submodule(convolution), model.get_submodule(norm))
            stack.enter_context(_in_place_of(model, convolution, fuse_conv_bn_eval(*pair)))
            stack.enter_context(_in_place_of(model, norm, nn.Identity()))
        for name in fusions.padded:
            stack.enter_context(_padding_itself(model.get_submodule(name)))
        for name in fusions.activations:
            stack.enter_context(_writing_where_it_reads(model.get_submodule(name)))
        pad: Any = _put_off  # what it returns is no tensor, and reaches convolutions alone
        yield (lambda: standing_in({nn.functional.pad: pad})) if fusions.padded else nullcontext


@dataclass(frozen=True)
class _Unpadded:
    """A map that is yet to get its zeros: `(left, right, top, bottom)` as `nn.functional.pad` takes them."""

    inside: torch.Tensor
    pad: tuple[int, int, int, int]


def _convolved(conv: nn.Conv2d, given: torch.Tensor | _Unpadded) -> torch.Tensor:
    """Calls a convolution without padding of its own on what [`_put_off`] made."""
    if isinstance(given, torch.Tensor):
        return nn.Conv2d.forward(conv, given)
    left, right, top, bottom = given.pad
    weight, more = conv.weight, (right - left, bottom - top)
    if more != (0, 0):
        depthwise = conv.groups == conv.in_channels and conv.dilation == (1, 1)
        if not depthwise or min(more) < 0:
            # By the call that nothing stands in for.
            return nn.Conv2d.forward(conv, torch.constant_pad_nd(given.inside, given.pad))
        # As many zeros on either side, of which those too many meet zeros of the kernel; it is small, the map is not.
        weight = torch.constant_pad_nd(weight, (more[0], 0, more[1], 0))
    return nn.functional.conv2d(
        given.inside, weight, conv.bias, conv.stride, (bottom, right), conv.dilation, conv.groups
    )


@dataclass
class _Seen:
    """What modules were given and returned in one pass, by their names; tensors stay, and so do their ids."""

    convolved: list[_Call] = field(default_factory=list)
    normed: list[_Call] = field(default_factory=list)
    activated: list[_Call] = field(default_factory=list)
    padded: list[torch.Tensor] = field(default_factory=list)
    """Maps with zeros around them."""

    def once(self) -> set[str]:
        """Returns the modules that were called once."""
        names = [name for name, _, _ in (*self.convolved, *self.normed, *self.activated)]
        return {name for name in names if names.count(name) == 1}


class _NotingPads(TorchFunctionMode):
    """Notes maps that get zeros around them."""

    def __init__(self, maps: list[torch.Tensor]):
        super().__init__()
        self.maps = maps

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func is nn.functional.pad and _put_off(*args, **(kwargs or {})) is not None:
            self.maps.append(answer)
        return answer


def _put_off(
    given: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> _Unpadded | None:
    """Stands in for `nn.functional.pad` where it lays zeros around feature maps."""
    if mode != "constant" or value or given.dim() != 4 or len(pad) != 4 or min(pad) < 0:
        return None
    left, right, top, bottom = pad
    return _Unpadded(given, (left, right, top, bottom))


def _handed_on(cut: PrefixCut, pixel_values: torch.Tensor) -> tuple[Fusions, list[torch.Tensor]]:
    """Returns what the layers below the cut hand on to each other, and what is kept."""
    seen = _Seen()
    hooks = []
    for name, module in cut.model.named_modules():
        notes = _notes_of(module, seen)
        if notes is not None and not _lies_in(name, cut.above):
            hooks.append(module.register_forward_hook(_noting(name, notes)))
    try:
        with _NotingPads(seen.padded):
            kept = cut.collect(pixel_values)
    finally:
        for hook in hooks:
            hook.remove()
    once = seen.once()
    by_convolution = {id(returned): name for name, _, returned in seen.convolved if name in once}
    pairs = {
        id(returned): (by_convolution[id(given)], name)
        for name, given, returned in seen.normed
        if id(given) in by_convolution and name in once
    }
    pads = {id(padded) for padded in seen.padded}
    padded = [name for name, given, _ in seen.convolved if id(given) in pads and name in once]
    padded = [name for name in padded if cut.model.get_submodule(name).padding == (0, 0)]
    return Fusions(
        norms=tuple(pairs.values()),
        activations=tuple(name for name, given, _ in seen.activated if id(given) in pairs and name in once),
        padded=tuple(padded) if len(padded) == len(pads) else (),
    ), kept


def _notes_of(module: nn.Module, seen: _Seen) -> list[_Call] | None:
    """Returns where calls of a module are noted, if they are of interest."""
    if type(module) is nn.Conv2d:
        return seen.convolved
    # Not those derived from it, which may do more: timm's have the activation in them.
    if type(module) is nn.BatchNorm2d and not module.training and module.running_mean is not None:
        return seen.normed
    return seen.activated if getattr(module, "inplace", None) is False else None


def _noting(name: str, notes: list[_Call]) -> Callable[..., None]:
    return lambda module, inputs, output: notes.append((name, inputs[0] if inputs else None, output))


def _leads_to(kept: Sequence[torch.Tensor], cut: PrefixCut, fusions: Fusions, pixel_values: torch.Tensor) -> bool:
    with fused(cut.model, fusions) as entered:
        try:
            with entered():
                again = cut.collect(pixel_values)
        except REFUSALS:  # something other than a convolution was handed a map without its zeros
            return False
    return all(agree(part, whole) for part, whole in zip(again, kept, strict=True))


@contextmanager
def _in_place_of(model: nn.Module, name: str, other: nn.Module) -> Iterator[None]:
    before = model.get_submodule(name)
    model.set_submodule(name, other)
    try:
        yield
    finally:
        model.set_submodule(name, before)


@contextmanager
def _padding_itself(convolution: Any) -> Iterator[None]:
    # The module stays what it is: networks ask it how much padding it wants.
    convolution.forward = functools.partial(_convolved, convolution)
    try:
        yield
    finally:
        del convolution.forward


@contextmanager
def _writing_where_it_reads(activation: Any) -> Iterator[None]:
    activation.inplace = True
    try:
        yield
    finally:
        activation.inplace = False


def _lies_in(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
