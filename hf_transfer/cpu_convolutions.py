"""Depthwise convolutions, for whose gradients oneDNN has slow code and quick code and takes the slow one.

On processors with AVX512_BF16 it computes the gradient of the input in bfloat16, where the stride is more than one,
as that of a convolution for each channel; in float32 its depthwise code takes that on. That code has gradients of
weights for kernels up to three wide; for wider ones they are computed in blocks of 16 by 16 channels, of which a
diagonal is used (both as `ONEDNN_VERBOSE=1` names its code: oneDNN 3.12 in torch 2.14.1; no issue that reports it was
found). So the first is computed in float32 here, and the second for three columns of the kernel after the other. What
that is worth is in `benchmarks/results/cpu_convolutions.md`; removable when that table shows no gain.

Knows torch's functions and the processor. Does not know networks: a call is told by its tensors alone. Answers are
torch's own; of gradients the rounding is another.
"""

import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from hf_transfer.cpu_tensors import lie_here, records

WIDEST = 3
"""Columns of a kernel for which oneDNN has depthwise code for gradients of weights."""
PRECISIONS = (torch.float32, torch.bfloat16)

Pair = tuple[int, int]
"""For height and width."""


def depthwise_is_slow() -> bool:
    """Tells whether torch has oneDNN here, on a processor of the kind that it was measured on."""
    return torch.backends.mkldnn.is_available() and platform.machine().lower() in ("x86_64", "amd64")


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    given = (input, weight) if bias is None else (input, weight, bias)
    is_depthwise = input.dim() == 4 and groups == input.shape[1] == len(weight) > 1
    edge = _edge(padding, weight)
    if not is_depthwise or not records(given) or edge is None or _pair(dilation) != (1, 1):
        return None
    autocast = torch.is_autocast_enabled("cpu")
    precision = torch.get_autocast_dtype("cpu") if autocast else input.dtype
    known = PRECISIONS if autocast else (precision,)
    if precision not in PRECISIONS or not lie_here(given, *known):
        return None
    steps = _pair(stride)
    if not _is_wide(weight) and not _is_strided_in_half(steps, precision):
        return None
    # As autocast would: its cache of weights only helps those that are used more than once.
    inputs, weight, *more = (tensor.to(precision) for tensor in given)
    with torch.autocast("cpu", enabled=False):
        return _Depthwise.apply(inputs, weight, more[0] if more else None, steps, edge)


STAND_INS: dict[Callable, Callable[..., Tensor | None]] = {torch.conv2d: _conv2d}


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose answer is torch's own."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        # Its own gradient needs of the inputs only where and how they lie.
        there = torch.empty_like(inputs, device="meta")
        ctx.save_for_backward(inputs if ctx.needs_input_grad[1] else there, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(inputs, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            _of_inputs(gradient, inputs, weight, ctx.stride, ctx.padding) if of_inputs else None,
            _of_weight(gradient, inputs, weight, ctx.stride, ctx.padding) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def _of_inputs(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Returns the gradient of the inputs, of which only shape, type and layout matter."""
    precision = torch.float32 if _is_strided_in_half(stride, inputs.dtype) else inputs.dtype
    there = inputs
    if inputs.is_meta or inputs.dtype != precision:
        there = torch.empty_like(inputs, dtype=precision, device=gradient.device)
    return _backward(gradient.to(precision), there, weight.to(precision), stride, padding, 0).to(inputs.dtype)


def _of_weight(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Returns the gradient of the weights, for some columns of the kernel after the other."""
    if not _is_wide(weight):
        return _backward(gradient, inputs, weight, stride, padding, 1)
    rows, columns = padding
    padded = pad(inputs, (columns, columns, rows, rows))
    reach = (gradient.shape[3] - 1) * stride[1]
    found = []
    for start in range(0, weight.shape[3], WIDEST):
        part = weight[..., start : start + WIDEST]
        seen = padded[..., start : start + reach + part.shape[3]].contiguous(memory_format=torch.channels_last)
        found.append(_backward(gradient, seen, part.contiguous(), stride, (0, 0), 1))
    return torch.cat(found, 3)


def _backward(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: int) -> Tensor:
    """Returns torch's own gradient of the inputs (0) or of the weights (1)."""
    mask = [wanted == 0, wanted == 1, False]
    none = ([1, 1], False, [0, 0])
    return torch.ops.aten.convolution_backward(
        gradient, inputs, weight, None, stride, padding, *none, len(weight), mask
    )[wanted]


def _is_wide(weight: Tensor) -> bool:
    return weight.shape[3] > WIDEST


def _is_strided_in_half(stride: Pair, precision: torch.dtype) -> bool:
    return max(stride) > 1 and precision == torch.bfloat16


def _edge(padding: int | str | Sequence[int], weight: Tensor) -> Pair | None:
    """Returns the padding of both sides; `None` where they differ."""
    if not isinstance(padding, str):
        return _pair(padding)
    if padding == "valid":
        return 0, 0
    rows, columns = weight.shape[2:]
    return (rows // 2, columns // 2) if rows % 2 and columns % 2 else None


def _pair(size: int | Sequence[int]) -> Pair:
    """Returns a size for height and width, of which torch takes one for both."""
    if isinstance(size, int):
        return size, size
    return size[0], size[-1]
