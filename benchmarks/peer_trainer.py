"""A peer: `transformers.Trainer` as its documentation shows it for image classification.

Per-image torchvision transforms (random resized crop, flip, normalise; resize and centre crop), an evaluation after
each epoch. `defaults` are those of `TrainingArguments`: batches of 8, rate 5e-5, no workers. `sensible` has batches of
32, workers, a usual rate with warm-up and cosine, gentler crops, and bfloat16 where the processor is faster in it. The
weights at the end are the ones tested: Trainer would reload the best of some families in part only
(transformers#43701). Nothing is saved, which costs ours time and this peer none.
"""

from typing import Any

import torch
from peer_clock import EpochClock
from peer_files import PictureFiles, read_files
from peer_job import (
    DEFAULTS,
    EVAL_BATCH,
    SENSIBLE_BATCH,
    Job,
    eval_transform,
    finish,
    freeze_body,
    load_network,
    read_job,
    read_pixels,
    sensible_rate,
    train_transform,
    workers,
)
from transformers import Trainer, TrainingArguments, set_seed

from hf_transfer.training.cpu_precision import bfloat16_is_faster


def collate(rows: list[tuple]) -> dict[str, torch.Tensor]:
    """Stacks pictures and labels."""
    pixel_values, labels = zip(*rows, strict=True)
    return {"pixel_values": torch.stack(pixel_values), "labels": torch.tensor(labels)}


def accuracy(predictions: Any) -> dict[str, float]:
    """Returns the share of right answers."""
    return {"accuracy": float((predictions.predictions.argmax(-1) == predictions.label_ids).mean())}


def settings(job: Job, rate: float) -> dict[str, Any]:
    """Returns the training arguments in which a setting differs from Trainer's own."""
    if job.setting == DEFAULTS:
        return {}
    return {
        "per_device_train_batch_size": SENSIBLE_BATCH,
        "per_device_eval_batch_size": EVAL_BATCH,
        "learning_rate": rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "dataloader_num_workers": workers(),
        "dataloader_persistent_workers": True,
        "bf16": bfloat16_is_faster(),
    }


def run(job: Job) -> None:
    """Trains, and predicts the test pictures."""
    set_seed(job.seed)
    files, pixels = read_files(job.data), read_pixels(job.checkpoint)
    network = load_network(job.checkpoint, len(files.label_names))
    if job.task == "frozen":
        freeze_body(network)
    epochs = EpochClock()
    trainer = Trainer(
        model=network,
        args=TrainingArguments(
            output_dir=str(job.out),
            num_train_epochs=job.epochs,
            eval_strategy="epoch",
            save_strategy="no",
            remove_unused_columns=False,
            report_to="none",
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            seed=job.seed,
            **settings(job, sensible_rate(network, job.task)),
        ),
        data_collator=collate,
        train_dataset=PictureFiles(files.rows["train"], train_transform(pixels, job.setting)),
        eval_dataset=PictureFiles(files.rows["validation"], eval_transform(pixels, job.setting)),
        compute_metrics=accuracy,
        callbacks=[epochs],
    )
    trainer.train()
    test: Any = PictureFiles(files.rows["test"], eval_transform(pixels, job.setting))
    finish(job, trainer.predict(test).predictions, epochs, bf16=trainer.args.bf16)


if __name__ == "__main__":
    run(read_job())
