"""What the channels-last memory layout is worth, network by network.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/channels_last.py

Times a forward pass and a forward and backward pass of 32 random pictures in both layouts, in turns within one run,
and writes the ratio of the medians to `benchmarks/results/channels_last.md`.
"""

import os
import time
from pathlib import Path

import torch
from in_turns import in_turns
from pipeline_runs import lab_note, made_here
from transformers import AutoModelForImageClassification
from written_table import table_head, write_lines

TABLE = Path(__file__).parent / "results" / "channels_last.md"
CHECKPOINTS = {
    "mobilenet_v1_0.25_128": 128,
    "mobilenet_v1_0.5_160": 160,
    "mobilenet_v2_1.0_224": 224,
    "vit_tiny_patch16_224": 224,
}
TURNS = 7


def timed(model: torch.nn.Module, pictures: torch.Tensor, backward: bool) -> float:
    """Returns the seconds of one pass."""
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        scores = model(pixel_values=pictures).logits
        if backward:
            scores.sum().backward()
    return time.perf_counter() - start


def ratio(folder: Path, side: int, backward: bool) -> float:
    """Returns how many times faster channels-last is."""
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).train(backward)

    def once(channels_last: bool) -> float:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        pictures = torch.randn(32, 3, side, side).contiguous(memory_format=layout)
        return timed(model.to(memory_format=layout), pictures, backward)

    return in_turns(once, TURNS).ratio


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"]) / "checkpoints"
    lines = [
        "# Channels-last against the default layout",
        "",
        *table_head("network", "forward", "forward and backward"),
    ]
    for name, side in CHECKPOINTS.items():
        forward, both = (ratio(assets / name, side, backward) for backward in (False, True))
        lines.append(f"| {name} | {forward:.2f}x | {both:.2f}x |")
    lines += [
        "",
        f"Ratio of the medians of {TURNS} turns, 32 pictures, float32. Command: `python benchmarks/channels_last.py`. "
        f"{lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
