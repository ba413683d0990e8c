"""A tiny training that can be cut into micro-batches and processes in any way, and run in a process of its own.

`python -m tests.training.tiny_run OUT.safetensors PER_DEVICE_BATCH ACCUMULATION FAMILY...` writes the trained weights
of every family to one file; under `accelerate launch` the main process writes them. With `TEST_VARIED_ON=device` in
the environment batches are varied on the device.
"""

import io
import os
import sys
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import PreTrainedModel, TrainingArguments, set_seed

from hf_transfer.data.decode_once import EACH_VISIT, TrainingInput
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.mixing import collate_images
from hf_transfer.data.transforms import POLICIES, build_eval_transform, build_train_transform
from hf_transfer.training.process_group import end_processes
from hf_transfer.training.trainer import TransferTrainer
from tests.models.families import FAMILIES, classes_of, tiny_image_processor

NUM_LABELS = 3


def tiny_split(count: int, seed: int = 0) -> datasets.Dataset:
    """Returns pictures whose brightness goes with their label."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        noise = generator.integers(0, 60, (40, 36, 3)) + 80 * (index % NUM_LABELS)
        buffer = io.BytesIO()
        Image.fromarray(noise.astype(np.uint8)).save(buffer, format="PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    return datasets.Dataset.from_dict(
        {"image": rows, "label": [index % NUM_LABELS for index in range(count)]},
        features=datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")}),
    )


def tiny_model(model_type: str, seed: int = 0) -> PreTrainedModel:
    """Returns a tiny model without dropout, so that a step has one right answer."""
    set_seed(seed)
    config = FAMILIES[model_type]()
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    config.num_labels = NUM_LABELS
    return classes_of(model_type)[0](config)


def tiny_trainer(
    model: PreTrainedModel, output_dir: Path, model_type: str = "vit", split_size: int = 20, **settings
) -> TransferTrainer:
    """Returns a trainer on pictures of its own; `settings` go to the trainer or to its arguments."""
    own = {
        name: settings.pop(name)
        for name in (
            "strategy",
            "class_weights",
            "lr_head",
            "train_collator",
            "compute_metrics",
            "channels_last",
            "callbacks",
            "groups",
            "rates",
            "average",
        )
        if name in settings
    }
    defaults = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "learning_rate": 0.05,
        "optim": "sgd",
        "num_train_epochs": 2,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "use_cpu": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    varied_on = settings.pop("varied_on", os.environ.get("TEST_VARIED_ON", "cpu"))
    processor = settings.pop("processor", None) or tiny_image_processor(model_type)
    pictures = TrainingInput(
        ImageClassificationDataset(
            tiny_split(split_size), build_train_transform(processor, POLICIES["light"]), seed=7
        ),
        ImageClassificationDataset(tiny_split(9, seed=1), build_eval_transform(processor), seed=None),
        EACH_VISIT,
        "",
    )
    if varied_on == "device":
        pictures = pictures.varied_on_device(processor, POLICIES["light"])
    return TransferTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(output_dir), **(defaults | settings)),
        data_collator=collate_images,
        train_dataset=pictures.train,
        eval_dataset=pictures.validation,
        vary=pictures.vary,
        processing_class=processor,
        **own,
    )


def trained_weights(model_type: str, output_dir: Path, batch: int, accumulation: int, **settings) -> dict:
    """Trains a tiny model of a family and returns its weights, named by family."""
    model = tiny_model(model_type)
    tiny_trainer(
        model,
        output_dir,
        model_type,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        **settings,
    ).train()
    return {f"{model_type}/{name}": tensor.clone().contiguous() for name, tensor in model.state_dict().items()}


def main(out: str, batch: str, accumulation: str, *families: str) -> None:
    weights: dict[str, torch.Tensor] = {}
    for family in families:
        weights |= trained_weights(family, Path(out).parent / "run", int(batch), int(accumulation))
    if os.environ.get("RANK", "0") == "0":
        save_file(weights, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_processes()
