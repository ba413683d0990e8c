"""How much memory a forward pass, or a whole step, takes at its height: tried with tensors that have no contents.

Every operation of one pass runs on torch's fake tensors, which have shapes, types and a device but neither memory nor
arithmetic, and which autocast and the choice of kernels treat like real ones on the CPU. Storages are counted while
they live, so that both what autograd keeps for the backward pass and what lives for a moment are in it. What kernels
take for themselves, and what an allocator holds back, are not. Does not know optimizers
(`hf_transfer.training.memory`).
"""

import contextlib
import weakref
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_transfer.models.execution_order import stand_ins


def height_of_step(
    model: nn.Module,
    learning: Collection[str],
    shape: tuple[int, int, int],
    images: int,
    autocast: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> int:
    """Returns the bytes that live at the height of a forward and backward pass.

    Weights, their gradients and the pictures are left out; copies of weights that autocast makes are in it.

    Args:
        model (`nn.Module`):
            The model; it is left as it was.
        learning (`Collection[str]`):
            Names of the parameters that learn; nothing is kept for what lies below the first of them.
        shape (`tuple[int, int, int]`):
            Channels, height and width.
        images (`int`):
            Pictures at a time.
        autocast (`torch.dtype`, *optional*):
            What autocast computes in, where it is used.
        memory_format (`torch.memory_format`, *optional*):
            Layout of the pictures.

    Raises:
        NotImplementedError, RuntimeError, TypeError, ValueError: where the model looks at values, which fake tensors
            do not have.
    """
    with _stand_in(model, learning, train=True) as (own, live):
        pixels = _pictures(images, shape, memory_format, live)
        with live:
            with torch.autocast("cpu", autocast, enabled=autocast is not None), torch.enable_grad():
                logits = torch.func.functional_call(model, own, (), {"pixel_values": pixels}, tie_weights=False).logits
            # As Trainer does it, the backward pass runs without autocast.
            functional.cross_entropy(logits.float(), torch.zeros(images, dtype=torch.int64)).backward()
        return live.height


def height_of_evaluation(
    model: nn.Module,
    shape: tuple[int, int, int],
    images: int,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> int:
    """Returns the bytes that live at the height of a forward pass in float32 of which nothing is kept.

    Arguments, and what is left out, as in [`height_of_step`].
    """
    with _stand_in(model, (), train=False) as (own, live):
        pixels = _pictures(images, shape, memory_format, live)
        with live, torch.no_grad():
            torch.func.functional_call(model, own, (), {"pixel_values": pixels}, tie_weights=False)
        return live.height


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.height = 0
        self._now = 0
        self._known: dict[int, Any] = {}

    def leave_out(self, tensor: torch.Tensor) -> None:
        """Does not count a tensor, which has to live as long as this."""
        self._known[tensor.untyped_storage()._cdata] = tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for value in tree_leaves(results):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return results

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            del self._known[key]
            self._now -= size

        self._known[key] = weakref.ref(storage, gone)
        self._now += size
        self.height = max(self.height, self._now)


@contextlib.contextmanager
def _stand_in(
    model: nn.Module, learning: Collection[str], train: bool
) -> Iterator[tuple[dict[str, torch.Tensor], _LiveTensors]]:
    """Makes fake tensors in place of the model's own, and puts it into a mode for as long as it is tried."""
    shown, names = stand_ins(model, torch.device("meta"))
    live = _LiveTensors()
    modes = {module: module.training for module in model.modules()}
    model.train(train)
    try:
        # Some networks hold tensors that are neither parameters nor buffers.
        with FakeTensorMode(allow_non_fake_inputs=True):
            made: dict[int, torch.Tensor] = {}
            for tensor in shown.values():
                if id(tensor) in made:
                    continue
                fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                if names.get(id(tensor)) in learning:
                    fake.requires_grad_().register_post_accumulate_grad_hook(_forget_gradient)
                live.leave_out(fake)
                made[id(tensor)] = fake
            yield {name: made[id(tensor)] for name, tensor in shown.items()}, live
    finally:
        for module, mode in modes.items():
            module.training = mode


def _forget_gradient(parameter: torch.Tensor) -> None:
    """Gradients of weights are counted with the weights, all of them."""
    parameter.grad = None


def _pictures(
    images: int, shape: tuple[int, int, int], memory_format: torch.memory_format, live: _LiveTensors
) -> torch.Tensor:
    pixels = torch.empty(images, *shape).contiguous(memory_format=memory_format)
    live.leave_out(pixels)
    return pixels
