"""Depthwise convolutions whose gradients are computed another way: the same answers, and only where it is slow."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hf_transfer.cpu_convolutions import STAND_INS
from hf_transfer.quicker_calls import QuickerCalls
from tests.torch_calls import torch_calls
from tests.training.test_unfreezing import lively

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
OTHER_WAY = "_Depthwise"


def learned(layer: nn.Module, inputs: torch.Tensor, half: bool, quick: bool) -> tuple[torch.Tensor, ...]:
    """Returns a layer's answer, and the gradients of its inputs, weights and bias."""
    inputs, stand_ins = inputs.clone().requires_grad_(), STAND_INS if quick else {}
    with torch.autocast("cpu", torch.bfloat16, enabled=half), QuickerCalls(stand_ins):
        answer = layer(inputs)
    answer.float().square().sum().backward()
    gradients = [parameter.grad for parameter in layer.parameters()]
    layer.zero_grad()
    return answer.detach(), inputs.grad, *gradients


def takes_the_other_way(layer: nn.Module, inputs: torch.Tensor, half: bool) -> bool:
    with torch.autocast("cpu", torch.bfloat16, enabled=half), QuickerCalls(STAND_INS):
        return OTHER_WAY in torch_calls(lambda: layer(inputs))


def depthwise(kernel, stride=1, padding=0, bias=False, channels=24, **more) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=bias, **more)


LAYERS = {
    "wide": (7, 1, 3),
    "wide, strided": (5, 2, 2),
    "four columns": (4, 1, 2),
    "one row": ((1, 9), 1, (0, 4)),
    "strided across": ((5, 7), (1, 3), (0, 2)),
    "valid": (5, 2, "valid"),
    "same": ((3, 5), 1, "same"),
    "wider than its pictures": (31, 1, 15),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels"])
@pytest.mark.parametrize("asked", LAYERS.values(), ids=LAYERS)
def test_answers_and_gradients_are_the_same(asked: tuple, layout: torch.memory_format, half: bool, bias: bool):
    layer = depthwise(*asked, bias=bias)
    inputs = torch.randn(3, 24, 14, 17).contiguous(memory_format=layout)
    assert takes_the_other_way(layer, inputs, half)
    usual, quick = (learned(layer, inputs, half, quick) for quick in (False, True))
    assert torch.equal(quick[0], usual[0])
    assert quick[0].dtype == usual[0].dtype
    exact = learned(layer.double(), inputs.double(), False, False)
    for ours, own, true in zip(quick, usual, exact, strict=True):
        assert ours.dtype == own.dtype
        # The answers themselves are rounded to eight bits in bfloat16.
        error = (own - true).norm() / true.norm()
        assert (ours - true).norm() / true.norm() < 1.2 * error + (1e-3 if half else 1e-6)


@pytest.mark.parametrize(("half", "goes"), [(True, True), (False, False)])
def test_a_stride_is_slow_in_bfloat16_alone(half: bool, goes: bool):
    layer, inputs = depthwise(3, 2, 1), torch.randn(3, 24, 14, 17)
    assert takes_the_other_way(layer, inputs, half) is goes
    usual, quick = (learned(layer, inputs, half, quick) for quick in (False, True))
    assert torch.equal(quick[0], usual[0])
    torch.testing.assert_close(quick[1], usual[1], rtol=2e-2, atol=1e-2 * float(usual[1].abs().max()))
    torch.testing.assert_close(quick[2], usual[2])


@pytest.mark.parametrize(
    "layer",
    [
        depthwise(3, 1, 1),
        depthwise((7, 4), 1, "same"),
        depthwise(5, 2, 2, dilation=2),
        nn.Conv2d(24, 24, 7, 2, groups=12),
        nn.Conv2d(24, 48, 7, 2, groups=24),
        nn.Conv2d(24, 24, 7, 2),
    ],
    ids=["narrow", "other sides", "dilated", "groups", "more channels", "all channels"],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_others_go_torchs_way(layer: nn.Conv2d):
    assert not takes_the_other_way(layer, torch.randn(2, 24, 20, 20), True)


def test_one_channel_is_no_depthwise_convolution():
    assert not takes_the_other_way(nn.Conv2d(1, 1, 7, 2), torch.randn(2, 1, 20, 20), True)


def test_precisions_that_were_not_measured_go_torchs_way():
    inputs = torch.randn(2, 24, 20, 20)
    assert not takes_the_other_way(depthwise(7, 2).double(), inputs.double(), False)
    with torch.autocast("cpu", torch.float16), QuickerCalls(STAND_INS):
        assert OTHER_WAY not in torch_calls(lambda: depthwise(7, 2)(inputs))


def test_nothing_is_another_way_where_nothing_learns():
    layer, inputs = depthwise(7, 2), torch.randn(2, 24, 20, 20)
    with torch.no_grad():
        assert not takes_the_other_way(layer, inputs, True)
    assert not takes_the_other_way(layer.requires_grad_(False), inputs, True)


@pytest.mark.parametrize(("inputs_learn", "weights_learn"), [(True, False), (False, True)])
def test_gradients_that_nobody_asked_for_are_not_computed(inputs_learn: bool, weights_learn: bool):
    layer = depthwise(7, 2, 3).requires_grad_(weights_learn)
    inputs = torch.randn(2, 24, 20, 20, requires_grad=inputs_learn)
    with torch.autocast("cpu", torch.bfloat16), QuickerCalls(STAND_INS):
        answer = layer(inputs)
    held = [tensor for tensor in answer.grad_fn.saved_tensors if tensor.device.type == "cpu"]
    assert sum(tensor.numel() for tensor in held) == layer.weight.numel() + inputs.numel() * weights_learn
    calls = torch_calls(answer.float().sum().backward)
    assert ("aten::constant_pad_nd" in calls) is weights_learn
    assert (inputs.grad is not None, layer.weight.grad is not None) == (inputs_learn, weights_learn)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("family", "goes"), [("convnext", {False, True}), ("efficientnet", {True}), ("mobilenet_v2", {True})]
)
def test_a_network_learns_the_same(family: str, goes: set[bool], half: bool, tmp_path: Path):
    """ConvNeXt has wide kernels; the others have strides, which matter in bfloat16."""
    model, pixels = lively(family, tmp_path)[0].eval(), torch.randn(4, 3, 32, 32)
    gradients = []
    for stand_ins in ({}, STAND_INS):
        with torch.autocast("cpu", torch.bfloat16, enabled=half), QuickerCalls(stand_ins):
            loss = model(pixel_values=pixels).logits.float().log_softmax(-1)[:, 0].sum()
        calls = torch_calls(loss.backward)
        assert any(OTHER_WAY in call for call in calls) is (bool(stand_ins) and half in goes)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        model.zero_grad()
    usual, quick = gradients
    assert usual.norm() > 1e-3
    assert (quick - usual).norm() < (2e-2 if half else 1e-5) * usual.norm()


def test_what_is_called_by_name_is_understood():
    layer, pictures = depthwise(7, 2), torch.randn(2, 24, 20, 20)
    with QuickerCalls(STAND_INS):
        named = torch.nn.functional.conv2d(input=pictures, weight=layer.weight, stride=2, groups=24)
    assert "_Depthwise" in str(named.grad_fn)
    assert torch.equal(named, layer(pictures))
