"""What a training step does beside the network's own arithmetic: as good as nothing, and no waiting for the device."""

import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback, TrainingArguments

from hf_transfer.models.head import find_head
from hf_transfer.training.arguments import planned_arguments
from hf_transfer.training.averaging import WeightAverage
from hf_transfer.training.l2sp import L2SPCallback
from hf_transfer.training.strategies import Unfreezing
from tests.training.test_arguments import config
from tests.training.tiny_run import NUM_LABELS, tiny_model, tiny_trainer

WAITS = {
    torch.ops.aten._local_scalar_dense.default: "a value is read",
    torch.ops.aten.nonzero.default: "a size is read",
}
"""Operations that make a host wait for its device; `.item()`, `float()`, `bool()` and `.tolist()` are the first."""
MADE_OF_PYTHON = torch.ops.aten.lift_fresh.default
"""`torch.tensor(...)`: on a device, a copy to it that waits too."""


class Watch(TorchDispatchMode):
    """Counts operations."""

    def __init__(self):
        super().__init__()
        self.seen: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func] += 1
        return func(*args, **(kwargs or {}))


class WatchedSteps(TrainerCallback):
    """Watches from the beginning of a step to its end; stands before and after all other callbacks."""

    def __init__(self, watch: Watch):
        self.watch = watch

    def on_step_begin(self, args, state, control, **kwargs):
        self.watch.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        self.watch.__exit__(None, None, None)


@pytest.mark.parametrize("strategy", ["full", "progressive"])
def test_no_step_waits_for_the_device(strategy: str, tmp_path: Path):
    model = tiny_model("vit")
    watch = Watch()
    trainer = tiny_trainer(
        model,
        tmp_path,
        split_size=16,
        strategy=Unfreezing(strategy="progressive", unfreeze_every="1 step") if strategy == "progressive" else "full",
        class_weights=torch.ones(NUM_LABELS),
        average=WeightAverage(model, 0.9),
        callbacks=[L2SPCallback(model, find_head(model), 0.1)],
        optim=TrainingArguments.optim,
        max_grad_norm=1.0,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        lr_scheduler_type="cosine",
    )
    watched = WatchedSteps(watch)
    trainer.callback_handler.callbacks.insert(0, watched)
    trainer.train()
    assert trainer.state.global_step == 8
    assert watch.seen[torch.ops.aten.native_layer_norm.default] > 8, "the watch saw no network"
    assert not {what: watch.seen[operation] for operation, what in WAITS.items() if watch.seen[operation]}
    assert not watch.seen[MADE_OF_PYTHON]


def test_the_images_of_a_step_are_counted_without_a_copy(tmp_path: Path):
    trainer = tiny_trainer(tiny_model("vit"), tmp_path)
    batches: list[Any] = [{"labels": torch.zeros(4)}, {"labels": torch.zeros(3)}]
    with Watch() as watch:
        count = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
    assert int(count) == 7
    assert count.dtype == torch.int64
    assert not watch.seen[MADE_OF_PYTHON]


def test_the_start_of_l2_sp_lies_where_the_weights_are():
    model = tiny_model("vit")
    pull = L2SPCallback(model, find_head(model), 0.1)
    # The model has moved since the start was copied.
    moved = {key: nn.Parameter(start.to("meta")) for key, start in pull._start.items()}
    pull._start = {id(moved[key]): start for key, start in pull._start.items()}
    optimizer = types.SimpleNamespace(param_groups=[{"params": list(moved.values()), "weight_decay": 0.1}])
    pull.on_train_begin(None, None, None, optimizer=optimizer)
    assert {start.device.type for start in pull._start.values()} == {"meta"}


def test_adamw_is_fused_on_this_machine_too(tmp_path: Path):
    assert TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none").optim == "adamw_torch_fused"
    trainer = tiny_trainer(tiny_model("vit"), tmp_path, optim=TrainingArguments.optim, num_train_epochs=1)
    trainer.train()
    assert all(group["fused"] for group in trainer.optimizer.param_groups)


def test_batches_go_to_a_gpu_beside_its_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert planned_arguments(config())["accelerator_config"] == {"non_blocking": True}
    assert "accelerator_config" not in planned_arguments(config(training={"dataloader_pin_memory": False}))
    assert "accelerator_config" not in planned_arguments(config(training={"use_cpu": True}))


@pytest.mark.parametrize("family", ["vit", "resnet"])
@pytest.mark.parametrize(
    "strategy", [Unfreezing(strategy="feature-extraction"), Unfreezing(strategy="partial", train_last=1)]
)
def test_nothing_is_recorded_below_the_lowest_open_group(family: str, strategy: Unfreezing, tmp_path: Path):
    model = tiny_model(family)
    trainer = tiny_trainer(model, tmp_path, family, strategy=strategy)
    lowest = min(strategy.first_open(len(trainer.groups)))
    below = {name for group in trainer.groups[:lowest] for name in group.module_names}
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str):
        return lambda module, inputs, output: outputs.setdefault(name, output)

    for name in below:
        model.get_submodule(name).register_forward_hook(note(name))
    model.train()
    trainer.unfreezing.keep_frozen_still()
    logits = model(pixel_values=torch.randn(2, 3, 32, 32)).logits
    assert logits.requires_grad
    tensors = [output for output in outputs.values() if isinstance(output, torch.Tensor)]
    assert len(tensors) > 3
    assert not [tensor for tensor in tensors if tensor.requires_grad or tensor.grad_fn is not None]
