"""Matrix products on processors on which torch's own choice of a library is the slow one.

torch brings two libraries for products on the CPU. It takes MKL for those of linear layers in float32, and does those
inside of its attention in bfloat16 without oneDNN. MKL keeps its AVX-512 code for Intel's processors (AngryLoki in
intel/intel-extension-for-pytorch#475, pytorch/builder#1245), so that on AMD's with AVX-512 both take longer than
through oneDNN (`benchmarks/results/cpu_products.md`). So other calls stand in for them there: for attention, and for
linear layers where no gradient is recorded. Removable when that table shows no gain.

Knows torch's functions and the processor. Does not know networks: a call is told by its tensors alone.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.functional import linear, scaled_dot_product_attention

from hf_transfer.cpu_tensors import lie_here, records
from hf_transfer.environment import processor_vendor

LEAST_PRODUCTS = 2**22
"""Multiplications of a linear layer; oneDNN's tensors have to be made and unmade, which small ones do not pay for."""
MOST_SCORES = 2**26
"""Of an attention, over all pictures and heads: they lie in memory at once, which torch's own attention avoids."""
MOST_KEPT_SCORES = 5
"""For each number of the queries, where scores are kept for the backward pass. Heads of 64 have 3 or 4 of them at 224
pixels; the two halves of the usual MLP of a layer keep 8 in any case."""


@functools.cache
def mkl_is_slow() -> bool:
    """Tells whether this is an AMD processor with AVX-512, and torch has both libraries."""
    return (
        processor_vendor() == "AuthenticAMD"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
    )


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    given = (input, weight) if bias is None else (input, weight, bias)
    if torch.is_autocast_enabled("cpu") or records(given) or not lie_here(given, torch.float32):
        return None
    if weight.dim() != 2 or input.numel() * len(weight) < LEAST_PRODUCTS:
        return None
    if isinstance(input, FakeTensor):
        # Tensors without contents have no layout of oneDNN's; to count memory, copies are as large.
        return linear(input.clone(), weight, bias).clone()
    return torch.ops.aten.mkldnn_linear(input.to_mkldnn(), weight, bias).to_dense()


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        return None
    given = (query, key, value)
    if query.dim() != 4 or not lie_here(given, torch.bfloat16):
        return None
    most = min(MOST_SCORES, MOST_KEPT_SCORES * query.numel()) if records(given) else MOST_SCORES
    if query.shape[:-1].numel() * key.shape[-2] > most:
        return None
    with torch.autocast("cpu", enabled=False):
        weights = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        # In bfloat16 too, torch adds up in float32.
        return weights.softmax(-1) @ value


STAND_INS: dict[Callable, Callable[..., Tensor | None]] = {
    linear: _linear,
    scaled_dot_product_attention: _attention,
}
