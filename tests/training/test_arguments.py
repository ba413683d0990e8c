"""Defaults in layers: Trainer's, ours, the strategy's, the user's."""

import types

import pytest
import torch

from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError
from hf_transfer.training.arguments import (
    OUR_DEFAULTS,
    STRATEGY_DEFAULTS,
    build_training_arguments,
    planned_arguments,
    recomputes_activations,
)


def config(strategy: str = "full", training: dict | None = None, **settings) -> FinetuneConfig:
    return FinetuneConfig(model="m", dataset="d", strategy=strategy, training=training or {}, **settings)


def test_the_user_wins_over_the_strategy_and_the_strategy_over_us():
    assert planned_arguments(config())["num_train_epochs"] == STRATEGY_DEFAULTS["full"]["num_train_epochs"].value
    assert planned_arguments(config(training={"num_train_epochs": 9.0}))["num_train_epochs"] == 9.0
    assert planned_arguments(config())["weight_decay"] == OUR_DEFAULTS["weight_decay"].value


def test_every_default_differs_for_a_reason_and_is_a_field(tmp_path):
    args = build_training_arguments(config(training={"output_dir": str(tmp_path), "use_cpu": True}), 1e-3)
    for name, default in OUR_DEFAULTS.items():
        assert hasattr(args, name)
        assert len(default.reason) > 10
    assert args.load_best_model_at_end
    assert args.greater_is_better


def test_saving_follows_evaluation():
    planned = planned_arguments(config(training={"eval_strategy": "steps", "eval_steps": 7}))
    assert (planned["save_strategy"], planned["save_steps"], planned["logging_steps"]) == ("steps", 7, 7)
    assert planned_arguments(config(training={"eval_strategy": "no"}))["load_best_model_at_end"] is False


def test_a_value_that_trainer_refuses_is_told_in_its_words(tmp_path):
    with pytest.raises(UserError, match="do not fit together"):
        build_training_arguments(config(training={"output_dir": str(tmp_path), "lr_scheduler_type": "zigzag"}), 1e-3)


def test_trainer_itself_never_pushes(tmp_path):
    asked = {"push_to_hub": True, "hub_token": "hf_secret", "hub_model_id": "a/b"}
    args = build_training_arguments(config(training={"output_dir": str(tmp_path), "use_cpu": True, **asked}), 1e-3)
    assert args.push_to_hub is False
    assert args.hub_token is None


def test_output_dir_is_named_after_model_data_and_strategy():
    named = planned_arguments(FinetuneConfig(model="facebook/convnext-tiny-224", dataset="a/b c.tar", strategy="full"))
    assert named["output_dir"] == "runs/convnext-tiny-224-b-c-full"


@pytest.mark.parametrize("chosen", ["bf16", "no"])
def test_a_chosen_precision(chosen: str, tmp_path):
    args = build_training_arguments(config(training={"output_dir": str(tmp_path), "use_cpu": True}), 1e-3, chosen)
    assert args.bf16 is (chosen == "bf16")
    assert args.mixed_precision == chosen


@pytest.mark.parametrize("chosen", [None, "bf16", "no"])
def test_half_precision_is_meant_for_the_processor_where_there_is_nothing_else(
    chosen: str | None, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = build_training_arguments(config(training={"output_dir": str(tmp_path), "bf16": True}), 1e-3, chosen)
    assert args.device.type == "cpu"
    assert args.mixed_precision == (chosen or "bf16")


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_recomputing_has_another_name_in_older_transformers(name: str):
    assert recomputes_activations(types.SimpleNamespace(**{name: True}))
    assert not recomputes_activations(types.SimpleNamespace(**{name: False}))


def test_a_gpu_is_fed_without_waiting(monkeypatch: pytest.MonkeyPatch):
    """Workers that stay, pinned memory (Trainer's own default) and copies that do not wait for each other."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    planned = planned_arguments(FinetuneConfig(model="m", dataset="d"))
    assert planned["dataloader_persistent_workers"] is (planned["dataloader_num_workers"] > 0) is True
    assert planned["accelerator_config"] == {"non_blocking": True}
    assert "dataloader_pin_memory" not in planned
    unpinned = FinetuneConfig(model="m", dataset="d", training={"dataloader_pin_memory": False})
    assert "accelerator_config" not in planned_arguments(unpinned)
