"""Calls that stand in for torch's own on processors where those are slow.

Knows the kind of device. Does not know what is slow where, or why: `hf_transfer.cpu_products` and
`hf_transfer.cpu_convolutions` do.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hf_transfer import cpu_convolutions, cpu_products

StandIn = Callable[..., torch.Tensor | None]
"""Takes what the call takes, and returns `None` where torch's own is to be made."""


def quicker_calls(device: torch.device) -> AbstractContextManager[Any]:
    """Returns a context in which slow calls go another way, where there is one.

    Args:
        device (`torch.device`):
            Where tensors lie.
    """
    stand_ins: dict[Callable, StandIn] = {}
    if device.type == "cpu" and cpu_products.mkl_is_slow():
        stand_ins |= cpu_products.STAND_INS
    if device.type == "cpu" and cpu_convolutions.depthwise_is_slow():
        stand_ins |= cpu_convolutions.STAND_INS
    return QuickerCalls(stand_ins) if stand_ins else nullcontext()


class QuickerCalls(TorchFunctionMode):
    """While entered, other calls stand in for some of torch's.

    Answers are those of torch but for rounding. Whatever lies elsewhere or is of another kind goes torch's own way.
    """

    def __init__(self, stand_ins: Mapping[Callable, StandIn]):
        super().__init__()
        self.stand_ins = stand_ins

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        stand_in = self.stand_ins.get(func)
        answer = None if stand_in is None else stand_in(*args, **kwargs)
        return func(*args, **kwargs) if answer is None else answer
