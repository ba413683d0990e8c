"""The estimate of memory, against what autograd really keeps."""

from pathlib import Path

import pytest
import torch

from hf_transfer.training.memory import estimate_memory, free_memory, kept_bytes_per_image, optimizer_states, shown
from tests.models.families import build_tiny_model
from tests.training.tiny_run import NUM_LABELS, tiny_model, tiny_trainer

SHAPE = (3, 32, 32)


def really_kept(model: torch.nn.Module, images: int = 4) -> int:
    """Returns what autograd keeps of one forward pass with real memory, each piece once."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(pixel_values=torch.randn(images, *SHAPE)).logits.sum()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("family", ["vit", "convnext", "resnet", "swin", "efficientnet", "mobilenet_v2", "dinov2"])
@pytest.mark.parametrize("part", ["head", "all"])
def test_the_meta_device_keeps_what_the_processor_does(family: str, part: str):
    model = build_tiny_model(family, num_labels=NUM_LABELS)
    names = [name for name, _ in model.named_parameters()]
    learning = names if part == "all" else names[-2:]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    estimated = 4 * kept_bytes_per_image(model, learning, SHAPE)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert estimated == pytest.approx(really_kept(model), rel=0.15)


def test_half_precision_keeps_little_more_than_half():
    model = build_tiny_model("vit", num_labels=NUM_LABELS)
    names = [name for name, _ in model.named_parameters()]
    whole, half = (kept_bytes_per_image(model, names, SHAPE, dtype) for dtype in (None, torch.bfloat16))
    # Some things, such as the sums of a softmax, stay in float32.
    assert whole / 2 <= half < 0.7 * whole


def test_each_part_of_the_estimate(tmp_path: Path):
    model = tiny_model("vit")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    trainer = tiny_trainer(model, tmp_path / "full", optim="adamw_torch", per_device_train_batch_size=8)
    full = estimate_memory(trainer, SHAPE, copies=1)
    assert full is not None
    assert (full.weights, full.gradients, full.optimizer, full.copies) == (size, size, 2 * size, size)
    assert full.total == 5 * size + full.activations
    assert "activations of 8 images" in full.describe()
    head = sum(model.get_parameter(name).numel() for name in trainer.groups[-1].parameter_names)
    frozen = estimate_memory(tiny_trainer(model, tmp_path / "head", strategy="feature-extraction", optim="sgd"), SHAPE)
    assert frozen is not None
    assert (frozen.gradients, frozen.optimizer, frozen.copies) == (4 * head, 0, 0)
    assert frozen.activations < full.activations / 10


def test_what_thaws_later_counts(tmp_path: Path):
    model = tiny_model("vit")
    full = estimate_memory(tiny_trainer(model, tmp_path / "full"), SHAPE)
    progressive = estimate_memory(tiny_trainer(model, tmp_path / "progressive", strategy="progressive"), SHAPE)
    assert progressive == full


def test_names_of_optimizers_and_sizes():
    assert [optimizer_states(name) for name in ("adamw_torch_fused", "sgd", "lion_32bit", "muon")] == [2, 0, 1, 2]
    assert [shown(size) for size in (5_400_000, 1_260_000_000)] == ["5 MB", "1.3 GB"]
    assert free_memory(torch.device("cpu")) > 10**8
