"""Where other calls stand in for torch's own: on slow processors, and not in compiled networks or on a GPU."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, conv2d, linear, scaled_dot_product_attention

from hf_transfer import cpu_convolutions, cpu_products
from hf_transfer.quicker_calls import quicker_calls, stand_ins_on
from hf_transfer.training.trainer import TransferTrainer

CPU = torch.device("cpu")
MEANS = {adaptive_avg_pool2d, torch.mean, torch.Tensor.mean}


@pytest.fixture
def slow(request, monkeypatch: pytest.MonkeyPatch) -> None:
    products, convolutions = getattr(request, "param", (True, True))
    monkeypatch.setattr(cpu_products, "mkl_is_slow", lambda: products)
    monkeypatch.setattr(cpu_convolutions, "depthwise_is_slow", lambda: convolutions)


@pytest.mark.parametrize(
    ("slow", "calls"),
    [
        ((True, True), MEANS | {linear, scaled_dot_product_attention, conv2d}),
        ((True, False), MEANS | {linear, scaled_dot_product_attention}),
        ((False, True), MEANS | {conv2d}),
        ((False, False), MEANS),
    ],
    indirect=["slow"],
)
def test_slow_calls_have_stand_ins(slow, calls: set):
    assert set(stand_ins_on(CPU)) == calls
    assert set(quicker_calls(CPU).stand_ins) == calls  # type: ignore[attr-defined]


def test_no_other_way_on_a_gpu(slow):
    """Nor is each call looked at there."""
    gpu = torch.device("cuda")
    assert not stand_ins_on(gpu)
    assert isinstance(quicker_calls(gpu), nullcontext)


def test_calls_of_a_compiled_network_are_torchs_own(slow):
    """torch.compile brings its own kernels, and would have to trace ours."""

    def calls(compiled: object, torch_compile: bool) -> set:
        args = SimpleNamespace(torch_compile=torch_compile, device=CPU)
        trainer = SimpleNamespace(compiled=compiled, args=args)
        return set(TransferTrainer.stand_ins(trainer))  # type: ignore[arg-type]

    assert calls(None, False)
    assert not calls(object(), False)
    assert not calls(None, True)


@pytest.mark.parametrize(
    ("machine", "onednn", "slow"),
    [("x86_64", True, True), ("AMD64", True, True), ("x86_64", False, False), ("aarch64", True, False)],
)
def test_depthwise_is_slow_where_it_was_measured(machine, onednn, slow, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    assert cpu_convolutions.depthwise_is_slow() is slow
