"""Arguments of a run whose processes find different precisions faster.

`torchrun -m tests.training.precision_run FOLDER` writes the precision of every process into `FOLDER/RANK`; the first
finds bfloat16 faster and the others do not.
"""

import os
import sys
from pathlib import Path

import torch

from hf_transfer.pipeline import arguments_of
from hf_transfer.training import precision
from tests.training.test_precision import config
from tests.training.tiny_sample import tiny_sample

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    precision.bfloat16_is_faster = lambda: rank == "0"
    asked = config("full", {"output_dir": str(folder / "run"), "use_cpu": True, "report_to": "none"})
    args, _ = arguments_of(asked, 1e-3, tiny_sample())
    (folder / rank).write_text(f"{args.mixed_precision}, {args.world_size} processes", encoding="utf-8")
    torch.distributed.destroy_process_group()
