"""The linear head on the frozen checkpoint: what it is measured on, and where there is none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hf_transfer.cli import main
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.images import to_rgb
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.transforms import build_eval_transform
from hf_transfer.linear_probe import measure_linear_probe
from hf_transfer.models.checkpoint import Checkpoint, load_checkpoint
from hf_transfer.publishing.card import render_card
from hf_transfer.training.head_solver import STRENGTHS
from tests.models.families import build_tiny_checkpoint
from tests.models.timm_architectures import build_tiny_timm_checkpoint
from tests.tiny_project import tiny_pictures, train_words


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return load_image_data(FinetuneConfig(model="m", dataset=str(tiny_pictures(tmp_path_factory.mktemp("p") / "p"))))


def features_of(checkpoint: Checkpoint, data: ImageData, split: str) -> np.ndarray:
    """What the head of a tiny ViT sees, by a hook."""
    seen: list[torch.Tensor] = []
    hook = checkpoint.model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    transform = build_eval_transform(checkpoint.image_processor)
    with torch.no_grad():
        pixels = torch.stack([transform(to_rgb(image)) for image in data.split(split)["image"]])
        checkpoint.model.eval()(pixel_values=pixels)
    hook.remove()
    return seen[0].double().numpy()


def test_it_is_scikit_learns_on_the_features_of_the_checkpoint(data: ImageData, tmp_path: Path):
    torch.manual_seed(0)
    folder = build_tiny_checkpoint(tmp_path / "checkpoint", "vit")
    checkpoint = load_checkpoint(str(folder), label_names=data.label_names)
    probe = measure_linear_probe(str(folder), None, data, checkpoint.image_processor, 8)
    assert probe["problem"] is None
    assert probe["strength"] in STRENGTHS
    train, test = (features_of(checkpoint, data, split) for split in ("train", "test"))
    mean, spread = train.mean(0), train.std(0, ddof=1)
    head = LogisticRegression(C=probe["strength"], max_iter=500)
    head.fit((train - mean) / spread, data.train["label"])
    answers = head.predict((test - mean) / spread)
    accuracy = np.mean(answers == np.array(data.test["label"]))
    assert probe["metrics"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert set(probe["metrics"]) == {"validation", "test"}


@pytest.mark.parametrize("kind", ["convnext", "mobilenet_v1", "timm"])
def test_heads_of_other_families(kind: str, data: ImageData, tmp_path: Path):
    torch.manual_seed(0)
    if kind == "timm":
        folder = build_tiny_timm_checkpoint(tmp_path / "checkpoint", "test_vit")
    else:
        folder = build_tiny_checkpoint(tmp_path / "checkpoint", kind)
    checkpoint = load_checkpoint(str(folder), label_names=data.label_names)
    probe = measure_linear_probe(str(folder), None, data, checkpoint.image_processor, 8)
    assert probe["problem"] is None
    # Brightness, the class of these pictures, is in any features.
    assert probe["metrics"]["test"]["accuracy"] > 0.6


def test_a_head_that_is_no_linear_layer_is_named(data: ImageData, tmp_path: Path):
    torch.manual_seed(0)
    folder = build_tiny_checkpoint(tmp_path / "checkpoint", "swiftformer")
    checkpoint = load_checkpoint(str(folder), label_names=data.label_names)
    probe = measure_linear_probe(str(folder), None, data, checkpoint.image_processor, 8)
    assert probe["metrics"] == {}
    assert "not a single linear layer" in probe["problem"]


def test_a_run_shows_it_beside_the_model(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = [*train_words(tmp_path), "--output_dir", str(tmp_path / "run"), "--max_steps", "2", "--strategy", "full"]
    assert main([*words, "--linear_probe"]) == 0
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    accuracy = report["linear_probe"]["metrics"]["test"]["accuracy"]
    assert f"a linear head on the frozen checkpoint: test accuracy {accuracy:.4f}" in capsys.readouterr().out
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in card.splitlines() if line.startswith("| Accuracy |")]
    majority = report["evaluation"]["test"]["majority"]["metrics"]["accuracy"]
    assert row.endswith(f"| {accuracy:.4f} | {majority:.4f} |")
    assert "a linear head" not in render_card({**report, "linear_probe": None})
