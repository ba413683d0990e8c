"""BatchNorm below a cut, folded into the convolution before it while features are computed once.

In evaluation BatchNorm multiplies and adds constants, which a convolution can do on the way (Jacob et al. 2018,
section 3.2); the picture is then read and written once less for each. Which convolution's output a BatchNorm is given
is found in a pass, and all of them together are held against the network as it is.

Knows convolutions and BatchNorm. Does not know what the features are kept for (`hf_transfer.training.prefix_build`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from hf_transfer.full_precision import full_precision
from hf_transfer.training.prefix_cut import PrefixCut
from hf_transfer.training.trial_pass import agree

Pair = tuple[str, str]
"""Names of a convolution and of the BatchNorm that follows it."""


def foldable_norms(cut: PrefixCut, pixel_values: torch.Tensor) -> tuple[Pair, ...]:
    """Finds what can be folded without changing what is kept, but for rounding.

    Args:
        cut (`PrefixCut`):
            The cut, whose model is in evaluation mode; it is left as it was.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Some pictures, on the model's device.

    Returns:
        `tuple[Pair, ...]`: none where the network does something else with what a convolution returns.
    """
    # In TF32 sums of other terms are apart by more than answers may be.
    with full_precision():
        pairs, kept = _followed_by_norm(cut, pixel_values)
        with folded_norms(cut.model, pairs):
            again = cut.collect(pixel_values)
    return pairs if all(agree(part, whole) for part, whole in zip(again, kept, strict=True)) else ()


@contextmanager
def folded_norms(model: nn.Module, pairs: Sequence[Pair]) -> Iterator[None]:
    """Puts the folded convolutions in place, and afterwards those of the model back."""
    before: dict[str, Any] = {name: model.get_submodule(name) for pair in pairs for name in pair}
    try:
        for convolution, norm in pairs:
            model.set_submodule(convolution, fuse_conv_bn_eval(before[convolution], before[norm]))
            model.set_submodule(norm, nn.Identity())
        yield
    finally:
        for name, module in before.items():
            model.set_submodule(name, module)


def _followed_by_norm(cut: PrefixCut, pixel_values: torch.Tensor) -> tuple[tuple[Pair, ...], list[torch.Tensor]]:
    """Returns convolutions below the cut that hand over to a BatchNorm, each called once, and what is kept."""
    returned: list[tuple[str, torch.Tensor]] = []
    given: list[tuple[str, torch.Tensor]] = []

    def after(name: str):
        return lambda module, inputs, output: returned.append((name, output))

    def before(name: str):
        return lambda module, inputs: given.append((name, inputs[0]))

    below = [(name, module) for name, module in cut.model.named_modules() if not _lies_in(name, cut.above)]
    hooks = [module.register_forward_hook(after(name)) for name, module in below if type(module) is nn.Conv2d]
    # Not those derived from it, which may do more: timm's have the activation in them.
    hooks += [
        module.register_forward_pre_hook(before(name))
        for name, module in below
        if type(module) is nn.BatchNorm2d and not module.training and module.running_mean is not None
    ]
    try:
        kept = cut.collect(pixel_values)
    finally:
        for hook in hooks:
            hook.remove()
    givers = {id(output): name for name, output in returned}
    calls = [name for name, _ in (*returned, *given)]
    pairs = [(givers[id(seen)], norm) for norm, seen in given if id(seen) in givers]
    return tuple(pair for pair in pairs if all(calls.count(name) == 1 for name in pair)), kept


def _lies_in(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
