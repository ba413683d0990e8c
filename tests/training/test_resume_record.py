"""The settings by which a run is known again."""

import dataclasses
import json

import pytest
from transformers import TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.training.resume_record import OPTIONS, TRAINING_ARGUMENTS, trajectory_settings

# Compared by what they led to: the fingerprint of the data, the augmentation, the weights, the rates.
BY_OUTCOME = {
    *("model", "model_revision", "dataset", "dataset_config", "dataset_revision", "image_column", "label_column"),
    *("train_split", "validation_split", "test_split", "validation_fraction", "test_fraction"),
    *("max_train_samples", "images_per_class", "lr_backbone", "lr_head"),
    *("augmentation", "auto_augment", "random_erasing", "mixup", "cutmix", "augment_on"),
}
# Without influence on the trajectory, but for the last bit; WiSE-FT begins where it ends.
FREE = {"channels_last", "wise_ft", "metrics", "overwrite_output_dir", "debug", "training", "recipe", "command"}
FREE |= {"decoded_cache", "cache_dir", "cache_limit", "keep_cache"}
FREE |= {"use", "data_license", "license_override", "license_evidence", "data_license_report_only", "license"}
FREE |= {"widget_images", "check_usage", "linear_probe"}


def settings(tmp_path, config: dict | None = None, **arguments):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **arguments)
    return trajectory_settings(FinetuneConfig(model="m", dataset="d", **(config or {})), args)


def test_no_option_is_forgotten():
    names = {field.name for field in dataclasses.fields(FinetuneConfig)}
    assert names - FREE - BY_OUTCOME == set(OPTIONS)
    assert {field.name for field in dataclasses.fields(TrainingArguments)}.issuperset(TRAINING_ARGUMENTS)


def test_they_survive_json(tmp_path):
    before = settings(tmp_path, {"unfreeze_at": ["1", "2"]}, lr_scheduler_kwargs={"num_cycles": 2})
    assert json.loads(json.dumps(before)) == before


@pytest.mark.parametrize(
    ("config", "arguments", "changed"),
    [
        ({"granularity": "block"}, {}, "--granularity"),
        ({"early_stopping_patience": 3}, {}, "--early_stopping_patience"),
        ({}, {"lr_scheduler_type": "cosine"}, "--lr_scheduler_type"),
        ({}, {"max_grad_norm": 2.0}, "--max_grad_norm"),
        ({}, {"label_smoothing_factor": 0.1}, "--label_smoothing_factor"),
        ({}, {"per_device_train_batch_size": 3}, "images per step"),
        ({}, {"data_seed": 5}, "--data_seed"),
        ({}, {"bf16": True}, "precision"),
    ],
)
def test_what_moves_the_trajectory_shows(config: dict, arguments: dict, changed: str, tmp_path):
    before, now = settings(tmp_path), settings(tmp_path, config, **arguments)
    assert [name for name in now if now[name] != before[name]] == [changed]


def test_how_a_step_is_cut_and_how_long_a_run_is_may_change(tmp_path):
    one = settings(tmp_path, per_device_train_batch_size=8, num_train_epochs=2, dataloader_num_workers=1)
    other = settings(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=9, save_steps=3)
    assert one == other
