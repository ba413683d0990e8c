"""Products that go another way on processors where torch's own is slow: the same answers, and only where it may be."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_transfer import cpu_products
from hf_transfer.cpu_products import STAND_INS, mkl_is_slow
from hf_transfer.evaluation.evaluator import predict_logits
from hf_transfer.quicker_calls import QuickerCalls
from hf_transfer.training.memory_probe import height_of_evaluation, height_of_step
from tests.torch_calls import torch_calls

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    mkl_is_slow.cache_clear()
    yield
    mkl_is_slow.cache_clear()


@pytest.fixture
def on_a_slow_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "mkl_is_slow", lambda: True)


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "LEAST_PRODUCTS", 0)


@pytest.fixture
def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, image_size=32, patch_size=8
    )
    return ViTForImageClassification(config).eval()


def attended() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 3, 17, 8, generator=generator) for _ in range(3))


# On which processors


@pytest.mark.parametrize(
    ("vendor", "capability", "mkl", "onednn", "slow"),
    [
        ("AuthenticAMD", "AVX512", True, True, True),
        ("AuthenticAMD", "AVX2", True, True, False),
        ("GenuineIntel", "AVX512", True, True, False),
        ("", "AVX512", True, True, False),
        ("AuthenticAMD", "AVX512", False, True, False),
        ("AuthenticAMD", "AVX512", True, False, False),
    ],
)
def test_mkl_is_slow_on_amd_with_avx512(vendor, capability, mkl, onednn, slow, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu_products, "processor_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    assert mkl_is_slow() is slow


# Linear layers in float32


@pytest.mark.parametrize("shape", [(5, 16), (2, 5, 16), (2, 3, 5, 16)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_gives_the_same_by_onednn(shape: tuple[int, ...], bias: bool, small_products):
    layer, inputs = torch.nn.Linear(16, 7, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        expected = layer(inputs)
        with QuickerCalls(STAND_INS):
            assert "aten::mkldnn_linear" in torch_calls(lambda: layer(inputs))
            torch.testing.assert_close(layer(inputs), expected)


def test_inputs_may_lie_in_any_order(small_products):
    layer, inputs = torch.nn.Linear(16, 7), torch.randn(16, 5).T
    with torch.no_grad(), QuickerCalls(STAND_INS):
        quick = layer(inputs)
    torch.testing.assert_close(quick, layer(inputs))


def test_a_small_linear_layer_goes_torchs_way():
    layer = torch.nn.Linear(16, 7)
    with torch.inference_mode(), QuickerCalls(STAND_INS):
        assert "aten::mkldnn_linear" not in torch_calls(lambda: layer(torch.randn(5, 16)))


def test_a_linear_layer_in_float64_goes_torchs_way(small_products):
    layer = torch.nn.Linear(16, 7).double()
    with torch.inference_mode(), QuickerCalls(STAND_INS):
        assert "aten::mkldnn_linear" not in torch_calls(lambda: layer(torch.randn(5, 16, dtype=torch.float64)))


def test_autocast_still_says_the_precision(small_products):
    layer = torch.nn.Linear(16, 7)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), QuickerCalls(STAND_INS):
        assert layer(torch.randn(5, 16)).dtype == torch.bfloat16


def test_gradients_are_those_of_torch(small_products):
    """The second layer learns, and the first's answers are its inputs."""
    torch.manual_seed(0)
    frozen, open_layer, inputs = torch.nn.Linear(16, 8), torch.nn.Linear(8, 4), torch.randn(5, 16)
    frozen.requires_grad_(False)
    open_layer(frozen(inputs)).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in open_layer.parameters()]
    open_layer.zero_grad()
    with QuickerCalls(STAND_INS):
        seen = torch_calls(lambda: open_layer(frozen(inputs)).square().sum().backward())
    assert {"aten::mkldnn_linear", "aten::addmm"} <= seen, "the frozen layer one way, the other the usual one"
    for parameter, gradient in zip(open_layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


# Attention in bfloat16


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_gives_the_same(scale: float | None):
    exact = F.scaled_dot_product_attention(*attended(), scale=scale)
    query, key, value = (tensor.bfloat16() for tensor in attended())
    with torch.inference_mode(), QuickerCalls(STAND_INS):
        assert "aten::_softmax" in torch_calls(lambda: F.scaled_dot_product_attention(query, key, value, scale=scale))
        quick = F.scaled_dot_product_attention(query, key, value, scale=scale)
    usual = F.scaled_dot_product_attention(query, key, value, scale=scale)
    assert quick.dtype == torch.bfloat16
    # Two roundings more than torch's own, whose sums stay in float32.
    assert (quick - exact).abs().max() < 2 * (usual - exact).abs().max() + 2e-2
    torch.testing.assert_close(quick.float(), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "asked",
    [
        {"attn_mask": torch.ones(17, 17, dtype=torch.bool)},
        {"dropout_p": 0.5},
        {"is_causal": True},
        {"enable_gqa": True},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_attention_with_more_than_scores_goes_torchs_way(asked: dict):
    tensors = [tensor.bfloat16() for tensor in attended()]

    def attend() -> torch.Tensor:
        torch.manual_seed(0)
        return F.scaled_dot_product_attention(*tensors, **asked)

    with torch.inference_mode():
        expected = attend()
        with QuickerCalls(STAND_INS):
            assert torch.equal(attend(), expected)


def test_attention_in_float32_goes_torchs_way():
    with torch.inference_mode(), QuickerCalls(STAND_INS):
        assert "aten::_softmax" not in torch_calls(lambda: F.scaled_dot_product_attention(*attended()))


def test_attention_has_the_same_gradients():
    exact = [tensor.requires_grad_() for tensor in attended()]
    F.scaled_dot_product_attention(*exact).square().sum().backward()
    learning = [tensor.bfloat16().requires_grad_() for tensor in attended()]
    with QuickerCalls(STAND_INS):
        assert "aten::_softmax" in torch_calls(
            lambda: F.scaled_dot_product_attention(*learning).float().square().sum().backward()
        )
    for tensor, known in zip(learning, exact, strict=True):
        torch.testing.assert_close(tensor.grad.float(), known.grad, rtol=5e-2, atol=5e-2)


def test_many_scores_are_left_to_torch(monkeypatch: pytest.MonkeyPatch):
    tensors = [tensor.bfloat16() for tensor in attended()]
    scores = 2 * 3 * 17 * 17
    with torch.inference_mode(), QuickerCalls(STAND_INS):
        monkeypatch.setattr(cpu_products, "MOST_SCORES", scores)
        assert "aten::_softmax" in torch_calls(lambda: F.scaled_dot_product_attention(*tensors))
        monkeypatch.setattr(cpu_products, "MOST_SCORES", scores - 1)
        assert "aten::_softmax" not in torch_calls(lambda: F.scaled_dot_product_attention(*tensors))


def test_what_is_kept_for_a_backward_pass_has_a_limit(monkeypatch: pytest.MonkeyPatch):
    """17 scores for the 8 numbers of a query."""
    still = [tensor.bfloat16() for tensor in attended()]
    learning = [tensor.clone().requires_grad_() for tensor in still]
    with QuickerCalls(STAND_INS):
        monkeypatch.setattr(cpu_products, "MOST_KEPT_SCORES", 17 / 8)
        assert "aten::_softmax" in torch_calls(lambda: F.scaled_dot_product_attention(*learning))
        monkeypatch.setattr(cpu_products, "MOST_KEPT_SCORES", 2)
        assert "aten::_softmax" not in torch_calls(lambda: F.scaled_dot_product_attention(*learning))
        assert "aten::_softmax" in torch_calls(lambda: F.scaled_dot_product_attention(*still))


def test_the_estimate_of_memory_counts_scores(vit: ViTForImageClassification):
    learning = {name for name, _ in vit.named_parameters()}

    def height() -> int:
        return height_of_step(vit, learning, (3, 32, 32), 16, torch.bfloat16)

    usual = height()
    with QuickerCalls(STAND_INS):
        quick = height()
    scores = 16 * 4 * 17 * 17 * 2
    assert usual + scores <= quick <= usual + 2 * 2 * scores, "of two layers, with the queries that are scaled"


def test_the_estimate_of_memory_counts_copies(vit: ViTForImageClassification, small_products):
    """The usual height is GELU's, its input and output; now that input is copied while the layer's own is there."""
    usual = height_of_evaluation(vit, (3, 32, 32), 16)
    with QuickerCalls(STAND_INS):
        quick = height_of_evaluation(vit, (3, 32, 32), 16)
    assert quick == usual + 16 * 17 * 64 * 4


# Where it is used


def test_a_network_under_autocast(vit: ViTForImageClassification):
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = vit(pixel_values=pixels).logits
        with QuickerCalls(STAND_INS):
            assert "aten::_softmax" in torch_calls(lambda: vit(pixel_values=pixels))
            torch.testing.assert_close(vit(pixel_values=pixels).logits, expected, rtol=5e-2, atol=5e-3)


def test_predictions_use_it(vit: ViTForImageClassification, on_a_slow_processor, small_products):
    pictures = [Image.fromarray(np.full((40, 40, 3), shade, np.uint8)) for shade in (0, 90, 250)]
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    found: dict[str, np.ndarray] = {}

    def predict() -> None:
        found["quick"] = predict_logits(vit, processor, pictures)

    assert "aten::mkldnn_linear" in torch_calls(predict)
    with torch.no_grad():
        pixels = processor(pictures, return_tensors="pt")["pixel_values"]
        np.testing.assert_allclose(found["quick"], vit(pixel_values=pixels).logits.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_what_is_called_by_name_is_understood(half: bool, small_products):
    layer, inputs = torch.nn.Linear(16, 7), torch.randn(5, 16)
    query, key, value = attended()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        expected = F.linear(input=inputs, weight=layer.weight, bias=layer.bias)
        seen = F.scaled_dot_product_attention(query=query, key=key, value=value)
        with QuickerCalls(STAND_INS):
            torch.testing.assert_close(F.linear(input=inputs, weight=layer.weight, bias=layer.bias), expected)
            torch.testing.assert_close(F.scaled_dot_product_attention(query=query, key=key, value=value), seen)
