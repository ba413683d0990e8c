"""How many views are kept by default, and that a run keeps those that it began with."""

from pathlib import Path
from typing import Any

import pytest

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.transforms import POLICIES
from hf_transfer.errors import UserError
from hf_transfer.training.arguments import build_training_arguments
from hf_transfer.training.checkpoints import seal_checkpoint, write_identity
from hf_transfer.training.kept_views import VIEWS, choose_views
from tests.training.tiny_run import tiny_model


def chosen(
    folder: Path,
    strategy: str = "partial",
    epochs: int = 20,
    family: str = "resnet",
    policy: str = "light",
    cache_views: int | None = None,
    **training: Any,
) -> int:
    asked = {"output_dir": str(folder), "use_cpu": True, "num_train_epochs": epochs, **training}
    config = FinetuneConfig(model="m", dataset="d", strategy=strategy, cache_views=cache_views, training=asked)
    return choose_views(
        config, build_training_arguments(config, 1e-3), tiny_model(family), POLICIES[policy], num_images=64
    )


@pytest.mark.parametrize(
    ("words", "views"),
    [
        ({}, 4),
        ({"epochs": 8}, 4),
        ({"epochs": 7}, 2),
        ({"max_steps": 64, "per_device_train_batch_size": 8}, 4),
        ({"max_steps": 63, "per_device_train_batch_size": 8}, 2),
        ({"family": "vit"}, 2),
        ({"strategy": "feature-extraction"}, 2),
        ({"strategy": "progressive"}, 2),
        ({"strategy": "lp-ft"}, 2),
        ({"policy": "none"}, 1),
        ({"policy": "none", "cache_views": 3}, 1),
        ({"cache_views": 3}, 3),
        ({"strategy": "feature-extraction", "cache_views": 8}, 8),
    ],
)
def test_a_long_partial_with_batch_norm_keeps_more(words: dict[str, Any], views: int, tmp_path: Path):
    assert chosen(tmp_path, **words) == views


def test_less_than_one_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="--cache_views 0"):
        chosen(tmp_path, cache_views=0)


def test_a_run_that_is_made_longer_keeps_its_views(tmp_path: Path):
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    write_identity(checkpoint, {VIEWS: 2})
    seal_checkpoint(checkpoint)
    assert chosen(tmp_path, epochs=20) == 4
    assert chosen(tmp_path, epochs=20, resume_from_checkpoint="last") == 2
    assert chosen(tmp_path, epochs=20, resume_from_checkpoint="last", cache_views=3) == 3
