"""BatchNorm folded into convolutions: which, that features stay the same, and that the network is left as it was."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_transfer.models.layer_groups import layer_groups
from hf_transfer.training import prefix_build
from hf_transfer.training.folded_norms import foldable_norms, folded_norms
from hf_transfer.training.prefix_cut import PrefixCut
from hf_transfer.training.prefix_search import cut_at
from hf_transfer.training.prefix_store import PrefixStore
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_model


class Small(nn.Module):
    """A convolution, BatchNorm and a head; what else is done with the convolution's output is for others to say."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        for tensor in (self.norm.running_mean, self.norm.weight, self.norm.bias):
            nn.init.normal_(tensor)

    def features(self, seen: torch.Tensor) -> torch.Tensor:
        return self.norm(seen).relu_()

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.features(self.conv(pixel_values)).mean((2, 3))))


class PastTheNorm(Small):
    def features(self, seen):
        return self.norm(seen) + seen


class Twice(Small):
    def features(self, seen):
        return self.norm(self.norm(seen))


class ChangedBetween(Small):
    def features(self, seen):
        return self.norm(seen.mul_(2))


def cut_of(model: nn.Module, below: tuple[str, ...] = ("conv", "norm"), above: tuple[str, ...] = ("head",)):
    cut = PrefixCut(model.requires_grad_(False).eval(), below, above)
    model.get_submodule(above[0]).requires_grad_(True)
    cut.probe(torch.rand(3, 3, 8, 8))
    return cut


def test_a_pair_is_folded_and_features_stay():
    model, pixels = Small(), torch.rand(4, 3, 8, 8)
    cut = cut_of(model)
    conv, norm, weight = model.conv, model.norm, model.conv.weight.clone()
    [before] = cut.collect(pixels)
    pairs = foldable_norms(cut, pixels)
    assert pairs == (("conv", "norm"),)
    with folded_norms(model, pairs):
        assert isinstance(model.norm, nn.Identity)
        [folded] = cut.collect(pixels)
    torch.testing.assert_close(folded, before)
    assert not torch.equal(folded, torch.zeros_like(folded))
    assert model.conv is conv
    assert model.norm is norm
    assert torch.equal(conv.weight, weight)
    assert list(dict(model.named_children())) == ["conv", "norm", "head"]


@pytest.mark.parametrize("kind", [PastTheNorm, Twice, ChangedBetween])
def test_what_is_used_otherwise_is_left_alone(kind: type[Small]):
    model, pixels = kind(), torch.rand(4, 3, 8, 8)
    cut = cut_of(model)
    pairs = foldable_norms(cut, pixels)
    [before] = cut.collect(pixels)
    with folded_norms(model, pairs):
        torch.testing.assert_close(cut.collect(pixels)[0], before)
    assert pairs == ()


def test_statistics_of_the_batch_are_not_folded():
    cut = cut_of(Small())
    cut.model.norm.train()
    assert foldable_norms(cut, torch.rand(4, 3, 8, 8)) == ()


def test_a_cut_between_the_two_keeps_what_the_norm_is_given():
    cut = cut_of(Small(), ("conv",), ("norm", "head"))
    assert foldable_norms(cut, torch.rand(4, 3, 8, 8)) == ()


def test_the_network_comes_back_after_an_error():
    model = Small()
    cut, conv, norm = cut_of(model), model.conv, model.norm
    with pytest.raises(RuntimeError, match="disk full"), folded_norms(cut.model, (("conv", "norm"),)):
        raise RuntimeError("disk full")
    assert (model.conv, model.norm) == (conv, norm)


@pytest.mark.parametrize(("family", "folds"), [("resnet", True), ("mobilenet_v1", True), ("vit", False)])
def test_families(family: str, folds: bool):
    model = tiny_model(family).eval().requires_grad_(False)
    groups = layer_groups(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in groups[-1].parameter_names)
    pixels = torch.rand(4, 3, 32, 32)
    cut = cut_at(model, groups, len(groups) - 1)
    cut.probe(pixels[:3])
    pairs = foldable_norms(cut, pixels)
    assert bool(pairs) is folds
    before = cut.collect(pixels)
    with folded_norms(model, pairs):
        for part, whole in zip(cut.collect(pixels), before, strict=True):
            torch.testing.assert_close(part, whole)


def norms_in(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def trained(folder: Path, mode: str, **settings) -> nn.Module:
    """Returns a network whose head has learned, on what was kept below it unless `mode` is `off`."""
    model = tiny_model("resnet")
    settings = {"strategy": "feature-extraction", "num_train_epochs": 4, "use_cpu": True} | settings
    cached_trainer(model, folder / mode, "resnet", folder / "cache", mode=mode, **settings).train()
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_folds_in_float32_alone(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where another order of rounding is of no consequence: weights are those of a run that keeps nothing."""
    calls, written, looked = [], [], []
    forward, write, find = nn.BatchNorm2d.forward, PrefixStore.write, prefix_build.foldable_norms

    def counted(norm, given):
        calls.append(norm)
        return forward(norm, given)

    def noting(store, *rows):
        written.append(len(calls))
        write(store, *rows)

    def looking(*args):
        looked.append(find(*args))
        return looked[-1]

    monkeypatch.setattr(nn.BatchNorm2d, "forward", counted)
    monkeypatch.setattr(PrefixStore, "write", noting)
    monkeypatch.setattr(prefix_build, "foldable_norms", looking)
    kept = trained(tmp_path, "auto", bf16=precision == "bfloat16")
    folds = precision == "float32"
    norms_run = {after - before for before, after in itertools.pairwise(written)}
    assert norms_run == {0 if folds else norms_in(kept)}
    assert norms_in(kept) == norms_in(tiny_model("resnet"))
    # Once, for the training and the validation pictures.
    assert len(looked) == folds
    assert_same(weights_of(trained(tmp_path, "off", bf16=precision == "bfloat16")), weights_of(kept))
