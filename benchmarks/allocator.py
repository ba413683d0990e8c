"""What it brings on the CPU that glibc keeps the memory which a network frees: images a second, with and without.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/allocator.py

Each measurement is a process of its own; with and without alternate. Inference and training steps on random pictures
that lie in memory, in the memory layout that the pipeline would use. Best of a few passes, medians of the rounds.
Writes `benchmarks/results/allocator.md`.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from written_table import table_head, write_lines

TABLE = Path(__file__).parent / "results" / "allocator.md"
CHECKPOINTS = {"mobilenet_v1_0.5_160": 160, "vit_tiny_patch16_224": 224}
ROUNDS, PASSES, PICTURES = 3, 3, 256
EVAL_BATCH, TRAIN_BATCH = 64, 16
CELLS = ("inference", "training", "peak")


def measure(checkpoint: str, size: int, keep: bool) -> dict[str, float]:
    """Returns images a second and the peak of the process's memory in MB."""
    if keep:
        from hf_transfer.allocator import keep_freed_memory

        assert keep_freed_memory(), "this C library cannot be told, or the environment says something else"
    import torch
    from transformers import AutoModelForImageClassification

    from hf_transfer.models.batch_norm import has_batch_norm

    model = AutoModelForImageClassification.from_pretrained(checkpoint, dtype=torch.float32)
    layout = torch.channels_last if has_batch_norm(model) else torch.contiguous_format
    model.to(memory_format=layout)
    pictures = torch.randn(EVAL_BATCH, 3, size, size).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (TRAIN_BATCH,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def infer() -> None:
        with torch.inference_mode():
            model.eval()(pixel_values=pictures)

    def train() -> None:
        logits = model.train()(pixel_values=pictures[:TRAIN_BATCH]).logits
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    found = {"inference": rate(infer, EVAL_BATCH), "training": rate(train, TRAIN_BATCH)}
    return found | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def rate(step, batch: int) -> float:
    """Returns the images a second of the best pass."""
    step()
    seconds = []
    for _ in range(PASSES):
        start = time.perf_counter()
        for _ in range(PICTURES // batch):
            step()
        seconds.append(time.perf_counter() - start)
    return PICTURES / min(seconds)


def in_a_process(checkpoint: Path, size: int, keep: bool) -> dict[str, float]:
    command = [sys.executable, __file__, str(checkpoint), str(size), "keep" if keep else ""]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    from pipeline_runs import lab_note, made_here

    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    lines = ["# Freed memory kept by glibc", "", *table_head("checkpoint", "", "as it is", "kept", "ratio")]
    for checkpoint, size in CHECKPOINTS.items():
        found: dict[bool, list[dict]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for keep in found:
                found[keep].append(in_a_process(assets / "checkpoints" / checkpoint, size, keep))
        for cell in CELLS:
            before, after = (statistics.median(one[cell] for one in found[keep]) for keep in (False, True))
            name = "peak memory, MB" if cell == "peak" else f"{cell}, images/s"
            lines.append(f"| {checkpoint} | {name} | {before:.0f} | {after:.0f} | {after / before:.2f} |")
    lines += [
        "",
        f"Random pictures in batches of {EVAL_BATCH} (inference) and {TRAIN_BATCH} (training, all layers); medians of "
        f"{ROUNDS} interleaved rounds. Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/allocator.py`. "
        f"glibc {os.confstr('CS_GNU_LIBC_VERSION').split()[-1]}. {lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), bool(sys.argv[3]))))
    else:
        main()
