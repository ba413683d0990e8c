"""Half precision for layers that learn, while what is frozen below them stays in float32, and the head as well.

Frozen features that half precision would move stay as they are (`hf_transfer.training.precision`); a layer that learns
follows what it is given. So the network runs under autocast, but for the modules below the lowest layer that learns
and for those of the head, which leave it and take what they are given in float32. Where the head alone learns, nothing
runs under it.

Knows modules and autocast. Does not know who chooses a precision or which groups learn when.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.training.prefix_search import cut_at


class HalfLearning:
    """Keeps modules out of the autocast that a network runs under.

    Args:
        precision (`torch.dtype`):
            What layers that learn compute in.
        device_type (`str`):
            Where they lie, such as `"cpu"`.
    """

    def __init__(self, precision: torch.dtype, device_type: str):
        self.precision = precision
        self.device_type = device_type
        self._left_out: list[nn.Module] = []
        self._head_alone = False

    def computing(self) -> AbstractContextManager[Any]:
        """Returns the context in which the network has to run."""
        return nullcontext() if self._head_alone else torch.autocast(self.device_type, self.precision)

    def follow(self, model: nn.Module, groups: Sequence[LayerGroup], lowest_open: int) -> None:
        """Leaves out what lies below a layer group, and the head, and nothing else any more.

        Args:
            model (`nn.Module`):
                The network.
            groups (`Sequence[LayerGroup]`):
                Its layer groups from stem to head.
            lowest_open (`int`):
                The number of the lowest group that learns; the number of groups where none does.
        """
        self.release()
        self._head_alone = lowest_open >= len(groups) - 1
        if self._head_alone:
            return  # Everything is in float32.
        names = cut_at(model, groups, lowest_open).below + cut_at(model, groups, len(groups) - 1).above
        for module in {model.get_submodule(name): None for name in names}:
            # A method of the module, not of this: a copy of the network then runs its own layers.
            module.forward = MethodType(_in_float32(self.device_type), module)
            self._left_out.append(module)

    def release(self) -> None:
        """Lets all modules run as they did before."""
        while self._left_out:
            del self._left_out.pop().forward


def _in_float32(device_type: str) -> Callable[..., Any]:
    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map(_widened, (args, kwargs))
        with torch.autocast(device_type, enabled=False):
            return type(module).forward(module, *args, **kwargs)

    return forward


def _widened(value: Any) -> Any:
    return (
        value.float() if isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value
    )
