"""What a training step costs beside the network: the optimizer, the precision, and Trainer around a bare loop.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/step.py

Ours and the bare loop train the same network on the same batches, which lie ready in memory, with the same optimizer
and clipping; the bare loop has no schedule, no callbacks and no log. The first step of each is left out. CPU time in
one thread, medians of interleaved rounds. Writes `benchmarks/results/step.md`.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pipeline_runs import lab_note, made_here
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import AutoModelForImageClassification, PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from written_table import table_head, table_row, write_lines

from hf_transfer.data.mixing import collate_images
from hf_transfer.training.cpu_precision import bfloat16_is_faster
from hf_transfer.training.trainer import TransferTrainer

TABLE = Path(__file__).parent / "results" / "step.md"
CHECKPOINTS = {"mobilenet_v1_0.25_128": 128, "mobilenet_v1_0.5_160": 160, "vit_tiny_patch16_224": 224}
ROUNDS, STEPS, BATCH = 3, 6, 16
ADAMW = {"fused": {"fused": True}, "foreach": {"foreach": True}, "a loop": {"foreach": False}}


class Resident(Dataset):
    """Random pictures that are there."""

    def __init__(self, size: int):
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(BATCH, 3, size, size, generator=generator)

    def __len__(self) -> int:
        return BATCH * STEPS

    def __getitem__(self, visit: int) -> dict:
        return {"pixel_values": self.pixels[visit % BATCH], "labels": visit % 10, "visit": visit}


class StepClock(TrainerCallback):
    """CPU seconds at the end of each step."""

    def __init__(self):
        self.times: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.times.append(time.process_time())


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(os.environ["HF_TRANSFER_ASSETS"]) / "checkpoints"
    columns = {name: measure(str(folder / name), size) for name, size in CHECKPOINTS.items()}
    lines = ["# What a step costs", ""]
    lines += table_head("CPU ms a step", *columns)
    rows = next(iter(columns.values()))
    lines += [table_row(row, *(f"{column[row]:.1f}" for column in columns.values())) for row in rows]
    capabilities = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    lines += [
        "",
        f"Batches of {BATCH} random pictures, one thread, medians of {ROUNDS} interleaved rounds of {STEPS} steps. "
        f"bfloat16 instructions of this processor: {', '.join(capabilities) or 'none, so that it is emulated'}; by "
        f"the flags and a matrix product, bfloat16 is {'faster' if bfloat16_is_faster() else 'not faster'}. "
        f"Command: `python benchmarks/step.py`. {lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)
    print("\n".join(lines))


def measure(checkpoint: str, size: int) -> dict[str, float]:
    cases: dict[str, Callable[[], float]] = {
        "bare loop": lambda: bare(load(checkpoint), size),
        "ours (`TransferTrainer`)": lambda: ours(load(checkpoint), size),
        "bare loop, bfloat16 autocast": lambda: bare(load(checkpoint), size, bf16=True),
        "inference": lambda: inference(load(checkpoint), size),
        "inference, bfloat16 autocast": lambda: inference(load(checkpoint), size, bf16=True),
    }
    cases |= {
        f"AdamW alone, {name}": lambda settings=settings: adamw(load(checkpoint), settings)
        for name, settings in ADAMW.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            taken[name].append(case())
    return {name: statistics.median(values) for name, values in taken.items()}


def load(checkpoint: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForImageClassification.from_pretrained(checkpoint).train()


def cpu_ms(step: Callable[[int], object]) -> float:
    """Returns the CPU time of a step; the first is left out."""
    start = 0.0
    for number in range(STEPS):
        step(number)
        if number == 0:
            start = time.process_time()
    return (time.process_time() - start) / (STEPS - 1) * 1000


def bare(model: PreTrainedModel, size: int, bf16: bool = False) -> float:
    data = Resident(size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(number: int) -> None:
        batch = collate_images([data[number * BATCH + index] for index in range(BATCH)])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = cross_entropy(model(pixel_values=batch["pixel_values"]).logits.float(), batch["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return cpu_ms(step)


def inference(model: PreTrainedModel, size: int, bf16: bool = False) -> float:
    pixels = Resident(size).pixels
    model.eval()

    def step(number: int) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model(pixel_values=pixels)

    return cpu_ms(step)


def ours(model: PreTrainedModel, size: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=1e-4,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        trainer = TransferTrainer(model=model, args=args, data_collator=collate_images, train_dataset=Resident(size))
        trainer.remove_callback(PrinterCallback)
        clock = StepClock()
        trainer.add_callback(clock)
        trainer.train()
        return (clock.times[-1] - clock.times[0]) / (STEPS - 1) * 1000


def adamw(model: PreTrainedModel, settings: dict) -> float:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **settings)
    optimizer.step()  # makes its state
    start = time.process_time()
    for _ in range(STEPS):
        optimizer.step()
    return (time.process_time() - start) / STEPS * 1000


if __name__ == "__main__":
    main()
