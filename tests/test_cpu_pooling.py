"""Means over whole pictures: torch's own answers and gradients, laid out as their inputs."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hf_transfer.cpu_pooling import STAND_INS
from hf_transfer.quicker_calls import QuickerCalls
from hf_transfer.training.memory_probe import height_of_step
from tests.torch_calls import torch_calls
from tests.training.test_unfreezing import lively

OTHER_WAY = "_PooledChannels"
MEANS = {
    "pooling to one": lambda maps: F.adaptive_avg_pool2d(maps, 1),
    "pooling to one by one": lambda maps: torch.nn.AdaptiveAvgPool2d((1, 1))(maps),
    "mean": lambda maps: maps.mean((2, 3)),
    "mean, kept": lambda maps: torch.mean(input=maps, dim=[-1, -2], keepdim=True),
}


def feature_maps(layout: torch.memory_format, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    maps = torch.randn(3, 24, 5, 7, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return maps.contiguous(memory_format=layout).requires_grad_()


def takes_the_other_way(mean, maps: torch.Tensor) -> bool:
    with QuickerCalls(STAND_INS):
        return OTHER_WAY in torch_calls(lambda: mean(maps))


@pytest.mark.parametrize("half", [False, True], ids=["as it is", "autocast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_answers_and_gradients_are_torchs_own(mean, dtype: torch.dtype, half: bool):
    maps, layouts = feature_maps(torch.channels_last, dtype), []
    assert takes_the_other_way(mean, maps)
    seen = []
    for stand_ins in ({}, STAND_INS):
        with torch.autocast("cpu", torch.bfloat16, enabled=half), QuickerCalls(stand_ins):
            answer = mean(maps)
        weights = torch.linspace(-1, 1, answer.numel()).reshape(answer.shape).to(answer.dtype)
        (gradient,) = torch.autograd.grad(answer, maps, weights)
        seen.append((answer.detach(), gradient))
        layouts.append(gradient.is_contiguous(memory_format=torch.channels_last))
    (answer, gradient), (other_answer, other_gradient) = seen
    assert torch.equal(other_answer, answer)
    assert (other_answer.dtype, other_answer.stride()) == (answer.dtype, answer.stride())
    assert torch.equal(other_gradient, gradient)
    assert other_gradient.dtype == gradient.dtype
    assert layouts == [False, True]  # or torch has learned it, and this module can go


@pytest.mark.parametrize(
    "mean",
    [
        lambda maps: F.adaptive_avg_pool2d(maps, 2),
        lambda maps: F.adaptive_avg_pool2d(maps, (1, 2)),
        lambda maps: maps.mean(),
        lambda maps: maps.mean(3),
        lambda maps: maps.mean((1, 2)),
        lambda maps: maps.mean((0, 2, 3)),
        lambda maps: maps.mean(()),
        lambda maps: maps.mean((2, 3), dtype=torch.float64),
        lambda maps: maps[0].mean((1, 2)),
    ],
    ids=[
        "to four",
        "to two",
        "of all",
        "of rows",
        "of channels",
        "of pictures too",
        "of nothing named",
        "in double",
        "of one picture",
    ],
)
def test_other_means_go_torchs_way(mean):
    maps = feature_maps(torch.channels_last)
    assert not takes_the_other_way(mean, maps)
    with QuickerCalls(STAND_INS):
        assert torch.equal(mean(maps), mean(maps.detach()))


@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_other_inputs_go_torchs_way(mean):
    assert not takes_the_other_way(mean, feature_maps(torch.contiguous_format))
    assert not takes_the_other_way(mean, feature_maps(torch.channels_last, torch.float64))
    assert not takes_the_other_way(mean, feature_maps(torch.channels_last).detach())
    with torch.no_grad():
        assert not takes_the_other_way(mean, feature_maps(torch.channels_last))


@pytest.mark.parametrize(
    ("family", "half"), [("resnet", False), ("resnet", True), ("mobilenet_v2", False), ("efficientnet", True)]
)
def test_a_network_learns_the_same(family: str, half: bool, tmp_path: Path):
    model, pixels = lively(family, tmp_path)[0].eval(), torch.randn(4, 3, 64, 64)
    model.to(memory_format=torch.channels_last)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    gradients = []
    for stand_ins in ({}, STAND_INS):
        with torch.autocast("cpu", torch.bfloat16, enabled=half), QuickerCalls(stand_ins):
            loss = model(pixel_values=pixels).logits.float().log_softmax(-1)[:, 0].sum()
        calls = torch_calls(loss.backward)
        assert any(OTHER_WAY in call for call in calls) is bool(stand_ins)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        model.zero_grad()
    usual, quick = gradients
    assert usual.norm() > 1e-3
    assert (quick - usual).norm() < (2e-2 if half else 1e-5) * usual.norm()


def test_memory_is_counted_on_tensors_without_contents(tmp_path: Path):
    model = lively("resnet", tmp_path)[0].to(memory_format=torch.channels_last)
    learning = {name for name, _ in model.named_parameters()}
    heights = []
    for stand_ins in ({}, STAND_INS):
        with QuickerCalls(stand_ins):
            heights.append(height_of_step(model, learning, (3, 64, 64), 4, None, torch.channels_last))
    assert heights[1] == pytest.approx(heights[0], rel=0.05)
