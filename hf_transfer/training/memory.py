"""How much memory a training will take, estimated before it starts.

Knows what stays in memory between two optimizer steps (weights, gradients, optimizer state, copies of the weights) and
measures what autograd keeps for the backward pass: one forward pass on torch's meta device, without memory or
arithmetic, whose kept tensors are counted. Short-lived buffers of kernels and of the allocator are not in it, nor is
what an interpreter with torch takes by itself (`benchmarks/results/freezing.md` holds estimates against measured
figures). Does not know what to do when it is too much (`hf_transfer.training.batch_size`).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

from hf_transfer.models.execution_order import stand_ins

_PROBE_IMAGES = 2
"""BatchNorm in training refuses a single value for a channel."""
_STATES_PER_WEIGHT = {"adam": 2, "nadam": 2, "radam": 2, "lion": 1, "rmsprop": 1, "adagrad": 1, "sgd": 0}
"""Tensors of a weight's size that an optimizer keeps, by how its name begins; two where unknown."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device while everything learns that ever will."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """For one micro-batch."""
    copies: int
    """Of the weights, for `--ema`, `--l2_sp` and `--wise_ft`."""
    images: int
    """In a micro-batch."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.copies

    def describe(self) -> str:
        """Says what takes how much."""
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "copies": self.copies,
            f"activations of {self.images} images": self.activations,
        }
        return ", ".join(f"{name} {shown(size)}" for name, size in parts.items() if size)


def shown(size: int) -> str:
    """Returns a number of bytes as people read it, in powers of ten."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def free_memory(device: torch.device) -> int:
    """Returns the bytes that are free on a device now; the machine's memory where the device has none of its own."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def optimizer_states(optim: str) -> int:
    """Returns how many tensors of a weight's size an optimizer of this name keeps."""
    fitting = [count for start, count in _STATES_PER_WEIGHT.items() if optim.startswith(start)]
    return fitting[0] if fitting else 2


def estimate_memory(trainer: Any, shape: tuple[int, int, int], copies: int = 0) -> MemoryEstimate | None:
    """Estimates what a training takes at its height.

    Args:
        trainer (`TransferTrainer`):
            The trainer, before its training.
        shape (`tuple[int, int, int]`):
            Channels, height and width of a training image.
        copies (`int`, *optional*, defaults to 0):
            How many copies of the weights are kept beside them.

    Returns:
        [`MemoryEstimate`], or `None` for a network that cannot run on the meta device.
    """
    model = trainer.model
    learning = _learning(trainer)
    sizes = {name: parameter.numel() * parameter.element_size() for name, parameter in model.named_parameters()}
    learned = sum(sizes[name] for name in learning)
    images = trainer.args.per_device_train_batch_size
    half = trainer.args.mixed_precision in ("bf16", "fp16")
    try:
        kept = kept_bytes_per_image(model, learning, shape, torch.bfloat16 if half else None)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return None  # A network that looks at values, which the meta device does not have.
    return MemoryEstimate(
        # Autocast keeps a half-size copy of the weights.
        weights=sum(sizes.values()) * (3 if half else 2) // 2,
        gradients=learned,
        optimizer=optimizer_states(str(getattr(trainer.args.optim, "value", trainer.args.optim))) * learned,
        activations=kept * images,
        copies=copies * sum(sizes.values()),
        images=images,
    )


def kept_bytes_per_image(
    model: nn.Module, learning: Collection[str], shape: tuple[int, int, int], dtype: torch.dtype | None = None
) -> int:
    """Counts the bytes that autograd keeps of one image for the backward pass.

    Args:
        model (`nn.Module`):
            The model; it is left as it was.
        learning (`Collection[str]`):
            Names of the parameters that learn; nothing is kept for what lies below the first of them.
        shape (`tuple[int, int, int]`):
            Channels, height and width.
        dtype (`torch.dtype`, *optional*):
            What weights and activations are computed in; the weights' own type when left out.

    Returns:
        `int`: bytes, an average over two images.

    Raises:
        NotImplementedError, RuntimeError, TypeError, ValueError: where the model cannot run on the meta device.
    """
    own, names = stand_ins(model, torch.device("meta"))
    own = {name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor for name, tensor in own.items()}
    for name in names.values():
        own[name].requires_grad_(name in learning)
    weights = {_storage(tensor) for tensor in own.values()}
    pixels = torch.zeros(_PROBE_IMAGES, *shape, device="meta", dtype=dtype)
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in weights:
            kept[_storage(tensor)] = tensor
        return tensor

    modes = {name: module.training for name, module in model.named_modules()}
    model.train()
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), torch.enable_grad():
            output = torch.func.functional_call(model, own, (), {"pixel_values": pixels}, tie_weights=False)
            graph = output.logits
        size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        del graph  # Until here it held everything that was kept, so that no two things had one address.
        return size // _PROBE_IMAGES
    finally:
        for name, module in model.named_modules():
            module.training = modes[name]


def _learning(trainer: Any) -> set[str]:
    """Returns the names of the parameters that may learn at any time of the run."""
    unfreezing, groups = trainer.unfreezing.unfreezing, trainer.groups
    numbers: Iterable[int] = unfreezing.first_open(len(groups))
    if unfreezing.changes():
        numbers = range(len(groups) - 1 - unfreezing.thawing_groups(len(groups) - 1), len(groups))
    return {name for number in numbers for name in groups[number].parameter_names}


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
