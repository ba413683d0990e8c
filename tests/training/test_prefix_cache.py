"""Trained on what was kept: the same weights, whatever the family, the strategy and the views."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._C import _len_torch_function_stack

from hf_transfer import cpu_products
from hf_transfer.data.visits import VisitedImages
from hf_transfer.training.prefix_cut import Inlet
from hf_transfer.training.prefix_store import PrefixStore, make_files, partial_folder
from hf_transfer.training.strategies import Unfreezing
from tests.torch_calls import torch_calls
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_prefix_cut import BUILDABLE
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_model

MORE_FAMILIES = ("vit", "convnext", "resnet", "swin", "efficientnet", "dinov2")
QUICK = ("vit", "resnet", "efficientnet", "swiftformer")


def slow_but(families, quick=QUICK):
    """Returns families as parameters, all but a few for the slow run."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in families]


STRATEGIES = {
    "partial": Unfreezing(strategy="partial"),
    "progressive": Unfreezing(strategy="progressive", unfreeze_at=[3]),
    "lp-ft": Unfreezing(strategy="lp-ft", probe=3),
}


def trained(family: str, folder: Path, mode: str = "auto", **settings):
    """Returns the weights of a training and what the cache said of its phases."""
    model = tiny_model(family)
    settings = {"strategy": "feature-extraction", "num_train_epochs": 4} | settings
    trainer = cached_trainer(model, folder / mode, family, folder / "cache", mode=mode, **settings)
    trainer.train()
    assert trainer.prefix is not None
    return weights_of(model), trainer.prefix.facts


@pytest.mark.parametrize("family", slow_but(BUILDABLE))
def test_the_head_learns_the_same(family: str, tmp_path: Path):
    plain, facts = trained(family, tmp_path, "off", views=1)
    assert not any(fact["cached"] for fact in facts)
    kept, facts = trained(family, tmp_path, views=1)
    assert [fact["cached"] for fact in facts] == [True], facts
    assert_same(plain, kept)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", slow_but(MORE_FAMILIES, ("vit", "resnet")))
def test_every_strategy_learns_the_same(family: str, strategy: str, tmp_path: Path):
    settings = {"strategy": STRATEGIES[strategy], "num_train_epochs": 6, "eval_strategy": "epoch"}
    plain, _ = trained(family, tmp_path, "off", **settings)
    kept, facts = trained(family, tmp_path, **settings)
    assert facts[0]["cached"]
    if strategy != "partial":
        assert len(facts) == 2
        assert_same({name: plain[name] for name in plain}, kept)
    assert_same(plain, kept)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_quicker_calls_learn_the_same(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a processor where products go another way (`hf_transfer.cpu_products`), kept and not kept alike."""
    monkeypatch.setattr(cpu_products, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(cpu_products, "LEAST_PRODUCTS", 0)
    settings = {"strategy": STRATEGIES["partial"], "bf16": precision == "bfloat16", "use_cpu": True}
    found = {}
    for mode in ("off", "auto"):
        used = torch_calls(lambda mode=mode: found.update({mode: trained("vit", tmp_path, mode, **settings)}))
        assert found[mode][1][0]["cached"] is (mode == "auto")
        assert ("aten::_softmax" if precision == "bfloat16" else "aten::mkldnn_linear") in used
    assert_same(found["off"][0], found["auto"][0])


def test_calls_are_looked_at_only_while_the_network_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Drawing a picture makes tens of calls, and none of them is slow."""
    shown, drawn = VisitedImages.shown, []

    def noting(visited: VisitedImages, *words) -> dict:
        drawn.append(_len_torch_function_stack())
        return shown(visited, *words)

    monkeypatch.setattr(VisitedImages, "shown", noting)
    _, facts = trained("resnet", tmp_path)
    assert facts[0]["cached"]
    assert drawn
    assert not any(drawn)


def test_feature_maps_lie_in_files_as_in_training(tmp_path: Path):
    """What is read is laid out as the layers want it, and need not be copied once more."""
    inlet = Inlet("layer", 0, 0, (3, 4, 5), torch.float32)
    maps = torch.arange(7 * 60.0).view(7, 3, 4, 5)
    files = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        folder = tmp_path / str(layout)
        make_files(folder, (inlet,), 7)
        PrefixStore(partial_folder(folder), (inlet,), 7, layout, writable=True).write(torch.arange(7), [maps])
        (read,) = PrefixStore(partial_folder(folder), (inlet,), 7, layout).read(torch.tensor([6, 0, 2]), maps.device)
        assert torch.equal(read, maps[[6, 0, 2]])
        assert read.is_contiguous(memory_format=layout)
        files[layout] = (partial_folder(folder) / "inlet_0.bin").read_bytes()
    assert files[torch.contiguous_format] == maps.numpy().tobytes()
    assert files[torch.channels_last] == maps.permute(0, 2, 3, 1).numpy().tobytes()


def test_views_repeat_and_as_many_views_as_epochs_are_no_views(tmp_path: Path):
    """A picture in epoch 2 of two views looks as it did in epoch 0; a view for each epoch is as without a limit."""
    two, facts = trained("vit", tmp_path, num_train_epochs=4)
    assert (facts[0]["cached"], facts[0]["views"]) == (True, 2)
    one, _ = trained("vit", tmp_path, views=1, num_train_epochs=4)
    assert any(not torch.allclose(two[name], one[name], atol=1e-6) for name in two)
    many, facts = trained("vit", tmp_path, views=4, num_train_epochs=4)
    assert "see none of 4 views again" in facts[0]["reason"]
    forced, facts = trained("vit", tmp_path, "on", views=4, num_train_epochs=4)
    assert facts[0]["cached"]
    assert_same(many, forced)


def test_a_second_run_finds_what_the_first_one_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, _ = trained("vit", tmp_path)
    monkeypatch.setattr(
        "hf_transfer.training.prefix_build.PrefixBuilder._fill", lambda *args: pytest.fail("computed a second time")
    )
    second, facts = trained("vit", tmp_path)
    assert facts[0]["cached"]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_weights_below_are_not_mistaken(tmp_path: Path):
    trained("vit", tmp_path)
    model = tiny_model("vit", seed=1)
    trainer = cached_trainer(
        model, tmp_path / "other", "vit", tmp_path / "cache", strategy="feature-extraction", num_train_epochs=4
    )
    trainer.train()
    assert len(list((tmp_path / "cache").glob("train-*.lock"))) == 2


def test_nothing_is_left_where_the_user_wants_nothing_kept(tmp_path: Path):
    trained("vit", tmp_path, keep=False)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_random_numbers_of_the_training_do_not_depend_on_the_cache(tmp_path: Path):
    """Dropout above the cut draws the same numbers with a cache, without one, and with one that was there already."""
    settings = {"views": 2, "num_train_epochs": 4}
    weights = []
    for mode in ("off", "auto", "auto"):
        model = tiny_model("efficientnet")
        model.dropout.p = 0.5
        trainer = cached_trainer(
            model,
            tmp_path / mode,
            "efficientnet",
            tmp_path / "cache",
            mode=mode,
            strategy="feature-extraction",
            **settings,
        )
        trainer.train()
        weights.append(weights_of(model))
    assert_same(weights[0], weights[1])
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])


def test_continued_within_a_kept_phase_is_uninterrupted(tmp_path: Path):
    settings = {"strategy": "feature-extraction", "num_train_epochs": 4, "save_strategy": "steps", "save_steps": 3}
    whole, _ = trained("vit", tmp_path, **settings)
    model = tiny_model("vit")
    trainer = cached_trainer(model, tmp_path / "continued", "vit", tmp_path / "cache", **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "auto" / "checkpoint-6"))
    assert trainer.prefix is not None
    assert trainer.prefix.facts[0]["cached"]
    continued = weights_of(model)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_after_the_training_pixels_are_looked_at_again(tmp_path: Path):
    model = tiny_model("vit")
    trainer = cached_trainer(
        model, tmp_path / "run", "vit", tmp_path / "cache", strategy="feature-extraction", num_train_epochs=4
    )
    trainer.train()
    before = trainer.predict(trainer.eval_dataset).predictions
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    after = trainer.predict(trainer.eval_dataset).predictions
    assert not np.allclose(before, after)
