"""What it is worth that gradients of pooled feature maps lie as the maps do (`hf_transfer.cpu_pooling`).

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/cpu_pooling.py

The two passes of a training step, in float32 and under bfloat16 autocast, over random pictures, with torch's own
means and with those that stand in for them, in turns within one run (`benchmarks/gradient_passes.py`): where all
layers learn, and where the last quarter of the blocks does on kept inputs. Whatever else stands in for torch's calls
on this machine does so both times. Writes `benchmarks/results/cpu_pooling.md`.
"""

import math
from pathlib import Path

import torch
from gradient_passes import HEADER, WHAT_IT_SAYS, Passes, all_layers, compared, last_blocks, networks
from pipeline_runs import lab_note, made_here
from written_table import table_head, write_lines

from hf_transfer.allocator import keep_freed_memory
from hf_transfer.cpu_pooling import STAND_INS
from hf_transfer.models.layer_groups import layer_groups
from hf_transfer.quicker_calls import stand_ins_on

TABLE = Path(__file__).parent / "results" / "cpu_pooling.md"
COLUMNS = ("network", "what learns", "precision", *HEADER)


def main() -> None:
    keep_freed_memory()
    lines = ["# Gradients of pooled feature maps that lie as the maps do", ""]
    lines += table_head(*COLUMNS)
    everything = stand_ins_on(torch.device("cpu"))
    without = {call: stand_in for call, stand_in in everything.items() if call not in STAND_INS}
    for name, (model, pixels) in networks().items():
        lines += compared(Passes((name, "all layers"), model, all_layers(model, pixels)), without, everything)
        # All groups but the stem and the head are blocks.
        quarter = math.ceil((len(layer_groups(model, "block")) - 2) / 4)
        words = (name, f"last {quarter} blocks, kept inputs")
        lines += compared(Passes(words, model, last_blocks(model, pixels, quarter)), without, everything)
    lines += ["", f"{WHAT_IT_SAYS} Command: `python benchmarks/cpu_pooling.py`. {lab_note([made_here()])}"]
    write_lines(TABLE, lines)


if __name__ == "__main__":
    main()
