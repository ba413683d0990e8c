"""What it is worth to compute gradients of depthwise convolutions another way (`hf_transfer.cpu_convolutions`).

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/cpu_convolutions.py

The two passes of a training step, in float32 and under bfloat16 autocast, over random pictures: by torch's own calls
and by those that stand in for them, in turns within one run (`benchmarks/gradient_passes.py`). What has no depthwise
convolution is there to show that nothing is lost. Writes `benchmarks/results/cpu_convolutions.md`.
"""

from pathlib import Path

from gradient_passes import HEADER, WHAT_IT_SAYS, Passes, all_layers, compared, networks
from pipeline_runs import lab_note, made_here
from written_table import table_head, write_lines

from hf_transfer.allocator import keep_freed_memory
from hf_transfer.cpu_convolutions import STAND_INS

TABLE = Path(__file__).parent / "results" / "cpu_convolutions.md"
COLUMNS = ("network", "precision", *HEADER)


def main() -> None:
    keep_freed_memory()
    lines = ["# Gradients of depthwise convolutions another way than torch's own", ""]
    lines += table_head(*COLUMNS)
    for name, (model, pixels) in networks().items():
        lines += compared(Passes((name,), model, all_layers(model, pixels)), {}, STAND_INS)
    lines += ["", f"{WHAT_IT_SAYS} Command: `python benchmarks/cpu_convolutions.py`. {lab_note([made_here()])}"]
    write_lines(TABLE, lines)


if __name__ == "__main__":
    main()
