"""What is frozen stays exactly as it is, and what is thawed learns: parameters, buffers, gradients, optimizer."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import load_checkpoint
from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.training.limits import refuse_unsupported
from hf_transfer.training.strategies import Unfreezing
from hf_transfer.training.unfreezing import ProgressiveUnfreezeCallback
from tests.models.timm_architectures import build_tiny_timm_checkpoint
from tests.training.tiny_run import NUM_LABELS, tiny_model, tiny_trainer

FAMILIES = ("vit", "convnext", "resnet", "swin", "efficientnet", "timm/test_resnet", "timm/test_vit")
STEPS = 12
# 4 steps an epoch, 3 epochs; the last of the backbone thaws after 2 steps, then one group every 2.
PROGRESSIVE = Unfreezing(strategy="progressive", unfreeze_every="2 steps")


class Observer(TrainerCallback):
    """Notes, for every step, which parameters and buffers changed, which had a gradient and which have a state."""

    def __init__(self):
        self.trainer: Trainer | None = None
        self.changed: list[set[str]] = []
        self.with_gradient: list[set[str]] = []
        self.with_state: list[set[str]] = []
        self._before: dict[str, torch.Tensor] = {}

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self._before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.with_gradient.append({name for name, p in model.named_parameters() if p.grad is not None})

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        now = model.state_dict()
        self.changed.append({name for name, tensor in now.items() if not torch.equal(tensor, self._before[name])})
        kept = {id(p) for p in getattr(optimizer, "optimizer", optimizer).state}
        self.with_state.append({name for name, p in model.named_parameters() if id(p) in kept})


def lively(family: str, folder: Path) -> tuple[PreTrainedModel, object]:
    """Returns a tiny model whose kernels let a signal through, and its processor (`None` for the usual one)."""
    set_seed(0)
    if family.startswith("timm/"):
        source = build_tiny_timm_checkpoint(folder / "timm", family.removeprefix("timm/"))
        checkpoint = load_checkpoint(str(source), label_names=[str(index) for index in range(NUM_LABELS)])
        model, processor = checkpoint.model, checkpoint.image_processor
    else:
        model, processor = tiny_model(family), None
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        elif name.endswith("weight"):
            nn.init.ones_(parameter)  # some residual branches begin at zero
    return model, processor


def observed(family: str, folder: Path, strategy: Unfreezing, **settings) -> tuple[Observer, list[LayerGroup]]:
    model, processor = lively(family, folder)
    observer = Observer()
    options = {
        "optim": "adamw_torch",
        "weight_decay": 0.1,
        "learning_rate": 1e-2,
        "num_train_epochs": 3,
        "warmup_steps": 0,
    }
    trainer = tiny_trainer(
        model,
        folder / "run",
        "vit" if processor else family,
        split_size=16,
        strategy=strategy,
        callbacks=[observer],
        processor=processor,
        lr_scheduler_type="constant",
        **(options | settings),
    )
    trainer.train()
    assert len(observer.changed) == STEPS
    return observer, list(trainer.groups)


def used(names: set[str], observer: Observer) -> set[str]:
    """Returns those that ever had a gradient: mask tokens and the like never do."""
    return names & set().union(*observer.with_gradient)


def buffers_of(changed: set[str], groups: list[LayerGroup]) -> set[str]:
    return changed - {name for group in groups for name in group.parameter_names}


@pytest.mark.parametrize("family", FAMILIES)
def test_progressive_changes_exactly_the_open_groups_at_every_step(family: str, tmp_path: Path):
    observer, groups = observed(family, tmp_path, PROGRESSIVE)
    assert len(groups) >= 3
    last_frozen = 0
    for step in range(STEPS):
        opened = min(len(groups), 1 + step // 2)
        learning = {name for group in groups[len(groups) - opened :] for name in group.parameter_names}
        parameters = observer.changed[step] - buffers_of(observer.changed[step], groups)
        assert parameters == used(learning, observer), f"step {step}"
        assert observer.with_gradient[step] == used(learning, observer), f"step {step}"
        assert observer.with_state[step] == used(learning, observer), f"step {step}"
        open_modules = {name for group in groups[len(groups) - opened :] for name in group.module_names}
        moved = {name.rpartition(".")[0] for name in buffers_of(observer.changed[step], groups)}
        assert moved <= open_modules, f"step {step}: statistics of frozen layers moved"
        last_frozen = max(last_frozen, step if opened < len(groups) else 0)
    assert last_frozen >= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_partial_leaves_everything_below_untouched(family: str, tmp_path: Path):
    observer, groups = observed(family, tmp_path, Unfreezing(strategy="partial", train_last=1))
    learning = {name for group in groups[-2:] for name in group.parameter_names}
    modules = {name for group in groups[-2:] for name in group.module_names}
    for changed in observer.changed:
        assert changed - buffers_of(changed, groups) == used(learning, observer)
        assert {name.rpartition(".")[0] for name in buffers_of(changed, groups)} <= modules


def test_statistics_of_a_thawed_layer_do_move(tmp_path: Path):
    observer, groups = observed("resnet", tmp_path, PROGRESSIVE)
    moved = [{name for name in changed if name.endswith("running_mean")} for changed in observer.changed]
    assert not moved[0], "at first the head alone learns"
    assert len(moved[2]) < len(moved[-1])
    assert moved[2]


def test_probe_first_and_then_everything(tmp_path: Path):
    observer, groups = observed("vit", tmp_path, Unfreezing(strategy="lp-ft", probe="5 steps"))
    head = set(groups[-1].parameter_names)
    assert all(changed == head for changed in observer.changed[:5])
    everything = {name for group in groups for name in group.parameter_names}
    assert all(changed == used(everything, observer) for changed in observer.changed[5:])


class Falling:
    """A validation accuracy that never gets better."""

    def __call__(self, prediction) -> dict[str, float]:
        return {"accuracy": 0.5}


def test_a_plateau_thaws_the_next_group(tmp_path: Path):
    strategy = Unfreezing(strategy="progressive", unfreeze_on_plateau=2)
    observer, groups = observed(
        "vit",
        tmp_path,
        strategy,
        eval_strategy="steps",
        eval_steps=1,
        compute_metrics=Falling(),
        metric_for_best_model="accuracy",
    )
    # The first evaluation is the best so far; the third is the second without a better one.
    sizes = [len(changed) for changed in observer.changed]
    thaws = [step for step in range(1, STEPS) if sizes[step] > sizes[step - 1]]
    assert thaws == [3, 5, 7]
    assert observer.changed[2] == set(groups[-1].parameter_names)
    assert observer.changed[3] == set(groups[-1].parameter_names) | set(groups[-2].parameter_names)


def test_each_thaw_prints_one_line_with_step_group_parameters_and_rate(tmp_path: Path, capsys):
    _, groups = observed("vit", tmp_path, PROGRESSIVE, lr_head=0.5)
    lines = [line for line in capsys.readouterr().out.splitlines() if "thawed" in line]
    assert len(lines) == len(groups) - 1
    assert lines[0].startswith(f"step 2: thawed {groups[-2].name} (")
    assert "parameters, rate 0.01)" in lines[0]
    assert lines[0].endswith(f"2 of {len(groups)} groups learn")


def test_rates_are_logged_for_every_group(tmp_path: Path):
    model = tiny_model("vit")
    trainer = tiny_trainer(
        model, tmp_path, strategy=PROGRESSIVE, logging_steps=1, lr_scheduler_type="cosine", lr_head=0.5, max_steps=9
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "learning_rate" in entry]
    names = {f"learning_rate/{group.name}" for group in trainer.groups}
    assert all(names <= entry.keys() for entry in logged)
    first = trainer.groups[0].name
    rates = [entry[f"learning_rate/{first}"] for entry in logged]
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(0.05)
    assert logged[0][f"learning_rate/{trainer.groups[-1].name}"] > 0.4


def test_a_plain_trainer_thaws_with_the_callback(tmp_path: Path):
    model, _ = lively("resnet", tmp_path)
    mine = tiny_trainer(model, tmp_path / "mine", "resnet")
    observer = Observer()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path / "run"),
            per_device_train_batch_size=4,
            num_train_epochs=2,
            learning_rate=0.05,
            lr_scheduler_type="constant",
            report_to="none",
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            save_strategy="no",
            weight_decay=0.1,
        ),
        train_dataset=[
            {"pixel_values": row["pixel_values"], "labels": row["labels"]}
            for row in (mine.train_dataset[index] for index in range(8))
        ],
        callbacks=[observer],
    )
    model.requires_grad_(True)
    callback = ProgressiveUnfreezeCallback(
        trainer, Unfreezing(strategy="progressive", unfreeze_at=["1 step", "3 steps"])
    )
    trainer.add_callback(callback)
    trainer.train()
    groups = callback.groups
    head, last, below = (set(group.parameter_names) for group in groups[:-4:-1])
    parameters = [changed - buffers_of(changed, list(groups)) for changed in observer.changed]
    assert parameters[0] == head
    assert parameters[1] == parameters[2] == head | last
    assert parameters[3] == head | last | below
    assert not buffers_of(observer.changed[0], list(groups)), "frozen BatchNorm moved"
    assert buffers_of(observer.changed[3], list(groups))
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("name", ["DeepSpeed", "FSDP"])
def test_what_cannot_thaw_says_so(name: str, tmp_path: Path):
    trainer = tiny_trainer(tiny_model("vit"), tmp_path, strategy=PROGRESSIVE)
    setattr(trainer, f"is_{name.lower()}_enabled", True)
    with pytest.raises(UserError, match=f"{name} fixes what it shards"):
        refuse_unsupported(trainer)


@pytest.mark.parametrize("given", [("optimizer",), ("scheduler",), ("optimizer", "scheduler")], ids=" and ".join)
def test_one_rate_for_all_weights_is_refused(given: tuple[str, ...], tmp_path: Path):
    trainer = tiny_trainer(tiny_model("vit"), tmp_path, strategy=Unfreezing(strategy="full"))
    trainer.is_deepspeed_enabled = True
    settings = {"zero_optimization": {"stage": 2}}
    plugin = SimpleNamespace(deepspeed_config=settings)
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))  # type: ignore[assignment]
    refuse_unsupported(trainer)
    settings |= {name: {"type": "auto"} for name in given}
    with pytest.raises(UserError, match=" and ".join(f"`{name}`" for name in given)):
        refuse_unsupported(trainer)


def test_a_schedule_that_has_no_shape_for_thawed_groups_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="--lr_scheduler_type"):
        tiny_trainer(tiny_model("vit"), tmp_path, strategy=PROGRESSIVE, lr_scheduler_type="cosine_with_restarts")
