"""Peak learning rates: the user's, by kind of network, and measured for the head."""

import pytest
import torch
from torch import nn

from hf_transfer.config import FinetuneConfig
from hf_transfer.models.head_inputs import head_inputs
from hf_transfer.training.arguments import RATE_DEFAULTS
from hf_transfer.training.head_rate import LOGIT_STEP, measured_head_rate
from hf_transfer.training.rates import plan_rates
from tests.training.tiny_sample import tiny_sample

HEAD = ("head.weight", "head.bias")


def config(strategy: str = "full", training: dict | None = None, **settings) -> FinetuneConfig:
    return FinetuneConfig(model="m", dataset="d", strategy=strategy, training=training or {}, **settings)


class TwoFeatures(nn.Module):
    """A head on features whose L1 norm is known."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale
        self.head = nn.Linear(2, 3)

    def forward(self, pixel_values):
        return self.head(self.scale * torch.tensor([[1.0, -3.0]]).expand(len(pixel_values), 2))


@pytest.mark.parametrize("scale", [0.5, 1.0, 40.0])
def test_the_rate_of_a_head_is_the_inverse_of_the_norm_of_its_features(scale):
    rate = measured_head_rate(head_inputs(TwoFeatures(scale), HEAD, [torch.zeros(5, 3, 4, 4)]))
    assert rate == pytest.approx(LOGIT_STEP / (4 * scale), rel=0.05)


def test_one_step_of_adam_moves_a_logit_by_the_promised_amount():
    model = TwoFeatures(7.0)
    pixels = torch.zeros(1, 3, 4, 4)
    rate = measured_head_rate(head_inputs(model, HEAD, [pixels]))
    optimizer = torch.optim.Adam([model.head.weight], lr=rate)
    before = model(pixels)[0, 0].item()
    model(pixels)[0, 0].backward()
    optimizer.step()
    assert before - model(pixels)[0, 0].item() == pytest.approx(LOGIT_STEP, rel=0.05)


def test_features_of_zeros_have_no_rate():
    assert measured_head_rate(head_inputs(TwoFeatures(0.0), HEAD, [torch.zeros(1, 3, 4, 4)])) is None


def test_measuring_changes_neither_model_nor_random_numbers():
    sample = tiny_sample("resnet")
    model = sample.checkpoint.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    rates = plan_rates(config(), sample)
    assert rates.head != RATE_DEFAULTS["head"].value
    assert rates.head_reason.startswith("measured")
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("model_type", "kind"), [("resnet", "backbone with BatchNorm"), ("vit", "backbone")])
def test_the_backbone_follows_the_kind_of_network(model_type, kind):
    assert plan_rates(config(), tiny_sample(model_type)).backbone == RATE_DEFAULTS[kind].value


def test_the_user_wins():
    sample = tiny_sample("vit")
    rates = plan_rates(config(training={"learning_rate": 2e-4}), sample)
    assert (rates.backbone, rates.head) == (2e-4, pytest.approx(2e-3))
    assert plan_rates(config(lr_head=0.5), sample).head == 0.5
    alone = plan_rates(config("feature-extraction", {"learning_rate": 0.02}), sample)
    assert (alone.backbone, alone.head) == (0.02, 0.02)


@pytest.mark.parametrize(("model_type", "kind"), [("resnet", "BatchNorm alone"), ("vit", "other norms alone")])
def test_norms_that_learn_first_have_a_rate_of_their_own(model_type, kind):
    sample = tiny_sample(model_type)
    without = plan_rates(config("feature-extraction"), sample)
    rates = plan_rates(config("feature-extraction", tune_norms="1"), sample)
    assert (rates.backbone, rates.head) == (without.backbone, without.head)
    assert (without.below_head, rates.below_head) == (without.backbone, RATE_DEFAULTS[kind].value)
    given = plan_rates(config("feature-extraction", {"learning_rate": 0.02}, tune_norms="1", lr_backbone=0.5), sample)
    assert (given.head, given.below_head) == (0.02, 0.5)


def test_from_scratch_one_rate_serves_all():
    rates = plan_rates(config("scratch"), tiny_sample("vit"))
    assert rates.backbone == rates.head == RATE_DEFAULTS["scratch"].value
