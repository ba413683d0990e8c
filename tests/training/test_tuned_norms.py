"""Normalisation layers learn first: they alone below the head, for as long as was said, on statistics that stay."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_transfer.data.mixing import collate_images
from hf_transfer.errors import UserError
from hf_transfer.models.head import find_head
from hf_transfer.models.norms import norm_parameters
from hf_transfer.models.two_groups import backbone_and_head
from hf_transfer.training.frozen import outside_norms
from hf_transfer.training.half_learning import HalfLearning
from hf_transfer.training.memory import estimate_memory
from hf_transfer.training.strategies import RunLength, Unfreezing
from hf_transfer.training.unfreezing import ProgressiveUnfreezeCallback
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_frozen import lively_model
from tests.training.test_prefix_cache import slow_but
from tests.training.test_thawing_processes import assert_same
from tests.training.test_unfreezing import lively
from tests.training.tiny_run import tiny_model, tiny_trainer

NORMS_FIRST = Unfreezing(strategy="feature-extraction", tune_norms="7 steps")
FROZEN_AT = 7  # of 5 steps an epoch
FAMILIES = ("vit", "resnet", "mobilenet_v2", "convnextv2", "swin", "efficientnet")
TIMM = ("timm/test_resnet", "timm/test_vit", "timm/test_efficientnet", "timm/test_convnext")


class Watched(TrainerCallback):
    """Keeps the weights after every step."""

    def __init__(self):
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(weights_of(model))


def norms_that_learn(trainer: Any) -> set[str]:
    """Returns the names of the norms of the groups that learn first, below the head."""
    first = trainer.unfreezing.unfreezing.first_open(len(trainer.groups))[:-1]
    return set(norm_parameters(trainer.model)).intersection(
        name for number in first for name in trainer.groups[number].parameter_names
    )


def trained(model: Any, family: str, folder: Path, mode: str, **settings: Any) -> Any:
    """Trains norms first and then on what is kept, or not (`mode` `off`), and returns the trainer."""
    trainer = cached_trainer(
        model, folder / mode, family, folder / "cache", mode=mode, strategy=NORMS_FIRST, **settings
    )
    trainer.train()
    return trainer


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("train_last", [None, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_norms_learn_to_that_step_and_nothing_else_below_the_head_ever(
    family: str, train_last: int | None, tmp_path: Path, capsys
):
    model = lively_model(family)
    before, watched = weights_of(model), Watched()
    wish = dataclasses.replace(NORMS_FIRST, train_last=train_last)
    trainer = tiny_trainer(
        model, tmp_path, family, strategy=wish, callbacks=[watched], optim="adamw_torch", learning_rate=0.01
    )
    trainer.train()
    head, norms = set(find_head(model)), norms_that_learn(trainer)
    assert (norms < set(norm_parameters(model))) == (train_last is not None)
    for name in norms:
        model.get_parameter(name).requires_grad_(True)
    model(pixel_values=torch.randn(2, 3, 32, 32)).logits.square().sum().backward()
    used = {name for name in norms if model.get_parameter(name).grad.abs().sum() > 0}
    first, last = watched.weights[FROZEN_AT - 1], watched.weights[-1]
    assert changed(before, first) <= head | norms
    assert changed(before, first) >= head | used
    assert changed(first, watched.weights[FROZEN_AT]) == head
    assert changed(first, last) == head
    assert f"step {FROZEN_AT}: froze " in capsys.readouterr().out


@pytest.mark.parametrize("name", slow_but(TIMM, ("timm/test_resnet", "timm/test_vit")))
def test_networks_of_timm_tune_their_norms_and_are_kept_as_others_are(name: str, tmp_path: Path):
    found = {}
    for mode in ("off", "auto"):
        model, processor = lively(name, tmp_path / mode)
        before, watched = weights_of(model), Watched()
        settings = {"callbacks": [watched], "processor": processor, "num_train_epochs": 4, "learning_rate": 0.005}
        trainer = trained(model, "vit", tmp_path, mode, **settings)
        found[mode] = weights_of(model)
        head, first = set(find_head(model)), watched.weights[FROZEN_AT - 1]
        assert head < changed(before, first) <= head | set(norm_parameters(model))
        assert changed(first, watched.weights[-1]) == head
        assert [fact["cached"] for fact in trainer.prefix.facts] == [False, mode == "auto"]
    assert_same(found["off"], found["auto"])


def test_an_evaluation_right_after_the_freezing_runs_on_what_is_kept(tmp_path: Path):
    model, built = lively_model("vit"), []
    trainer = cached_trainer(
        model,
        tmp_path,
        "vit",
        tmp_path / "cache",
        strategy=Unfreezing(strategy="feature-extraction", tune_norms=1),
        num_train_epochs=5,
        eval_strategy="epoch",
    )

    class Noting(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs):
            built.append((state.global_step, trainer.prefix.in_use))

    trainer.add_callback(Noting())
    trainer.train()
    assert built[:2] == [(5, True), (10, True)]


def test_statistics_and_dropout_stay_as_in_evaluation_while_norms_learn(tmp_path: Path):
    model = tiny_model("resnet")
    trainer = tiny_trainer(model, tmp_path, "resnet", strategy=NORMS_FIRST)
    seen: set[bool] = set()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.base_model.modules():
        module.register_forward_pre_hook(lambda module, _: seen.add(module.training))
    trainer.train()
    assert norms
    assert seen == {False}
    assert all(norm.num_batches_tracked == 0 for norm in norms)


@pytest.mark.parametrize("family", slow_but(FAMILIES, ("vit", "resnet", "efficientnet")))
def test_kept_features_are_those_of_the_tuned_norms(family: str, tmp_path: Path):
    found = {}
    for mode in ("off", "auto"):
        model = lively_model(family)
        settings = {"num_train_epochs": 6, "eval_strategy": "epoch", "learning_rate": 0.02}
        trainer = trained(model, family, tmp_path, mode, **settings)
        found[mode] = weights_of(model)
        assert [(fact["from_step"], fact["cached"]) for fact in trainer.prefix.facts] == [
            (0, False),
            (FROZEN_AT, mode == "auto"),
        ]
        assert trainer.prefix.facts[0]["reason"] == "normalisation layers learn"
    assert_same(found["off"], found["auto"])


@pytest.mark.parametrize("train_last", [None, 1])
def test_a_cache_that_was_asked_for_begins_with_the_freezing(train_last: int | None, tmp_path: Path):
    wish = dataclasses.replace(NORMS_FIRST, train_last=train_last)
    trainer = cached_trainer(lively_model("vit"), tmp_path, "vit", tmp_path / "cache", mode="on", strategy=wish)
    trainer.train()
    assert [fact["cached"] for fact in trainer.prefix.facts] == [False, True]


def test_rates_of_norms_and_head_each_rise_and_fall():
    run = RunLength(total_steps=40, steps_per_epoch=5, warmup_steps=lambda length: length // 5)
    made = NORMS_FIRST.schedule(2, run, "cosine")
    assert [made.open_groups(step) for step in (0, 6, 7, 39)] == [(0, 1), (0, 1), (1,), (1,)]
    assert [segment.start for segment in made.segments[1]] == [0, FROZEN_AT]
    assert made.factor(1, 2) == made.factor(0, 2) > 0
    assert made.factor(0, FROZEN_AT) == 0
    assert max(made.factor(1, step) for step in range(FROZEN_AT, 40)) == 1.0


def test_what_learns_first_learns_in_half_precision_and_what_is_frozen_then_is_not(tmp_path: Path):
    model = lively_model("vit")
    trainer = tiny_trainer(model, tmp_path, strategy=NORMS_FIRST)
    seen: list[tuple[int, torch.dtype]] = []
    block = model.vit.layers[0] if hasattr(model.vit, "layers") else model.vit.encoder.layer[0]
    dense = next(module for module in block.modules() if isinstance(module, nn.Linear))
    dense.register_forward_hook(lambda module, _, output: seen.append((trainer.state.global_step, output.dtype)))
    trainer.learn_in(HalfLearning(torch.bfloat16, "cpu"))
    trainer.train()
    kinds = {dtype: {step for step, found in seen if found == dtype} for dtype in (torch.bfloat16, torch.float32)}
    assert kinds[torch.bfloat16] == set(range(FROZEN_AT))
    assert kinds[torch.float32] == set(range(FROZEN_AT, 10))


def test_memory_is_that_of_few_weights(tmp_path: Path):
    model = tiny_model("vit")
    trainer = tiny_trainer(model, tmp_path, strategy=NORMS_FIRST)
    estimate, learning = estimate_memory(trainer, (3, 32, 32)), norms_that_learn(trainer).union(find_head(model))
    assert estimate is not None
    assert estimate.gradients == sum(4 * model.get_parameter(name).numel() for name in learning)


def test_a_trainer_of_ones_own_can_do_it(tmp_path: Path):
    model = lively_model("vit")
    ours = tiny_trainer(model, tmp_path)
    args = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", num_train_epochs=4, remove_unused_columns=False
    )
    trainer = Trainer(model, args, collate_images, ours.train_dataset)
    trainer.add_callback(ProgressiveUnfreezeCallback(trainer, NORMS_FIRST))
    before = weights_of(model)
    trainer.train()
    found = changed(before, weights_of(model))
    assert found > set(find_head(model))
    assert found <= {*norm_parameters(model), *find_head(model)}


def test_a_network_without_norms_is_refused():
    model = tiny_model("vit")
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight = module.bias = None
    with pytest.raises(UserError, match="no normalisation layers with weights in backbone"):
        outside_norms(model, backbone_and_head(model, find_head(model))[:-1])
