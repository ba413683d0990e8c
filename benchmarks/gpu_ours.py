"""Ours on a GPU: the command that a user runs, in this process, with a clock in its trainer.

Knows which options are given and where a run says what it measured. Everything else is as a user has it: the decoded
cache, the loader's workers and layout are the defaults.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_loops import RATE, forget_peak, peak_bytes, wait_for
from gpu_plan import Size
from torch.utils.data.dataloader import _BaseDataLoaderIter
from transformers import TrainerCallback

from hf_transfer import pipeline
from hf_transfer.cli import run_command


class FailedRun(Exception):
    """A run of ours that ended with an error, which it has printed."""


class LoaderWait:
    """Seconds in which the training waited for torch's loader to hand over a batch, and for nothing else.

    A run's own `data_wait_share` also counts the copy of a batch to the device, which waits until the GPU has done
    what was asked of it before: on a GPU that share is large where no step lacks a picture.
    """

    def __init__(self):
        self.seconds = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measures all loaders of this process."""
        fetch = _BaseDataLoaderIter.__next__

        def timed_fetch(iterator: Any) -> Any:
            start = time.perf_counter()
            try:
                return fetch(iterator)
            finally:
                self.seconds += time.perf_counter() - start

        _BaseDataLoaderIter.__next__ = timed_fetch
        try:
            yield
        finally:
            _BaseDataLoaderIter.__next__ = fetch


class StepClock(TrainerCallback):
    """Measures the steps after a warm-up, on a device that has nothing left to do at both ends."""

    def __init__(self, warm_up: int, wait: LoaderWait, device: torch.device):
        self.warm_up, self.wait, self.device = warm_up, wait, device
        self.seconds = self.waited = 0.0
        self.peak_bytes: int | None = None
        self._start = (0.0, 0.0)

    def on_train_begin(self, args, state, control, **kwargs):
        forget_peak(self.device)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.warm_up:
            wait_for(self.device)
            self._start = (time.perf_counter(), self.wait.seconds)
        elif state.global_step == state.max_steps:
            wait_for(self.device)
            self.seconds = time.perf_counter() - self._start[0]
            self.waited = self.wait.seconds - self._start[1]

    def on_train_end(self, args, state, control, **kwargs):
        # Not later: the evaluation that follows has a peak of its own.
        self.peak_bytes = peak_bytes(self.device)


def training(
    checkpoint: Path, pictures: Path, scratch: Path, size: Size, bare_rate: float | None, device: torch.device
) -> dict:
    """Trains everything and measures the steps after the warm-up."""
    steps, wait = size.steps(bare_rate), LoaderWait()
    clock = StepClock(size.warm_up, wait, device)
    options = ["--strategy", "full", "--max_steps", str(size.warm_up + steps)]
    with wait.watching():
        report = _run(checkpoint, pictures, scratch, size, device, clock, options)
    return {
        "rate": steps * size.batch / clock.seconds,
        "steps": steps,
        "seconds": clock.seconds,
        "loader_wait_share": clock.waited / clock.seconds,
        "data_wait_share": report["training"]["data_wait_share"],
        "peak_bytes": clock.peak_bytes,
        "decoding_seconds": decoding_seconds(report),
        **_arguments(report),
    }


def extraction(checkpoint: Path, pictures: Path, scratch: Path, size: Size, device: torch.device) -> dict:
    """Trains a head on frozen features from JPEG files alone, and says how long it took to have the features."""
    clock = StepClock(size.warm_up, LoaderWait(), device)
    options = ["--strategy", "feature-extraction", "--cache", "on"]
    options += ["--num_train_epochs", str(size.extraction_epochs)]
    report = _run(checkpoint, pictures, scratch, size, device, clock, options)
    (cache,), splits = report["training"]["cache"], report["data"]["split_sizes"]
    images = splits["train"] * cache["views"] + splits["validation"]
    seconds = decoding_seconds(report) + cache["seconds"]
    return {
        "rate": images / seconds,
        "images": images,
        "views": cache["views"],
        "seconds": seconds,
        "decoding_seconds": decoding_seconds(report),
        "build_seconds": cache["seconds"],
        "bytes": cache["bytes"],
        "peak_bytes": clock.peak_bytes,
        **_arguments(report),
    }


def decoding_seconds(report: dict) -> float:
    """Returns how long a run took to decode its pictures, each once, before it began."""
    return sum(split["seconds"] for split in report["training"]["pictures"]["kept"].values())


def _run(
    checkpoint: Path,
    pictures: Path,
    scratch: Path,
    size: Size,
    device: torch.device,
    clock: StepClock,
    options: list[str],
) -> dict:
    """Runs the command with nothing kept from before and returns its report."""
    out, cache = scratch / "run", scratch / "cache"
    for folder in (out, cache):
        shutil.rmtree(folder, ignore_errors=True)
    words = ["--model", str(checkpoint), "--dataset", str(pictures), "--output_dir", str(out), *options]
    words += ["--cache_dir", str(cache), "--learning_rate", str(RATE), "--disable_tqdm", "true"]
    words += ["--per_device_train_batch_size", str(size.batch), "--check_usage", "false"]
    words += ["--per_device_eval_batch_size", str(size.inference_batch)]
    words += ["--eval_strategy", "no", "--save_strategy", "no", "--report_to", "none"]
    # As the bare loops: by default a network may be left in float32 where bfloat16 moves its features, and those of
    # random weights tell nothing.
    words += ["--use_cpu", "true", "--bf16", "false"] if device.type == "cpu" else ["--bf16", "true"]
    with _clocked(clock):
        exit_code = run_command("train", words)
    if exit_code != 0:
        raise FailedRun(f"exit code {exit_code}: finetune.py {' '.join(words)}")
    report = json.loads((out / "run.json").read_text(encoding="utf-8"))
    for folder in (out, cache):
        shutil.rmtree(folder, ignore_errors=True)
    return report


@contextmanager
def _clocked(clock: StepClock) -> Iterator[None]:
    """Hangs a clock on the trainer that a run builds; nothing of a run hands it out."""
    build = pipeline.build_trainer

    def build_with_clock(*args: Any, **kwargs: Any) -> Any:
        trainer = build(*args, **kwargs)
        # Before all others: kept features are made by one of them when the training begins.
        trainer.callback_handler.callbacks.insert(0, clock)
        return trainer

    pipeline.build_trainer = build_with_clock
    try:
        yield
    finally:
        pipeline.build_trainer = build


def _arguments(report: dict) -> dict:
    """Returns the arguments that decide on speed, as the run had them."""
    names = ("bf16", "tf32", "optim", "dataloader_num_workers", "per_device_train_batch_size")
    return {"arguments": {name: report["training_arguments"].get(name) for name in names}}
