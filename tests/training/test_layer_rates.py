"""A rate for every parameter."""

import pytest

from hf_transfer.errors import UserError
from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.training.layer_rates import parameter_rates
from hf_transfer.training.rates import LearningRates

GROUPS = (
    LayerGroup("embeddings", ("patch.weight", "position"), ()),
    LayerGroup("layers.0", ("layers.0.weight", "layers.0.bias"), ()),
    LayerGroup("layers.1", ("layers.1.weight", "layers.1.bias"), ()),
    LayerGroup("head", ("head.weight",), ()),
)
RATES = LearningRates(1e-3, 5e-2, "", "")


def test_without_wishes_the_backbone_has_one_rate():
    rates = parameter_rates(GROUPS, RATES)
    assert rates.pop("head.weight") == 5e-2
    assert set(rates.values()) == {1e-3}
    assert len(rates) == 6


def test_layer_decay_counts_down_from_the_last_group_of_the_backbone():
    rates = parameter_rates(GROUPS, RATES, layer_decay=0.5)
    assert rates["head.weight"] == 5e-2
    assert rates["layers.1.bias"] == 1e-3
    assert rates["layers.0.weight"] == pytest.approx(5e-4)
    assert rates["position"] == rates["patch.weight"] == pytest.approx(2.5e-4)


def test_patterns_name_groups_or_parameters_and_the_last_wins():
    rates = parameter_rates(GROUPS, RATES, patterns=["layers.*=1e-5", "layers.1=0.5", "*.bias=0", "layers.0.weight=7"])
    assert rates["layers.0.weight"] == 7
    assert rates["layers.1.weight"] == 0.5
    assert rates["layers.0.bias"] == rates["layers.1.bias"] == 0
    assert rates["position"] == 1e-3


@pytest.mark.parametrize(
    ("wishes", "message", "hint"),
    [
        ({"patterns": ["layer.1=1e-4"]}, "no group and no parameter is called 'layer.1'", "layers.1=1e-4"),
        ({"patterns": ["layers.1"]}, "--lr_groups layers.1", "embeddings=1e-6"),
        ({"patterns": ["layers.1=fast"]}, "--lr_groups layers.1=fast", "embeddings=1e-6"),
        ({"patterns": ["layers.1=-1"]}, "--lr_groups layers.1=-1", "embeddings=1e-6"),
    ],
)
def test_wishes_that_cannot_be(wishes: dict, message: str, hint: str):
    with pytest.raises(UserError, match=message) as error:
        parameter_rates(GROUPS, RATES, **wishes)
    assert hint in (error.value.hint or "")
