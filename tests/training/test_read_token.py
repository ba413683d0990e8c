"""One token computed where one is read: found without names, exact, kept through a training, and gone after it."""

import copy
import shutil
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_transfer.models.execution_order import input_shape
from hf_transfer.training.memory_probe import height_of_step
from hf_transfer.training.read_token import OnlyReadToken, ReadToken
from hf_transfer.training.read_token_search import attach_read_token, find_read_token
from hf_transfer.training.strategies import Unfreezing
from tests.models.families import build_tiny_model
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_prefix_cut import BUILDABLE
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_model, tiny_trainer

READ_BY_ONE = {"cvt", "deit", "pvt", "vit", "vit_msn"}
"""Families whose head reads the class token alone."""


def pictures_for(model: nn.Module, count: int = 2) -> torch.Tensor:
    return torch.randn(count, *input_shape(model))


def answers(model: nn.Module, pictures: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Returns logits, and the gradient of every parameter."""
    model.zero_grad()
    logits = model(pixel_values=pictures).logits
    nn.functional.cross_entropy(logits, torch.arange(len(pictures)) % logits.shape[1]).backward()
    return logits.detach(), {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("family", BUILDABLE)
def test_logits_and_gradients_stay_the_same(family: str):
    torch.manual_seed(0)
    model = tiny_model(family)
    before = weights_of(model)
    read = find_read_token(model, pictures_for(model))
    assert_same(before, weights_of(model))
    assert hooks_of(model) == 0
    assert (read is not None) == (family in READ_BY_ONE), read
    if read is None:
        return
    pictures = pictures_for(model, 3)
    for training in (False, True):
        model.train(training)
        logits, gradients = answers(model, pictures)
        only = OnlyReadToken(model, read)
        few_logits, few_gradients = answers(model, pictures)
        only.release()
        torch.testing.assert_close(few_logits, logits, rtol=1e-5, atol=1e-6)
        assert few_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(few_gradients[name], gradient, rtol=1e-4, atol=1e-6)
    assert hooks_of(model) == 0


@pytest.mark.parametrize("build", [ViTForImageClassification, DeiTForImageClassification])
def test_the_mlp_of_the_last_block_gets_one_token_and_others_all(build: type):
    torch.manual_seed(0)
    config = (ViTConfig if build is ViTForImageClassification else DeiTConfig)(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, image_size=32, patch_size=8
    )
    model = build(config).train()
    read = find_read_token(model, torch.randn(2, 3, 32, 32))
    assert read is not None
    tokens = 16 + (1 if build is ViTForImageClassification else 2)
    assert (read.position, read.num_tokens) == (0, tokens)
    seen: dict[str, int] = {}

    def note(name: str):
        return lambda module, args, output: seen.__setitem__(name, output.shape[1])

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "layer" in name:
            module.register_forward_hook(note(name))
    only = OnlyReadToken(model, read)
    model(pixel_values=torch.randn(2, 3, 32, 32))
    one = {name for name, size in seen.items() if size == 1}
    last = {name for name in seen if "layers.2." in name}
    assert one == last - {name for name in last if "k_proj" in name or "v_proj" in name}
    assert len(one) == 4
    only.release()
    model(pixel_values=torch.randn(2, 3, 32, 32))
    assert set(seen.values()) == {tokens}


class Queries(TorchFunctionMode):
    """Notes how many queries attention is computed for."""

    def __init__(self):
        super().__init__()
        self.counts: list[int] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is nn.functional.scaled_dot_product_attention:
            self.counts.append(args[0].shape[-2])
        return func(*args, **(kwargs or {}))


def queries(model: nn.Module) -> list[int]:
    with Queries() as seen, torch.no_grad():
        model(pixel_values=pictures_for(model))
    return seen.counts


def test_attention_of_the_last_block_has_one_query(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = tiny_model("vit")
    read = find_read_token(model, pictures_for(model))
    assert read is not None
    usual = queries(model)
    only = OnlyReadToken(model, read)
    assert queries(model) == [*usual[:-1], 1]
    copied = copy.deepcopy(model)
    assert queries(copied) == [*usual[:-1], 1]
    # A step that raises within, as where memory runs out, leaves nothing behind.
    assert read.attention is not None
    attention = model.get_submodule(read.attention)
    with monkeypatch.context() as broken:
        broken.setattr(attention.v_proj, "forward", lambda states: states[:, :, :1] @ states)
        with pytest.raises(RuntimeError):
            model(pixel_values=pictures_for(model))
    tokens = torch.randn(1, 1, 5, 4)
    attended = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
    assert not torch.equal(attended[0, 0, 0], attended[0, 0, 1])
    only.release()
    assert queries(model) == usual


def test_timm_by_its_head():
    found = {}
    for pool in ("token", "avg"):
        torch.manual_seed(0)
        config = TimmWrapperConfig(architecture="test_vit", num_labels=3, model_args={"global_pool": pool})
        config.pretrained_cfg = timm.create_model("test_vit").pretrained_cfg
        model = TimmWrapperForImageClassification(config)
        found[pool] = find_read_token(model, pictures_for(model))
    assert found["avg"] is None
    assert isinstance(found["token"], ReadToken)
    assert any(name.endswith("norm2") for name in found["token"].modules)


def test_dropout_does_not_hide_it():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=32,
        patch_size=8,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.2,
    )
    model = ViTForImageClassification(config).eval()
    assert find_read_token(model, torch.randn(2, 3, 32, 32)) is not None
    assert not any(module.training for module in model.modules())


class Averaging(nn.Module):
    """Reads the first token in evaluation, and all of them in training."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, pixel_values):
        tokens = self.layer(pixel_values.flatten(2).transpose(1, 2))
        read = tokens.mean(1) if self.training else tokens[:, 0]
        return type("Output", (), {"logits": self.head(read)})()


def test_what_training_reads_is_noticed():
    assert find_read_token(Averaging(), torch.randn(2, 4, 3, 3)) is None


class Forwards(torch.autograd.Function):
    """Has no backward."""

    @staticmethod
    def forward(ctx, tokens):
        return tokens.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("forwards alone")


def test_a_network_that_refuses_its_gradient_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model("vit")
    forward = model.vit.layernorm.forward
    monkeypatch.setattr(model.vit.layernorm, "forward", lambda tokens: Forwards.apply(forward(tokens)))
    assert find_read_token(model, pictures_for(model)) is None
    assert hooks_of(model) == 0


def test_one_picture_tells_nothing():
    model = build_tiny_model("vit")
    assert find_read_token(model, pictures_for(model, 1)) is None


@pytest.mark.parametrize("strategy", ["feature-extraction", "partial", "full"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_learns_the_same(strategy: str, checkpointing: bool, tmp_path: Path):
    wish = Unfreezing(strategy=strategy, **({"train_last": 1} if strategy == "partial" else {}))
    weights = {}
    for attached in (False, True):
        model = tiny_model("vit")
        trainer = tiny_trainer(
            model,
            tmp_path / str(attached),
            strategy=wish,
            activation_checkpointing=checkpointing,
            learning_rate=0.005,
            eval_strategy="epoch",
        )
        if attached:
            attach_read_token(trainer, trainer.eval_dataset)
            assert hooks_of(model) > 0
        trainer.train()
        weights[attached] = weights_of(model)
    assert_same(weights[False], weights[True])


def test_kept_and_not_kept_learn_the_same_and_files_are_told_apart(tmp_path: Path):
    weights, files = {}, {}
    for attached in (False, True):
        for mode in ("off", "auto"):
            model = tiny_model("vit")
            trainer = cached_trainer(
                model,
                tmp_path / "run",
                "vit",
                tmp_path / "cache",
                mode=mode,
                strategy=Unfreezing(strategy="partial", train_last=1),
                num_train_epochs=6,
            )
            if attached:
                attach_read_token(trainer, trainer.eval_dataset.pictures)
            trainer.train()
            assert trainer.prefix.facts[0]["cached"] is (mode == "auto")
            weights[attached, mode] = weights_of(model)
        files[attached] = {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert len(files[True]) == 2 * len(files[False]) > 0
    for other in ((False, "auto"), (True, "off"), (True, "auto")):
        assert_same(weights[False, "off"], weights[other])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_training_learns_the_same(tmp_path: Path):
    weights = {}
    for compiled in (False, True):
        model = tiny_model("vit")
        trainer = tiny_trainer(model, tmp_path / str(compiled), learning_rate=0.005, torch_compile=compiled)
        attach_read_token(trainer, trainer.eval_dataset)
        trainer.train()
        weights[compiled] = weights_of(model)
    assert_same(weights[False], weights[True])


def test_the_estimate_of_memory_counts_what_is_computed():
    model = tiny_model("vit")
    read = find_read_token(model, pictures_for(model))
    assert read is not None
    names = [name for name, _ in model.named_parameters()]
    whole = height_of_step(model, names, input_shape(model), 8)
    only = OnlyReadToken(model, read)
    assert height_of_step(model, names, input_shape(model), 8) < whole
    only.release()
    assert height_of_step(model, names, input_shape(model), 8) == whole


def test_a_run_says_so_and_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture):
    model = build_tiny_model("vit")
    trainer = tiny_trainer(model, tmp_path)
    attach_read_token(trainer, trainer.eval_dataset)
    assert "1 of " in capsys.readouterr().out
    names = set(model.state_dict())
    trainer.only_read.release()
    assert hooks_of(model) == 0
    assert set(model.state_dict()) == names
