"""What it is worth to compute products another way than torch does (`hf_transfer.cpu_products`).

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/cpu_products.py

Inference in float32 and under bfloat16 autocast, and a training step's two passes under it, over random pictures: by
torch's own calls and by those that stand in for them, in turns within one run. The stand-ins are used here on any
processor, and a line says whether they would be by themselves. vit_tiny is the checkpoint of the assets; the others
have random weights. Writes the ratio of the medians, and how far logits of both are from those in float64, to
`benchmarks/results/cpu_products.md`.
"""

import copy
import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from in_turns import in_turns
from pipeline_runs import lab_note, made_here
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel
from written_table import table_head, write_lines

from hf_transfer.allocator import keep_freed_memory
from hf_transfer.cpu_products import STAND_INS, mkl_is_slow
from hf_transfer.quicker_calls import QuickerCalls

TABLE = Path(__file__).parent / "results" / "cpu_products.md"
FAMILIES = {"vit": "ViT-B/16", "swin": "Swin-T", "convnext": "ConvNeXt-T"}
"""As `AutoConfig` calls them; its defaults are networks of these sizes."""
SIDE, BATCH, TURNS = 224, 32, 5
FLOAT32, BFLOAT16, STEP = "inference, float32", "inference, bfloat16", "training step, bfloat16"


def networks() -> dict[str, PreTrainedModel]:
    """Returns the networks, ready for inference."""
    torch.manual_seed(0)
    folder = Path(os.environ["HF_TRANSFER_ASSETS"]) / "checkpoints" / "vit_tiny_patch16_224"
    found = {"ViT-Ti/16": AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32)}
    for family, name in FAMILIES.items():
        config = AutoConfig.for_model(family, num_labels=10, image_size=SIDE)
        found[name] = AutoModelForImageClassification.from_config(config)
    return {name: model.eval() for name, model in found.items()}


def once(model: PreTrainedModel, pixels: torch.Tensor, kind: str, quicker: bool) -> tuple[float, torch.Tensor]:
    """Returns the seconds of one pass, and its logits."""
    products = QuickerCalls(STAND_INS) if quicker else nullcontext()
    start = time.perf_counter()
    with torch.set_grad_enabled(kind == STEP):
        with torch.autocast("cpu", torch.bfloat16, enabled=kind != FLOAT32), products:
            logits = model(pixel_values=pixels).logits.float()
        if kind == STEP:
            cross_entropy(logits, torch.zeros(len(pixels), dtype=torch.int64)).backward()
            model.zero_grad()
    return time.perf_counter() - start, logits.detach()


@torch.no_grad()
def exact_logits(model: PreTrainedModel, pixels: torch.Tensor) -> torch.Tensor:
    """Returns logits in float64."""
    return copy.deepcopy(model).double()(pixel_values=pixels.double()).logits


def row(model: PreTrainedModel, pixels: torch.Tensor, kind: str, exact: torch.Tensor) -> str:
    """Returns pictures per second both ways, their ratio, and the largest error of logits both ways."""
    logits = {}

    def timed(quicker: bool) -> float:
        seconds, logits[quicker] = once(model, pixels, kind, quicker)
        return seconds

    turns = in_turns(timed, TURNS)
    rates = (f"{BATCH / median:.1f}" for median in turns.medians)
    errors = (f"{(logits[quicker] - exact).abs().max() / exact.abs().max():.1e}" for quicker in (False, True))
    return " | ".join([*rates, turns.times_as_fast(), *errors])


def main() -> None:
    keep_freed_memory()
    lines = [
        "# Products another way than torch's own",
        "",
        *table_head(
            "network",
            "pass",
            "img/s, torch's own",
            "img/s, stand-ins",
            "ratio",
            "error, torch's own",
            "error, stand-ins",
        ),
    ]
    pixels = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for name, model in networks().items():
        exact = exact_logits(model, pixels)
        for kind in (FLOAT32, BFLOAT16, STEP):
            lines.append(f"| {name} | {kind} | {row(model, pixels, kind, exact)} |")
            print(lines[-1], flush=True)
    lines += [
        "",
        f"Medians of {TURNS} turns, batches of {BATCH} pictures of {SIDE} x {SIDE}; the error is the largest of a "
        "logit against float64, as a share of the largest one. On this processor the stand-ins are "
        f"{'' if mkl_is_slow() else 'not '}used by themselves. Command: `python benchmarks/cpu_products.py`. "
        f"{lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)


if __name__ == "__main__":
    main()
