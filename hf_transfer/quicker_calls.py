"""Calls that stand in for torch's own on processors where those are slow.

Knows the kind of device. Does not know what is slow where, or why: `hf_transfer.cpu_products`,
`hf_transfer.cpu_convolutions` and `hf_transfer.cpu_pooling` do.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hf_transfer import cpu_convolutions, cpu_pooling, cpu_products

StandIn = Callable[..., torch.Tensor | None]
"""Takes what the call takes, and returns `None` where torch's own is to be made."""


def quicker_calls(device: torch.device) -> AbstractContextManager[Any]:
    """Returns a context in which slow calls go another way, where there is one.

    Args:
        device (`torch.device`):
            Where tensors lie.
    """
    return standing_in(stand_ins_on(device))


def stand_ins_on(device: torch.device) -> Mapping[Callable, StandIn]:
    """Returns what stands in for slow calls on a device, by the call."""
    if device.type != "cpu":
        return {}
    stand_ins: dict[Callable, StandIn] = dict(cpu_pooling.STAND_INS)
    if cpu_products.mkl_is_slow():
        stand_ins |= cpu_products.STAND_INS
    if cpu_convolutions.depthwise_is_slow():
        stand_ins |= cpu_convolutions.STAND_INS
    return stand_ins


def standing_in(stand_ins: Mapping[Callable, StandIn]) -> AbstractContextManager[Any]:
    """Returns a context for some stand-ins; where there are none, calls are not looked at."""
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
