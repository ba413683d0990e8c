"""Which head solver `--head_solver auto` means: the solution where it can be had, steps with a reason elsewhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.transforms import AugmentationSettings, resolve_augmentation
from hf_transfer.errors import UserError
from hf_transfer.models.head import find_head
from hf_transfer.training import head_choice
from hf_transfer.training.head_choice import HeadChoice, choose_head_solver
from tests.training.tiny_run import tiny_model, tiny_trainer

PLAIN = resolve_augmentation("light", None, None, None, None)
MIXED = resolve_augmentation("light", None, None, 0.2, None)


def chosen(
    folder: Path,
    strategy: str,
    solver: str = "auto",
    family: str = "vit",
    augmentation: AugmentationSettings = PLAIN,
    counts: tuple[int, ...] = (7, 7, 6),
    **options: Any,
) -> HeadChoice | None:
    model = tiny_model(family)
    arguments = options.pop("arguments", {})
    trainer = tiny_trainer(model, folder, family, strategy=strategy, **arguments)
    config = FinetuneConfig(
        model="m", dataset="d", strategy=strategy, head_solver=solver, training=arguments, **options
    )
    data: Any = SimpleNamespace(class_counts=lambda split: counts, train=range(sum(counts)))
    checkpoint: Any = SimpleNamespace(head_parameter_names=find_head(model))
    return choose_head_solver(config, data, checkpoint, augmentation, trainer, config.cache_views or 2)


@pytest.fixture
def solved_by_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(head_choice, "SOLVER_OF_FEATURE_EXTRACTION", "lbfgs")


@pytest.mark.parametrize("strategy", ["feature-extraction", "lp-ft"])
@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_a_linear_head_is_solved(family: str, strategy: str, tmp_path: Path, solved_by_default):
    choice = chosen(tmp_path, strategy, family=family)
    assert choice is not None
    assert (choice.solver, choice.asked) == ("lbfgs", False)


def test_feature_extraction_follows_the_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(head_choice, "SOLVER_OF_FEATURE_EXTRACTION", "sgd")
    choice = chosen(tmp_path, "feature-extraction")
    assert choice is not None
    assert choice.solver == "sgd"


@pytest.mark.parametrize("strategy", ["partial", "progressive", "full", "scratch"])
def test_other_strategies_have_no_choice(strategy: str, tmp_path: Path):
    assert chosen(tmp_path, strategy) is None
    with pytest.raises(UserError, match="trains more than the head"):
        chosen(tmp_path, strategy, "lbfgs")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"strategy": "lp-ft", "probe": "1"}, "--probe asks for steps"),
        ({"strategy": "lp-ft", "cache": "off"}, "--cache off"),
        ({"strategy": "lp-ft", "keep_head": True}, "--keep_head"),
        ({"strategy": "lp-ft", "family": "swiftformer"}, "not a single linear layer"),
        ({"strategy": "lp-ft", "counts": (10, 10, 0)}, "a class without a training picture"),
        ({"strategy": "lp-ft", "counts": (10**8, 1, 1)}, "of features are many"),
        ({"strategy": "feature-extraction", "cache": "off"}, "--cache off"),
        ({"strategy": "feature-extraction", "augmentation": MIXED}, "mix the pixels"),
        ({"strategy": "feature-extraction", "ema": 0.9}, "--ema"),
        ({"strategy": "feature-extraction", "arguments": {"label_smoothing_factor": 0.1}}, "--label_smoothing_factor"),
        ({"strategy": "feature-extraction", "arguments": {"num_train_epochs": 3}}, "--num_train_epochs"),
        ({"strategy": "feature-extraction", "family": "swiftformer"}, "not a single linear layer"),
    ],
)
def test_steps_where_it_cannot_be_had(options: dict[str, Any], reason: str, tmp_path: Path, solved_by_default):
    choice = chosen(tmp_path, **options)
    assert choice is not None
    assert choice.solver == "sgd"
    assert reason in choice.reason


def test_several_machines_share_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    choice = chosen(tmp_path, "lp-ft")
    assert choice is not None
    assert choice.reason == "several machines do not share a disk"


@pytest.mark.parametrize(
    "options",
    [{"augmentation": MIXED}, {"ema": 0.9}, {"arguments": {"label_smoothing_factor": 0.1, "num_train_epochs": 3}}],
)
def test_what_hinders_no_lp_ft(options: dict[str, Any], tmp_path: Path):
    choice = chosen(tmp_path, "lp-ft", **options)
    assert choice is not None
    assert choice.solver == "lbfgs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "swiftformer"}, "not a single linear layer"),
        ({"probe": "1"}, "--head_solver lbfgs and --probe exclude each other"),
        ({"cache": "off"}, "--head_solver lbfgs and --cache off exclude each other"),
        ({"counts": (10, 10, 0)}, "a class without a training picture"),
    ],
)
def test_what_was_asked_for_by_name_is_refused(options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        chosen(tmp_path, "lp-ft", "lbfgs", **options)


def test_every_view_counts_towards_what_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solved_by_default
):
    width = tiny_model("vit").classifier.in_features
    monkeypatch.setattr(head_choice, "_LARGEST", 4 * width * 20)
    one, two = (chosen(tmp_path, "feature-extraction", cache_views=views) for views in (1, 2))
    assert one is not None
    assert two is not None
    assert (one.solver, two.solver) == ("lbfgs", "sgd")
    assert "of features are many" in two.reason
