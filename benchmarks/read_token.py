"""What it is worth to compute one token alone behind the last attention (`hf_transfer.training.read_token`).

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/read_token.py

Inference and training steps, all tokens and the one that is read in turns within one run: of a whole network, and of
its last quarter and its last block above a cut, as steps run on the cache. The tiny networks are checkpoints of the
assets, ViT-B/16 has random weights. Writes the ratio of the medians, and how far logits and gradients are apart in
float32, to `benchmarks/results/read_token.md`.
"""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from gradient_passes import all_layers, last_blocks
from in_turns import in_turns
from pipeline_runs import lab_note, made_here
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel
from written_table import table_head, write_lines

from hf_transfer.allocator import keep_freed_memory
from hf_transfer.models.layer_groups import layer_groups
from hf_transfer.quicker_calls import quicker_calls
from hf_transfer.training.cpu_precision import bfloat16_is_faster
from hf_transfer.training.frozen import open_groups
from hf_transfer.training.read_token import OnlyReadToken, ReadToken
from hf_transfer.training.read_token_search import find_read_token

TABLE = Path(__file__).parent / "results" / "read_token.md"
CHECKPOINTS = {"ViT-Ti/16": "vit_tiny_patch16_224", "ViT-Ti/16 of timm": "timm_vit_tiny_patch16_224"}
SIDE, BATCH, TURNS, BLOCKS = 224, 16, 7, 12
LEARNING = {
    "step, all layers learn": BLOCKS,
    "step, last 3 of 12 blocks, kept inputs": 3,
    "step, last block, kept inputs": 1,
}
"""Blocks that learn, by what a row says."""


def networks() -> dict[str, PreTrainedModel]:
    """Returns the networks."""
    torch.manual_seed(0)
    assets = Path(os.environ["HF_TRANSFER_ASSETS"]) / "checkpoints"
    found = {
        name: AutoModelForImageClassification.from_pretrained(assets / folder, dtype=torch.float32)
        for name, folder in CHECKPOINTS.items()
    }
    config = AutoConfig.for_model("vit", num_labels=10, image_size=SIDE)
    return found | {"ViT-B/16": AutoModelForImageClassification.from_config(config)}


def forward_of(model: PreTrainedModel, pixels: torch.Tensor, blocks: int) -> Callable[[], torch.Tensor]:
    """Returns what computes logits where the last blocks learn."""
    return all_layers(model, pixels) if blocks == BLOCKS else last_blocks(model, pixels, blocks)


def once(model: PreTrainedModel, forward: Callable[[], torch.Tensor], learns: bool, read: ReadToken | None) -> float:
    """Returns the seconds of one pass or step; `read` where one token is computed."""
    only = None if read is None else OnlyReadToken(model, read)
    start = time.perf_counter()
    with torch.set_grad_enabled(learns):
        precision = torch.autocast("cpu", torch.bfloat16) if bfloat16_is_faster() else nullcontext()
        with precision, quicker_calls(model.device):
            logits = forward().float()
        if learns:
            cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)).backward()
    seconds = time.perf_counter() - start
    model.zero_grad()
    if only is not None:
        only.release()
    return seconds


def ratio(model: PreTrainedModel, forward: Callable[[], torch.Tensor], learns: bool, read: ReadToken) -> str:
    """Returns how many times faster one token is: the ratio of the medians, and the range of the turns."""
    return in_turns(lambda one: once(model, forward, learns, read if one else None), TURNS).times_as_fast()


def distance(model: PreTrainedModel, pixels: torch.Tensor, read: ReadToken) -> str:
    """Returns how far logits and gradients of both ways are apart, as shares of the largest."""
    found = []
    for one in (False, True):
        only = OnlyReadToken(model, read) if one else None
        model.zero_grad()
        logits = model(pixel_values=pixels).logits
        cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)).backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        found.append((logits.detach(), torch.cat([gradient.flatten() for gradient in gradients])))
        if only is not None:
            only.release()
    apart = (float((a - b).abs().max() / a.abs().max()) for a, b in zip(*found, strict=True))
    return " | ".join(f"{share:.1e}" for share in apart)


def rows(name: str, model: PreTrainedModel) -> list[str]:
    """Returns the lines of one network."""
    pixels = torch.randn(BATCH, 3, SIDE, SIDE)
    read = find_read_token(model, pixels[:2])
    assert read is not None
    whole = forward_of(model, pixels, BLOCKS)
    lines = [f"| {name} | inference | {ratio(model.eval(), whole, False, read)} |"]
    model.train()
    for what, blocks in LEARNING.items():
        lines.append(f"| {name} | {what} | {ratio(model, forward_of(model, pixels, blocks), True, read)} |")
    return lines


def main() -> None:
    keep_freed_memory()
    found = networks()
    lines = ["# One token behind the last attention, where one is read", ""]
    lines += table_head("network", "what", "times faster")
    lines += [line for name, model in found.items() for line in rows(name, model)]
    lines += ["", "How far apart answers are in float32, as a share of the largest:", ""]
    lines += table_head("network", "logits", "gradients")
    for name, model in found.items():
        pixels = torch.randn(4, 3, SIDE, SIDE)
        read = find_read_token(model, pixels)
        assert read is not None
        open_groups(model, layer_groups(model, "block"), range(BLOCKS + 2))
        lines.append(f"| {name} | {distance(model, pixels, read)} |")
    precision = "bfloat16" if bfloat16_is_faster() else "float32"
    lines += [
        "",
        f"Ratio of the medians of {TURNS} turns, and the range of the turns' own; {BATCH} pictures of {SIDE} pixels, "
        f"{precision}. Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/read_token.py`. "
        f"{lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
