"""Scales and shifts of normalisation layers, by name."""

import pytest
from torch import nn

from hf_transfer.models.norms import norm_parameters
from tests.models.families import FAMILIES, build_tiny_model

TORCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_those_of_torchs_norms(family: str):
    model = build_tiny_model(family)
    found = set(norm_parameters(model))
    of_torch = {
        f"{place}.{name}"
        for place, module in model.named_modules()
        if isinstance(module, TORCH_NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
    # ImageGPT has a norm of its own.
    expected = of_torch or {name for name, _ in model.named_parameters() if ".ln_" in name}
    assert expected
    assert found == expected


class RootMeanSquareNorm(nn.Module):
    """A norm of a library's own, which holds a layer of another kind and a matrix."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(nn.init.ones_(nn.Linear(4, 1).weight.detach()[0]))
        self.mixing = nn.Parameter(nn.Linear(4, 4).weight.detach())
        self.inner = nn.Linear(4, 4)


def test_a_norm_of_ones_own_is_known_by_its_class_and_holds_vectors():
    model = nn.Sequential(nn.Linear(4, 4), RootMeanSquareNorm())
    assert norm_parameters(model) == ("1.weight",)
    assert norm_parameters(RootMeanSquareNorm()) == ("weight",)
    assert norm_parameters(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4, elementwise_affine=False))) == ()
