"""What a call is told by that another one may stand in for.

Knows tensors. Does not know calls (`hf_transfer.cpu_products`, `hf_transfer.cpu_convolutions`).
"""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

KINDS = (Tensor, nn.Parameter, FakeTensor)
"""Of tensors, and none derived from them."""


def records(tensors: tuple[Tensor, ...]) -> bool:
    """Tells whether a gradient goes through one of the tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def lie_here(tensors: tuple[Tensor, ...], *dtypes: torch.dtype) -> bool:
    """Tells whether tensors lie on the CPU, are of one of some types and of one of the known kinds."""
    return all(
        type(tensor) in KINDS
        and tensor.device.type == "cpu"
        and tensor.dtype in dtypes
        and tensor.layout == torch.strided
        for tensor in tensors
    )
