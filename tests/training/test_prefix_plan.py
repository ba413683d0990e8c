"""Which frozen layers are computed once: the plan, what it is based on, and that it moves no weight."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from hf_transfer.models.layer_groups import layer_groups
from hf_transfer.training.prefix_cost import measure_costs
from hf_transfer.training.prefix_plan import Costs, Looks, Phase, Stretch, frozen_phases, plan_stretches
from hf_transfer.training.strategies import Unfreezing
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_model

LOOKS = Looks(train_images=100, validation_images=20, steps_per_epoch=10, steps_per_evaluation=10, views=2)
COSTS = Costs(pixels=0.001, below=(0.0, 0.01, 0.02, 0.03, 0.04))


def test_a_cut_costs_a_pass_for_each_row_and_saves_one_for_each_visit():
    (stretch,) = plan_stretches([Phase(0, 50, 4)], LOOKS, COSTS)
    assert (stretch.start, stretch.end, stretch.boundary) == (0, 50, 4)
    assert stretch.build_seconds == pytest.approx((2 * 100 + 20) * 0.041)
    assert stretch.saved_seconds == pytest.approx((5 * 100 + 5 * 20) * 0.041)
    assert stretch.gain == pytest.approx((600 - 220) * 0.041)


def test_what_is_not_seen_again_is_not_kept_unless_it_has_to_be():
    once = [Phase(0, 10, 4)]
    assert plan_stretches(once, LOOKS, COSTS) == [Stretch(0, 10, None)]
    assert plan_stretches(once, LOOKS, COSTS, everywhere=True)[0].boundary == 4


def test_validation_pictures_count_as_often_as_they_are_looked_at():
    never = Looks(100, 20, steps_per_epoch=10, steps_per_evaluation=math.inf, views=2)
    assert never.visits(30) == 300
    assert LOOKS.visits(30) == 360


def test_short_phases_share_a_cut_and_long_ones_have_their_own():
    short = [Phase(0, 10, 4), Phase(10, 20, 3), Phase(20, 60, 2)]
    assert [(s.start, s.end, s.boundary) for s in plan_stretches(short, LOOKS, COSTS)] == [(0, 60, 2)]
    long = [Phase(0, 1000, 4), Phase(1000, 2000, 1)]
    assert [s.boundary for s in plan_stretches(long, LOOKS, COSTS)] == [4, 1]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_sequence_of_stretches_saves_more(seed: int):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 60, (5,), generator=generator).tolist()
    edges = [0, *itertools.accumulate(lengths)]
    phases = [Phase(edges[number], edges[number + 1], 5 - number) for number in range(5)]
    below = (0.0, *torch.rand(5, generator=generator).cumsum(0).tolist())
    costs = Costs(0.01, below)
    best = 0.0
    for cuts in itertools.product((False, True), repeat=4):
        bounds = [0, *(number + 1 for number, cut in enumerate(cuts) if cut), 5]
        gain = 0.0
        for first, last in itertools.pairwise(bounds):
            each = costs.of(phases[last - 1].lowest_open)
            looks = LOOKS.visits(phases[last - 1].end - phases[first].start) - LOOKS.rows
            gain += max(0.0, looks * each)
        best = max(best, gain)
    plan = plan_stretches(phases, LOOKS, costs)
    assert sum(stretch.gain for stretch in plan) == pytest.approx(best)
    assert [(a.end, b.start) for a, b in itertools.pairwise(plan)] == [(s.end, s.end) for s in plan[:-1]]
    assert (plan[0].start, plan[-1].end) == (0, edges[-1])


def test_a_stretch_serves_what_is_frozen_in_it():
    stretch = Stretch(0, 30, 3)
    assert stretch.serves(Phase(10, 30, 3))
    assert not stretch.serves(Phase(10, 31, 3))
    assert not stretch.serves(Phase(10, 30, 2))
    assert Stretch(0, 30, None).serves(Phase(0, 10, 2))
    assert stretch.until(10) == Stretch(0, 10, 3)


def test_frozen_phases_end_where_everything_learns():
    phases = [Phase(0, 10, 2), Phase(10, 20, 1), Phase(20, 30, 0)]
    assert frozen_phases(phases, 3) == tuple(phases[:2])
    assert frozen_phases([Phase(0, 10, 3)], 3) == ()


def test_seconds_are_read_where_a_group_begins():
    """A clock that moves on by one second at each look tells how many groups lie below."""
    model = tiny_model("vit").train()
    groups = layer_groups(model, "block")
    ticks = itertools.count()
    pixel_values = torch.zeros(2, 3, 32, 32)
    modes = [module.training for module in model.modules()]
    costs = measure_costs(model, groups, lambda: pixel_values, hands=2, clock=lambda: float(next(ticks)))
    # Of a pass: its start, then one look for each group, in their order; half of a second for each of two pictures.
    assert costs.below == tuple((number + 1) / 2 if number else 0.0 for number in range(len(groups)))
    assert costs.pixels == pytest.approx(1 / 2 / 2)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())


def thawing(folder: Path, mode: str, **settings):
    model = tiny_model("vit")
    trainer = cached_trainer(
        model,
        folder / mode,
        "vit",
        folder / "cache",
        mode=mode,
        strategy=Unfreezing(strategy="progressive", unfreeze_at=[1, 2]),
        num_train_epochs=6,
        eval_strategy="epoch",
        **settings,
    )
    return model, trainer


def test_phases_that_share_a_cut_learn_what_they_would_without(tmp_path: Path):
    plain, trainer = thawing(tmp_path, "off")
    trainer.train()
    kept, trainer = thawing(tmp_path, "auto")
    trainer.train()
    facts = trainer.prefix.facts
    assert [fact["cached"] for fact in facts] == [True, True, True]
    # Phases of one epoch pay for no cut of their own, whatever this machine's seconds are.
    assert len({tuple(fact["enters"]) for fact in facts}) == 1
    assert len(trainer.choices["prefix_plan"]) == 1
    assert_same(weights_of(plain), weights_of(kept))


def test_each_phase_has_a_cut_of_its_own_where_that_saves_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dear_at_the_top = Costs(0.0, (0.0, 1e-9, 1e-8, 1e-7, 1.0))
    monkeypatch.setattr("hf_transfer.training.prefix_build.PrefixBuilder.measured_costs", lambda self: dear_at_the_top)
    model, trainer = thawing(tmp_path, "auto")
    assert len(trainer.groups) <= len(dear_at_the_top.below)
    trainer.unfreezing.unfreezing = Unfreezing(strategy="progressive", unfreeze_at=[3, 5])
    trainer.train()
    assert len({tuple(fact["enters"]) for fact in trainer.prefix.facts if fact["cached"]}) > 1
    plain, trainer = thawing(tmp_path, "off")
    trainer.unfreezing.unfreezing = Unfreezing(strategy="progressive", unfreeze_at=[3, 5])
    trainer.train()
    assert_same(weights_of(plain), weights_of(model))


def test_a_continued_run_keeps_the_plan_and_ends_bit_for_bit_the_same(tmp_path: Path, monkeypatch):
    saving = {"save_strategy": "epoch"}
    whole, trainer = thawing(tmp_path, "auto", **saving)
    trainer.train()
    plan = trainer.choices["prefix_plan"]
    monkeypatch.setattr(
        "hf_transfer.training.prefix_build.PrefixBuilder.measured_costs", lambda self: pytest.fail("measured anew")
    )
    model, trainer = thawing(tmp_path / "continued", "auto", **saving)
    trainer.prefix.settings.folder.mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=str(tmp_path / "auto" / "checkpoint-10"))
    assert trainer.choices["prefix_plan"] == plan
    expected, found = weights_of(whole), weights_of(model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_thaw_at_a_plateau_plans_what_is_left(tmp_path: Path):
    strategy = Unfreezing(strategy="progressive", unfreeze_on_plateau=1, train_last=1)
    weights = []
    for mode in ("off", "auto"):
        model = tiny_model("vit")
        trainer = cached_trainer(
            model,
            tmp_path / mode,
            "vit",
            tmp_path / "cache",
            mode=mode,
            strategy=strategy,
            num_train_epochs=8,
            eval_strategy="epoch",
            learning_rate=1e-9,
        )
        trainer.train()
        weights.append(weights_of(model))
    assert_same(*weights)
    plan = trainer.choices["prefix_plan"]
    assert [(stretch["start"], stretch["boundary"]) for stretch in plan] == [(0, 3), (10, 2)]
    assert all(fact["cached"] for fact in trainer.prefix.facts)
