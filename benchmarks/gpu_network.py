"""The process that measures one network: `gpu.py` starts one for each, so that none finds what another left behind.

    python benchmarks/gpu_network.py --network NAME --tasks TASK... --pictures DIR --scratch DIR --records FILE
        [--smoke]
    python benchmarks/gpu_network.py --machine

Every task that is done adds a line to the file of records at once. `--machine` prints what machine this is, as JSON.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gpu_loops as loops
import gpu_plan as plan
import torch
from pipeline_runs import add_record, read_records

from hf_transfer.environment import code_version, hardware, package_versions


def main(argv: Sequence[str] | None = None) -> None:
    args = read_arguments(argv)
    if args.machine:
        print(json.dumps(machine()))
        return
    network = next(network for network in plan.NETWORKS if network.name == args.network)
    size = plan.SMOKE if args.smoke else plan.FULL
    device = torch.device("cuda" if torch.cuda.is_available() and not args.smoke else "cpu")
    checkpoint = build_checkpoint(network, args.smoke, args.scratch)
    for task in args.tasks:
        start = time.perf_counter()
        facts = measure(task, network, checkpoint, size, device, args)
        gc.collect()
        taken = time.perf_counter() - start
        add_record(args.records, {"network": network.name, "task": task, **facts, "wall_seconds": round(taken, 1)})


def measure(
    task: str, network: plan.Network, checkpoint: Path, size: plan.Size, device: torch.device, args: argparse.Namespace
) -> dict:
    """Does one task of a network and returns what came of it."""
    pixels = plan.pixels_of(network, args.smoke)
    if task in (plan.TRAINING, plan.EXTRACTION):
        # Only here: the loops need nothing of ours.
        import gpu_ours as ours

        if task == plan.EXTRACTION:
            return ours.extraction(checkpoint, args.pictures, args.scratch, size, device)
        rates = [
            r["rate"] for r in read_records(args.records) if (r["network"], r["task"]) == (network.name, plan.BARE)
        ]
        return ours.training(checkpoint, args.pictures, args.scratch, size, rates[0] if rates else None, device)
    if task == plan.TIMM:
        return loops.timm_training(network, pixels, size, device, args.smoke)
    loop = loops.bare_inference if task == plan.INFERENCE else loops.bare_training
    return loop(load_network(checkpoint, size), pixels, size, device)


def build_checkpoint(network: plan.Network, smoke: bool, scratch: Path) -> Path:
    """Saves the architecture with random weights and 1,000 classes as the Hub holds a checkpoint, unless it is there.

    All networks are shown pictures by the same image processor.
    """
    from transformers import CONFIG_MAPPING, AutoModelForImageClassification, ViTImageProcessor

    folder = scratch / ("tiny" if smoke else "checkpoints") / network.model_type
    if (folder / "preprocessor_config.json").exists():
        return folder
    torch.manual_seed(0)
    config = CONFIG_MAPPING[network.model_type](num_labels=1000, **(network.tiny if smoke else network.settings))
    side = plan.pixels_of(network, smoke)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    # Last, so that it stands for the whole.
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def load_network(checkpoint: Path, size: plan.Size) -> torch.nn.Module:
    """Loads the checkpoint with a head for as many classes as the pictures have."""
    from peer_job import load_network as load

    return load(checkpoint, size.classes)


def machine() -> dict:
    """Returns hardware, versions and the commit of the code, and the memory of the GPU (`None` without one)."""
    has_gpu = torch.cuda.is_available()
    return {
        "hardware": hardware(1),
        "versions": package_versions(),
        "code": code_version(),
        "cuda": torch.version.cuda if has_gpu else None,
        "gpu_bytes": torch.cuda.get_device_properties(0).total_memory if has_gpu else None,
    }


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", action="store_true")
    parser.add_argument("--network", choices=[network.name for network in plan.NETWORKS])
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=[])
    for name in ("pictures", "scratch", "records"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
