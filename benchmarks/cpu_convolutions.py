"""What it is worth to compute gradients of depthwise convolutions another way (`hf_transfer.cpu_convolutions`).

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/cpu_convolutions.py

The two passes of a training step, in float32 and under bfloat16 autocast, over random pictures: by torch's own calls
and by those that stand in for them, in turns within one run. The MobileNets are the checkpoints of the assets, at the
sizes of their names; the others have random weights. Logits must be the same to the last bit. Writes the ratio of the
medians, and how far the gradients of weights are from those of torch's own way, to
`benchmarks/results/cpu_convolutions.md`.
"""

import os
import statistics
import time
from pathlib import Path

import torch
from pipeline_runs import lab_note, made_here
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from hf_transfer.allocator import keep_freed_memory
from hf_transfer.cpu_convolutions import STAND_INS
from hf_transfer.quicker_calls import QuickerCalls

TABLE = Path(__file__).parent / "results" / "cpu_convolutions.md"
CHECKPOINTS = {"mobilenet_v1_0.25_128": 128, "mobilenet_v1_0.5_160": 160, "mobilenet_v2_1.0_224": 224}
FAMILIES = {
    "EfficientNet-B0": ("efficientnet", {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}),
    "ConvNeXt-T": ("convnext", {}),
    "ConvNeXt V2-T": ("convnextv2", {"depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768]}),
    "ResNet-50": ("resnet", {}),
}
"""What has no depthwise convolution is there to show that nothing is lost."""
SIDE, BATCH, TURNS = 224, 32, 5
PRECISIONS = {"float32": False, "bfloat16": True}


def networks() -> dict[str, tuple[PreTrainedModel, int]]:
    """Returns networks that learn, and the side of their pictures in pixels."""
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
    return found


def let_through(model: PreTrainedModel) -> PreTrainedModel:
    """Gives a network random weights that let a signal through, or no gradient would get far."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        elif name.endswith("weight") or "layer_scale" in name:
            nn.init.ones_(parameter)
    return model


def once(model: PreTrainedModel, pixels: torch.Tensor, half: bool, quicker: bool):
    """Returns the seconds of one step's passes, the logits, and the gradients of each tensor of weights."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=half), QuickerCalls(STAND_INS if quicker else {}):
        logits = model(pixel_values=pixels).logits.float()
    cross_entropy(logits, torch.arange(len(pixels)) % logits.shape[1]).backward()
    seconds = time.perf_counter() - start
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return seconds, logits.detach(), gradients


def apart(gradients: list[torch.Tensor], others: list[torch.Tensor]) -> str:
    """Returns how far gradients of tensors are apart at most, as a share of their length."""
    pairs = [(own, other) for own, other in zip(gradients, others, strict=True) if other.norm() > 0]
    return f"{max(float((own - other).norm() / other.norm()) for own, other in pairs):.1e}"


def rows(name: str, model: PreTrainedModel, side: int) -> list[str]:
    """Returns a line of the table for each precision."""
    pixels = torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(0))
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    lines = []
    for precision, half in PRECISIONS.items():
        seconds: dict[bool, list[float]] = {False: [], True: []}
        logits, gradients = {}, {}
        for turn in range(TURNS + 1):
            for quicker in (False, True):
                taken, logits[quicker], gradients[quicker] = once(model, pixels, half, quicker)
                if turn > 0:  # the first turn warms up
                    seconds[quicker].append(taken)
        if not torch.equal(logits[False], logits[True]):
            raise SystemExit(f"{name}: answers differ in {precision}.")
        usual, quick = (statistics.median(seconds[quicker]) for quicker in (False, True))
        ratios = sorted(a / b for a, b in zip(seconds[False], seconds[True], strict=True))
        cells = [name, precision, f"{BATCH / usual:.1f}", f"{BATCH / quick:.1f}"]
        cells += [f"{usual / quick:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"]
        cells += [apart(gradients[True], gradients[False])]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    keep_freed_memory()
    lines = ["# Gradients of depthwise convolutions another way than torch's own", ""]
    lines += ["| network | precision | img/s, torch's own | img/s, stand-ins | ratio | gradients apart |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, (model, side) in networks().items():
        lines += rows(name, model, side)
    lines += [
        "",
        f"Passes of a training step of all layers: medians of {TURNS} turns, batches of {BATCH} pictures, of "
        f"{SIDE} x {SIDE} where the name says no other size. Answers are the same to the last bit; gradients of a "
        "tensor of weights are apart by that share of their length at most. MobileNets have the weights of their "
        "checkpoints, others random ones. "
        f"Command: `python benchmarks/cpu_convolutions.py`. {lab_note([made_here()])}",
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
