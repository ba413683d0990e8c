"""Layers computed in one go: which, that features stay the same, and that the network is left as it was."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_transfer import lanes
from hf_transfer.training import prefix_build
from hf_transfer.training.fused_layers import Fusions, find_fusions, fused
from hf_transfer.training.prefix_cut import PrefixCut
from hf_transfer.training.prefix_store import PrefixStore
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_prefix_cut import BUILDABLE, cut_below_head
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


def collected(cut: PrefixCut, pixels: torch.Tensor, fusions: Fusions) -> torch.Tensor:
    """Returns what is kept, computed with some fusions."""
    with fused(cut.model, fusions) as entered, entered():
        [kept] = cut.collect(pixels)
    return kept


def test_a_pair_is_folded_and_features_stay():
    model, pixels = Small(), torch.rand(4, 3, 8, 8)
    cut = cut_of(model)
    conv, norm, weight = model.conv, model.norm, model.conv.weight.clone()
    [before] = cut.collect(pixels)
    fusions = find_fusions(cut, pixels)
    assert fusions == Fusions(norms=(("conv", "norm"),))
    with fused(model, fusions) as entered, entered():
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
    fusions = find_fusions(cut, pixels)
    [before] = cut.collect(pixels)
    torch.testing.assert_close(collected(cut, pixels, fusions), before)
    assert fusions == Fusions()


def test_statistics_of_the_batch_are_not_folded():
    cut = cut_of(Small())
    cut.model.norm.train()
    assert find_fusions(cut, torch.rand(4, 3, 8, 8)) == Fusions()


def test_a_cut_between_the_two_keeps_what_the_norm_is_given():
    cut = cut_of(Small(), ("conv",), ("norm", "head"))
    assert find_fusions(cut, torch.rand(4, 3, 8, 8)) == Fusions()


def test_the_network_comes_back_after_an_error():
    model = WithActivation()
    cut, conv, norm = cut_of(model, ("pad", "conv", "norm", "act")), model.conv, model.norm
    fusions = Fusions(norms=(("conv", "norm"),), activations=("act",), padded=("conv",))
    with pytest.raises(RuntimeError, match="disk full"), fused(cut.model, fusions):
        raise RuntimeError("disk full")
    assert (model.conv, model.norm) == (conv, norm)
    assert not model.act.inplace
    assert "forward" not in vars(conv)


class WithActivation(Small):
    """Zeros around the map, and an activation that is a module."""

    def __init__(self, pad: tuple[int, int, int, int] = (1, 1, 2, 2), value: float = 0.0, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride)
        self.pad = nn.ConstantPad2d(pad, value)
        self.act = nn.ReLU6()

    def features(self, seen):
        return self.act(self.norm(seen))

    def forward(self, pixel_values):
        return super().forward(self.pad(pixel_values))


class PastTheActivation(WithActivation):
    def features(self, seen):
        normed = self.norm(seen)
        return self.act(normed) + normed


class PastThePadding(WithActivation):
    def forward(self, pixel_values):
        padded = self.pad(pixel_values)
        return Small.forward(self, padded + padded.mean())


class PaddedForTwo(WithActivation):
    """What is padded goes into a convolution, and somewhere else."""

    def forward(self, pixel_values):
        padded = self.pad(pixel_values)
        features = self.features(self.conv(padded)) + padded.mean()
        return SimpleNamespace(logits=self.head(features.mean((2, 3))))


WHOLE = ("pad", "conv", "norm", "act")
PAIR = (("conv", "norm"),)


@pytest.mark.parametrize("pad", [(1, 1, 2, 2), (0, 1, 0, 1), (2, 0, 1, 1), (0, 0, 0, 0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_and_activations_go_along(pad: tuple[int, int, int, int], stride: int):
    model, pixels = WithActivation(pad, stride=stride), torch.randn(4, 3, 8, 8)
    cut = cut_of(model, WHOLE)
    [before] = cut.collect(pixels)
    fusions = find_fusions(cut, pixels)
    assert fusions == Fusions(norms=PAIR, activations=("act",), padded=("conv",))
    padded, written = [], []
    pad_maps = torch.constant_pad_nd
    with pytest.MonkeyPatch.context() as patch, fused(model, fusions) as entered, entered():
        patch.setattr(torch, "constant_pad_nd", lambda *given: padded.append(given) or pad_maps(*given))
        model.act.register_forward_hook(lambda module, given, answer: written.append(given[0] is answer))
        [again] = cut.collect(pixels)
    torch.testing.assert_close(again, before)
    assert written == [True]
    # A convolution has as many zeros on the left as on the right.
    assert len(padded) == (pad in ((0, 1, 0, 1), (2, 0, 1, 1)))
    assert not model.act.inplace
    [after] = cut.collect(pixels)
    assert torch.equal(after, before)


@pytest.mark.parametrize("pad", [(0, 1, 0, 1), (1, 3, 2, 2), (0, 0, 1, 2), (2, 0, 1, 1), (1, 1, 2, 0)])
@pytest.mark.parametrize("side", [8, 9])
def test_more_zeros_at_the_end_make_small_kernels_larger(pad: tuple[int, int, int, int], side: int):
    model, pixels = WithActivation(pad), torch.randn(4, 3, side, side)
    model.conv = nn.Conv2d(3, 6, 3, 2, groups=3)
    model.norm, model.head = nn.BatchNorm2d(6), nn.Linear(6, 2)
    cut = cut_of(model, WHOLE)
    [before] = cut.collect(pixels)
    fusions = find_fusions(cut, pixels)
    assert fusions.padded == ("conv",)
    kernels, convolve = [], nn.functional.conv2d
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "conv2d", lambda *given: kernels.append(given[1].shape[2:]) or convolve(*given))
        again = collected(cut, pixels, fusions)
    torch.testing.assert_close(again, before)
    left, right, top, bottom = pad
    wide = (3 + bottom - top, 3 + right - left)
    assert kernels == [wide if min(wide) >= 3 else (3, 3)]


@pytest.mark.parametrize(
    ("model", "fusions"),
    [
        # Where an activation writes, the norm's output is looked at again.
        (PastTheActivation(), Fusions(norms=PAIR)),
        # A map that gets zeros is no convolution's alone.
        (PastThePadding(), Fusions(norms=PAIR, activations=("act",))),
        (PaddedForTwo(), Fusions(norms=PAIR)),
        (WithActivation(value=1.0), Fusions(norms=PAIR, activations=("act",))),
        (WithActivation(pad=(2, 2, -1, 1)), Fusions(norms=PAIR, activations=("act",))),
    ],
    ids=["past the activation", "past the padding", "padded for two", "other than zero", "cropped"],
)
def test_what_cannot_go_along_stays(model: nn.Module, fusions: Fusions):
    pixels = torch.randn(4, 3, 8, 8)
    cut = cut_of(model, WHOLE)
    [before] = cut.collect(pixels)
    assert find_fusions(cut, pixels) == fusions
    torch.testing.assert_close(collected(cut, pixels, fusions), before)


def test_a_convolution_that_pads_itself_is_given_the_zeros():
    model, pixels = WithActivation(), torch.randn(4, 3, 8, 8)
    model.conv = nn.Conv2d(3, 4, 3, padding=1)
    cut = cut_of(model, WHOLE)
    [before] = cut.collect(pixels)
    fusions = find_fusions(cut, pixels)
    assert fusions.padded == ()
    torch.testing.assert_close(collected(cut, pixels, fusions), before)


@pytest.mark.parametrize(
    ("family", "norms", "activations", "pads"),
    [
        ("resnet", True, True, False),
        ("mobilenet_v1", True, True, True),
        ("mobilenet_v2", True, True, True),
        ("vit", False, False, False),
    ],
)
def test_what_is_found_in_a_family(family: str, norms: bool, activations: bool, pads: bool):
    torch.manual_seed(0)
    cut, pixels = cut_below_head(family)
    fusions = find_fusions(cut, pixels)
    assert (bool(fusions.norms), bool(fusions.activations), bool(fusions.padded)) == (norms, activations, pads)


@pytest.mark.parametrize("family", BUILDABLE)
def test_features_of_any_family_stay(family: str):
    torch.manual_seed(0)
    cut, pixels = cut_below_head(family)
    before, state = cut.collect(pixels), {name: value.clone() for name, value in cut.model.state_dict().items()}
    with fused(cut.model, find_fusions(cut, pixels)) as entered, entered():
        again = cut.collect(pixels)
    for part, whole in zip(again, before, strict=True):
        torch.testing.assert_close(part, whole)
    after = cut.model.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(value, after[name]) for name, value in state.items())
    assert all(torch.equal(one, other) for one, other in zip(cut.collect(pixels), before, strict=True))


def norms_in(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def trained(folder: Path, mode: str, **settings) -> nn.Module:
    """Returns a network whose head has learned, on what was kept below it unless `mode` is `off`."""
    model = tiny_model("resnet")
    settings = {"strategy": "feature-extraction", "num_train_epochs": 4, "use_cpu": True} | settings
    cached_trainer(model, folder / mode, "resnet", folder / "cache", mode=mode, **settings).train()
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_fuses_in_float32_alone(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where another order of rounding is of no consequence: weights are those of a run that keeps nothing."""
    calls, written, looked = [], [], []
    forward, write, find = nn.BatchNorm2d.forward, PrefixStore.write, prefix_build.find_fusions

    def counted(norm, given):
        calls.append(norm)
        return forward(norm, given)

    def noting(store, *rows):
        written.append(len(calls))
        write(store, *rows)

    def looking(*args):
        looked.append(find(*args))
        return looked[-1]

    monkeypatch.setattr(lanes, "LANES", 1)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", counted)
    monkeypatch.setattr(PrefixStore, "write", noting)
    monkeypatch.setattr(prefix_build, "find_fusions", looking)
    kept = trained(tmp_path, "auto", bf16=precision == "bfloat16")
    folds = precision == "float32"
    norms_run = {after - before for before, after in itertools.pairwise(written)}
    assert norms_run == {0 if folds else norms_in(kept)}
    assert norms_in(kept) == norms_in(tiny_model("resnet"))
    # Once, for the training and the validation pictures.
    assert len(looked) == folds
    assert_same(weights_of(trained(tmp_path, "off", bf16=precision == "bfloat16")), weights_of(kept))
