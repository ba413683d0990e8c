"""The two passes of a training step, with some calls of torch and with others in their place, in turns.

For scripts that table what stand-ins of `hf_transfer.quicker_calls` are worth: networks, a step of them, and a line of
the table for each precision. Logits must be the same to the last bit. Does not know which calls stand in.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from in_turns import in_turns
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel
from written_table import table_row

from hf_transfer.models.layer_groups import layer_groups
from hf_transfer.quicker_calls import QuickerCalls
from hf_transfer.training.frozen import frozen_modules, open_groups
from hf_transfer.training.prefix_search import find_cut

CHECKPOINTS = {"mobilenet_v1_0.25_128": 128, "mobilenet_v1_0.5_160": 160, "mobilenet_v2_1.0_224": 224}
FAMILIES = {
    "EfficientNet-B0": ("efficientnet", {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}),
    "ConvNeXt-T": ("convnext", {}),
    "ConvNeXt V2-T": ("convnextv2", {"depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768]}),
    "ResNet-50": ("resnet", {}),
}
SIDE, BATCH, TURNS = 224, 32, 5
PRECISIONS = {"float32": False, "bfloat16": True}
HEADER = ("img/s, torch's own", "img/s, stand-ins", "ratio", "gradients apart")
WHAT_IT_SAYS = (
    f"Passes of a training step: medians of {TURNS} turns, batches of {BATCH} pictures, of {SIDE} x {SIDE} where the "
    "name says no other size. Answers are the same to the last bit; gradients of all weights together are apart by "
    "that share of their length. MobileNets have the weights of their checkpoints, others random ones."
)


@dataclass(frozen=True)
class Passes:
    """What is computed, by the words that begin its lines."""

    words: tuple[str, ...]
    model: PreTrainedModel
    forward: Callable[[], torch.Tensor]
    """Returns the logits of a batch."""


def networks() -> dict[str, tuple[PreTrainedModel, torch.Tensor]]:
    """Returns networks that learn, and a batch of pictures for each."""
    torch.manual_seed(0)
    folder = Path(os.environ["HF_TRANSFER_ASSETS"]) / "checkpoints"
    found = {
        name: (AutoModelForImageClassification.from_pretrained(folder / name, dtype=torch.float32), side)
        for name, side in CHECKPOINTS.items()
    }
    for name, (family, sizes) in FAMILIES.items():
        config = AutoConfig.for_model(family, num_labels=10, image_size=SIDE, **sizes)
        found[name] = (let_through(AutoModelForImageClassification.from_config(config)), SIDE)
    for model, _ in found.values():
        model.train().to(memory_format=torch.channels_last)
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0  # or gradients would differ for that
    return {name: (model, pictures(side)) for name, (model, side) in found.items()}


def let_through(model: PreTrainedModel) -> PreTrainedModel:
    """Gives a network random weights that let a signal through, or no gradient would get far."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        elif name.endswith("weight") or "layer_scale" in name:
            nn.init.ones_(parameter)
    return model


def pictures(side: int) -> torch.Tensor:
    """Returns a batch of random pictures, channels-last."""
    pixels = torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(0))
    return pixels.contiguous(memory_format=torch.channels_last)


def all_layers(model: PreTrainedModel, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Returns what computes logits where all layers learn."""
    model.train().requires_grad_(True)
    return lambda: model(pixel_values=pixels).logits


def last_blocks(model: PreTrainedModel, pixels: torch.Tensor, blocks: int) -> Callable[[], torch.Tensor]:
    """Returns what computes logits where the last blocks learn, from inputs that were kept below them."""
    groups = layer_groups(model, "block")
    boundary = len(groups) - 1 - blocks
    learning = range(boundary, len(groups))
    open_groups(model, groups, learning)
    for module in frozen_modules(model, groups, learning):
        module.training = False
    cut = find_cut(model, groups, boundary, pixels[:4])
    assert cut is not None
    kept = cut.collect(pixels)

    def forward() -> torch.Tensor:
        with cut.fed_with(kept) as without_content:
            return model(pixel_values=without_content).logits

    return forward


def once(
    passes: Passes, half: bool, stand_ins: Mapping[Callable, Callable]
) -> tuple[float, torch.Tensor, list[torch.Tensor]]:
    """Returns the seconds of both passes, the logits, and the gradients of each tensor of weights."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=half), QuickerCalls(stand_ins):
        logits = passes.forward().float()
    cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]).backward()
    seconds = time.perf_counter() - start
    gradients = [parameter.grad for parameter in passes.model.parameters() if parameter.grad is not None]
    passes.model.zero_grad()
    return seconds, logits.detach(), gradients


def apart(gradients: list[torch.Tensor], others: list[torch.Tensor]) -> str:
    """Returns how far gradients are apart, as a share of their length; of all tensors together.

    By themselves some would be all rounding, as those of biases that a BatchNorm further up takes away again.
    """
    own, other = (torch.cat([gradient.flatten() for gradient in given]) for given in (gradients, others))
    return f"{float((own - other).norm() / other.norm()):.1e}"


def compared(passes: Passes, usual: Mapping[Callable, Callable], others: Mapping[Callable, Callable]) -> list[str]:
    """Returns a line of the table for each precision.

    Raises:
        SystemExit: if answers differ.
    """
    lines = []
    for precision, half in PRECISIONS.items():
        seen: dict[bool, tuple[torch.Tensor, list[torch.Tensor]]] = {}

        def timed(other: bool, half: bool = half, seen: dict = seen) -> float:
            seconds, *seen[other] = once(passes, half, others if other else usual)
            return seconds

        turns = in_turns(timed, TURNS)
        if not torch.equal(seen[False][0], seen[True][0]):
            raise SystemExit(f"{', '.join(passes.words)}: answers differ in {precision}.")
        rates = [f"{BATCH / median:.1f}" for median in turns.medians]
        cells = [*passes.words, precision, *rates, turns.times_as_fast(), apart(seen[True][1], seen[False][1])]
        lines.append(table_row(*cells))
        print(lines[-1], flush=True)
    return lines
