"""The decay of a head on frozen features: how long it remembers, and when the user's or the usual one stays."""

import json
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from hf_transfer.cli import main
from hf_transfer.config import FinetuneConfig
from hf_transfer.training.arguments import OUR_DEFAULTS
from hf_transfer.training.head_decay import MEMORY, REASON, follows_memory, head_decay
from tests.tiny_project import train_words


def arguments(tmp_path: Path, **given) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **given)


def config(strategy: str = "feature-extraction", training: dict | None = None, **settings) -> FinetuneConfig:
    return FinetuneConfig(model="m", dataset="d", strategy=strategy, training=training or {}, **settings)


@pytest.mark.parametrize(("rate", "num_images"), [(1e-2, 320), (4e-4, 320), (1e-2, 5000)])
def test_a_weight_that_nothing_moves_fades_to_a_third_within_the_memory(rate: float, num_images: int, tmp_path: Path):
    decay = head_decay(arguments(tmp_path, learning_rate=rate, per_device_train_batch_size=32), num_images)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], lr=rate, weight_decay=decay)
    weight.grad = torch.zeros(1)
    for _ in range(round(MEMORY * -(-num_images // 32))):
        optimizer.step()
    assert weight.item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.06)


def test_what_counts_is_the_pictures_of_a_step_however_they_come_together(tmp_path: Path):
    together = arguments(tmp_path, learning_rate=1e-2, per_device_train_batch_size=32)
    in_parts = arguments(tmp_path, learning_rate=1e-2, per_device_train_batch_size=8, gradient_accumulation_steps=4)
    assert head_decay(together, 330) == head_decay(in_parts, 330) == head_decay(together, 352)


@pytest.mark.parametrize(
    ("settings", "given", "follows"),
    [
        ({}, {}, True),
        ({}, {"optim": "sgd"}, False),
        ({}, {"learning_rate": 0.0}, False),
        ({"strategy": "full"}, {}, False),
        ({"strategy": "scratch"}, {}, False),
        ({"keep_head": True}, {}, False),
        ({"training": {"weight_decay": 0.01}}, {}, False),
    ],
)
def test_only_a_new_head_alone_that_nobody_decided_about(settings: dict, given: dict, follows: bool, tmp_path: Path):
    assert follows_memory(config(**settings), arguments(tmp_path, **given)) is follows


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--strategy", "feature-extraction"], REASON),
        (["--strategy", "feature-extraction", "--weight_decay", "0.3"], "as you asked"),
        (["--strategy", "full"], OUR_DEFAULTS["weight_decay"].reason),
    ],
)
def test_a_run_says_its_decay_and_trains_with_it(words: list[str], reason: str, tmp_path: Path):
    folder = tmp_path / "run"
    assert main([*train_words(tmp_path), "--max_steps", "1", *words, "--output_dir", str(folder)]) == 0
    report = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    decay = report["training_arguments"]["weight_decay"]
    row = next(decision for decision in report["decisions"] if decision["name"] == "weight decay")
    assert row == {"name": "weight decay", "value": f"{decay:g}", "reason": reason}
    saved = torch.load(next(folder.glob("checkpoint-*")) / "optimizer.pt")
    assert {group["weight_decay"] for group in saved["param_groups"]} == {decay, 0.0}
