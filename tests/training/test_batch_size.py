"""Memory that runs out: smaller micro-batches, the same steps, the same weights."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from hf_transfer.errors import UserError
from hf_transfer.training.batch_size import smaller_micro_batch, train_within_memory
from hf_transfer.training.session import train
from tests.training.tiny_run import tiny_model, tiny_trainer


class NoMemoryFor(TrainerCallback):
    """Lets every forward pass of more than so many images fail, from a step on."""

    def __init__(self, model: PreTrainedModel, images: int, from_step: int = 0):
        self.step = 0
        self.failures = 0
        self.images = images
        self.from_step = from_step
        model.register_forward_pre_hook(self._check, with_kwargs=True)

    def on_step_begin(self, args, state, control, **kwargs):
        self.step = state.global_step

    def _check(self, module, args, kwargs):
        if module.training and self.step >= self.from_step and len(kwargs["pixel_values"]) > self.images:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def weights_of(folder: Path, batch: int, accumulation: int, limit: NoMemoryFor | None = None, **settings):
    model = tiny_model("vit")
    callbacks = []
    if limit is not None:
        limit.__init__(model, limit.images, limit.from_step)
        callbacks = [limit]
    trainer = tiny_trainer(
        model,
        folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        callbacks=callbacks,
        **settings,
    )
    train(trainer, trainer.args, find_batch_size=True)
    return model.state_dict(), trainer


def limit(images: int, from_step: int = 0) -> NoMemoryFor:
    return NoMemoryFor(tiny_model("vit"), images, from_step)


def test_the_weights_are_those_of_the_smaller_batch_bit_for_bit(tmp_path: Path, capsys):
    guard = limit(3)
    found, trainer = weights_of(tmp_path / "found", 8, 1, guard)
    assert guard.failures == 2
    assert (trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps) == (2, 4)
    fixed, _ = weights_of(tmp_path / "fixed", 2, 4)
    assert all(torch.equal(tensor, fixed[name]) for name, tensor in found.items())
    assert "going on with 2 images at a time, accumulated over 4" in capsys.readouterr().out


def test_later_on_it_goes_on_from_the_last_checkpoint(tmp_path: Path):
    settings = {"save_strategy": "steps", "save_steps": 2}
    found, trainer = weights_of(tmp_path / "found", 4, 1, limit(2, from_step=3), **settings)
    assert trainer.state.global_step == 10
    fixed, _ = weights_of(tmp_path / "fixed", 4, 1)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, fixed[name], rtol=1e-4, atol=2e-6)


def test_a_single_image_that_does_not_fit_is_told(tmp_path: Path):
    with pytest.raises(UserError, match="single image"):
        weights_of(tmp_path, 2, 1, limit(0))


def test_other_errors_pass(tmp_path: Path):
    trainer = tiny_trainer(tiny_model("vit"), tmp_path)

    def fail(folder):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train_within_memory(trainer, None, fail)


@pytest.mark.parametrize(
    ("batch", "accumulation", "smaller"),
    [(32, 1, (16, 2)), (3, 1, (1, 3)), (12, 2, (6, 4)), (9, 1, (3, 3)), (2, 5, (1, 10))],
)
def test_images_per_step_stay(batch: int, accumulation: int, smaller: tuple[int, int], tmp_path: Path):
    args = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        use_cpu=True,
    )
    smaller_micro_batch(args)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == smaller
