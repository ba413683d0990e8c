"""The best checkpoint is really back in memory at the end, tensor by tensor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification, Trainer

from hf_transfer.training.weights import reload_weights
from tests.training.tiny_run import tiny_model, tiny_trainer

FAMILIES = ("vit", "deit", "beit", "dinov2", "swin", "resnet", "convnext")


class FirstIsBest:
    """A metric that falls with every evaluation, so that the first checkpoint is the best."""

    def __init__(self):
        self.calls = 0

    def __call__(self, prediction) -> dict[str, float]:
        assert np.isfinite(prediction.predictions).all()
        self.calls += 1
        return {"score": -float(self.calls)}


def train_keeping_the_first(family: str, folder: Path):
    model = tiny_model(family)
    trainer = tiny_trainer(
        model,
        folder,
        family,
        compute_metrics=FirstIsBest(),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
        num_train_epochs=3,
    )
    trainer.train()
    assert trainer.state.best_global_step == 5
    return model, trainer


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_that_of_the_best_checkpoint(family: str, tmp_path: Path):
    model, trainer = train_keeping_the_first(family, tmp_path)
    saved = AutoModelForImageClassification.from_pretrained(trainer.state.best_model_checkpoint, dtype=torch.float32)
    last = AutoModelForImageClassification.from_pretrained(tmp_path / "checkpoint-15", dtype=torch.float32)
    expected, final = saved.state_dict(), last.state_dict()
    assert any(not torch.equal(expected[name], final[name]) for name in expected)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_upstream_still_reloads_only_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """transformers#43701, #48805: when this fails, `hf_transfer.training.weights` can go."""
    from hf_transfer.training.trainer import TransferTrainer

    monkeypatch.setattr(TransferTrainer, "_load_best_model", Trainer._load_best_model)
    model, trainer = train_keeping_the_first("vit", tmp_path)
    saved = AutoModelForImageClassification.from_pretrained(trainer.state.best_model_checkpoint, dtype=torch.float32)
    expected = saved.state_dict()
    assert any(not torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_what_did_not_change_is_not_written(tmp_path: Path):
    """Frozen weights may be a map of the checkpoint's file, which the first write to a page makes slow."""
    model = tiny_model("vit")
    model.save_pretrained(tmp_path)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.classifier.weight.add_(1)
    written = {name: tensor._version for name, tensor in model.named_parameters()}
    reload_weights(model, tmp_path)
    assert {name for name, tensor in model.named_parameters() if tensor._version > written[name]} == {
        "classifier.weight"
    }
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path):
    tiny_model("vit").save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="does not fit the model"):
        reload_weights(_with_one_more_layer(), tmp_path)


def _with_one_more_layer():
    from tests.models.families import FAMILIES as CONFIGS
    from tests.models.families import classes_of

    config = CONFIGS["vit"]()
    config.num_labels = 3
    config.num_hidden_layers += 1
    return classes_of("vit")[0](config)


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_resuming_goes_on_where_the_checkpoint_stopped(family: str, tmp_path: Path):
    """The weights after a resume are those of an uninterrupted run, bit for bit."""
    settings = {"save_strategy": "epoch", "num_train_epochs": 3, "optim": "adamw_torch", "learning_rate": 1e-3}
    whole = tiny_model(family)
    tiny_trainer(whole, tmp_path / "whole", family, **settings).train()
    resumed = tiny_model(family, seed=99)
    tiny_trainer(resumed, tmp_path / "resumed", family, **settings).train(
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5")
    )
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name
