"""Means over the whole of a picture, whose gradient torch lays out in another way than their input.

A network whose feature maps lie channels-last has them pooled at its end, and in blocks that weigh channels. torch
gives the gradient of such a mean channel after channel. The layers before it then get their gradient in one layout
and their input in the other, for which BatchNorm and depthwise convolutions on the CPU take several times as long, and
elementwise layers hand it on (torch 2.14.1; no issue that reports it was found). So it is laid out as the input here.
What that is worth is in `benchmarks/results/cpu_pooling.md`; removable when that table shows no gain.

Knows torch's functions. Does not know networks: a call is told by its tensors alone. Answers are torch's own, and so
are gradients of the mean; those further down are rounded as in the other layout.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import adaptive_avg_pool2d

from hf_transfer.cpu_tensors import lie_here, records

PRECISIONS = (torch.float32, torch.bfloat16)
_PLACES = ((2, 3), (-2, -1), (3, 2), (-1, -2))
"""Dimensions of a feature map that are height and width, as they are asked for."""


def _adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor | None:
    if output_size not in (1, (1, 1), [1, 1]) or not _is_channels_last(input):
        return None
    return _PooledChannels.apply(input, lambda inputs: adaptive_avg_pool2d(inputs, output_size))


def _mean(input: Tensor, dim: Any = None, keepdim: bool = False, **more: Any) -> Tensor | None:
    if more or not isinstance(dim, list | tuple) or tuple(dim) not in _PLACES or not _is_channels_last(input):
        return None
    return _PooledChannels.apply(input, lambda inputs: inputs.mean(dim, keepdim))


STAND_INS: dict[Callable, Callable[..., Tensor | None]] = {
    adaptive_avg_pool2d: _adaptive_avg_pool2d,
    torch.mean: _mean,
    Tensor.mean: _mean,
}


class _PooledChannels(torch.autograd.Function):
    """The mean of each channel, by a call of torch's own."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, pooled: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.shape, ctx.dtype = inputs.shape, inputs.dtype
        return pooled(inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        batch_size, channels, height, width = ctx.shape
        share = (gradient / (height * width)).reshape(batch_size, channels, 1, 1)
        laid_out = torch.empty(ctx.shape, dtype=ctx.dtype, device=gradient.device, memory_format=torch.channels_last)
        return laid_out.copy_(share.expand(ctx.shape)), None


def _is_channels_last(inputs: Tensor) -> bool:
    """Tells feature maps that learn, lie channels-last and not the other way too."""
    return (
        lie_here((inputs,), *PRECISIONS)
        and records((inputs,))
        and inputs.dim() == 4
        and inputs.is_contiguous(memory_format=torch.channels_last)
        and not inputs.is_contiguous()
    )
