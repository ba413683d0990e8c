"""The estimate of memory, against what autograd really keeps."""

from pathlib import Path

import pytest
import torch

from hf_transfer.training.memory import estimate_memory, free_memory, optimizer_states, shown
from hf_transfer.training.memory_probe import height_of_evaluation, height_of_step
from tests.models.families import build_tiny_model
from tests.training.tiny_run import NUM_LABELS, tiny_model, tiny_trainer

SHAPE = (3, 32, 32)
IMAGES = 4
FAMILIES = ["vit", "convnext", "resnet", "swin", "efficientnet", "mobilenet_v2", "dinov2"]


def really_kept(model: torch.nn.Module, autocast: bool) -> int:
    """Returns what autograd keeps of one forward pass with real memory, each piece once, without the pictures."""
    pixels = torch.randn(IMAGES, *SHAPE)
    known = {tensor.untyped_storage().data_ptr() for tensor in (pixels, *model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    model.train()
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        model(pixel_values=pixels).logits.sum()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_a_step_takes_what_autograd_keeps_and_little_more(family: str, autocast: bool):
    model = build_tiny_model(family, num_labels=NUM_LABELS)
    names = {name for name, _ in model.named_parameters()}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    estimated = height_of_step(model, names, SHAPE, IMAGES, torch.bfloat16 if autocast else None)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    kept = really_kept(model, autocast)
    assert kept <= estimated < 1.5 * kept


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_kept_of_what_is_frozen(family: str):
    model = build_tiny_model(family, num_labels=NUM_LABELS)
    names = [name for name, _ in model.named_parameters()]
    head, everything = (height_of_step(model, learning, SHAPE, 8) for learning in (names[-2:], names))
    evaluation, twice = (height_of_evaluation(model, SHAPE, images) for images in (8, 16))
    assert twice == pytest.approx(2 * evaluation, rel=0.02)
    assert evaluation / 2 < head < 2 * evaluation
    assert head < everything


def test_two_layers_by_hand():
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(12, 100), torch.nn.Linear(100, 5)

        def forward(self, pixel_values: torch.Tensor):
            hidden = torch.relu(self.first(pixel_values.flatten(1)))
            return type("Output", (), {"logits": self.second(hidden)})

    # At the height of a pass without gradients the layer's result and that of the activation live.
    assert height_of_evaluation(Two(), (3, 2, 2), 7) == 4 * 7 * (100 + 100)


def test_each_part_of_the_estimate(tmp_path: Path):
    model = tiny_model("vit")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    trainer = tiny_trainer(model, tmp_path / "full", optim="adamw_torch", per_device_train_batch_size=8)
    full = estimate_memory(trainer, SHAPE, copies=1)
    assert full is not None
    assert (full.weights, full.gradients, full.optimizer, full.copies) == (size, size, 2 * size, size)
    assert full.total == 5 * size + full.activations
    assert full.activations > height_of_evaluation(model, SHAPE, 8) + 2 * 8 * 4 * 3 * 32 * 32
    assert "activations of 8 images" in full.describe()
    head = sum(model.get_parameter(name).numel() for name in trainer.groups[-1].parameter_names)
    frozen = estimate_memory(tiny_trainer(model, tmp_path / "head", strategy="feature-extraction", optim="sgd"), SHAPE)
    assert frozen is not None
    assert (frozen.gradients, frozen.optimizer, frozen.copies) == (4 * head, 0, 0)
    assert frozen.activations < full.activations
    # Evaluations have twice the pictures of these steps.
    assert (frozen.images, frozen.evaluated) == (4, 8)
    assert frozen.total == frozen.weights + frozen.optimizer + frozen.evaluation
    assert "evaluation of 8 images" in frozen.describe()
    assert "activations" not in frozen.describe()


def test_what_thaws_later_counts(tmp_path: Path):
    model = tiny_model("vit")
    full = estimate_memory(tiny_trainer(model, tmp_path / "full"), SHAPE)
    progressive = estimate_memory(tiny_trainer(model, tmp_path / "progressive", strategy="progressive"), SHAPE)
    assert progressive == full


def test_names_of_optimizers_and_sizes():
    assert [optimizer_states(name) for name in ("adamw_torch_fused", "sgd", "lion_32bit", "muon")] == [2, 0, 1, 2]
    assert [shown(size) for size in (5_400_000, 1_260_000_000, 23_600_000_000)] == ["5 MB", "1.26 GB", "23.6 GB"]
    assert free_memory(torch.device("cpu")) > 10**8
