"""The checkpoint inside the package: whole, small, honest about itself."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModelForImageClassification

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "hf_transfer" / "models" / "quickstart"


@pytest.fixture(scope="module")
def script():
    path = ROOT / "benchmarks" / "quickstart_pretraining.py"
    spec = importlib.util.spec_from_file_location("quickstart_pretraining", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_loads_with_plain_transformers_and_nothing_is_left_over():
    model, info = AutoModelForImageClassification.from_pretrained(
        FOLDER, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert 0.5e6 < sum(parameter.numel() for parameter in model.parameters()) < 1.5e6
    processor = AutoImageProcessor.from_pretrained(FOLDER)
    pixels = processor(images=torch.zeros(3, 8, 8), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)


def test_it_is_small_and_in_half_precision():
    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size < 3e6
    with safe_open(weights, framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118 (no mapping)


def test_card_and_lineage_speak_of_these_weights():
    card = ModelCard.load(FOLDER / "README.md")
    digest = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "image-classification"
    assert digest in card.text
    lineage = json.loads((FOLDER / "lineage.json").read_text(encoding="utf-8"))
    assert lineage["weights_sha256"] == digest


def test_card_quotes_the_measured_table():
    table = (ROOT / "benchmarks" / "results" / "quickstart.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) >= 5
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(row in card for row in rows)


def test_pictures_are_the_same_for_the_same_seed_and_differ_between_classes(script):
    classes = dict.fromkeys(script.FAMILIES, 2)
    first, labels, names = script.make_pictures(classes, per_class=2, seed=5)
    again, _, _ = script.make_pictures(classes, per_class=2, seed=5)
    other, _, _ = script.make_pictures(classes, per_class=2, seed=6)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(names) == 8
    for label in labels.unique():
        assert not torch.equal(first[labels == label][0], first[labels == label][1])
        assert first[labels == label].float().std() > 1
    assert len({picture.numpy().tobytes() for picture in first}) == len(first)


def test_variations_keep_shape_and_range(script):
    pictures, _, _ = script.make_pictures({"strokes": 2, "fractal": 2}, per_class=2, seed=1)
    torch.manual_seed(0)
    varied = script.vary(pictures)
    assert varied.shape == (8, 3, 32, 32)
    assert varied.min() >= -1
    assert varied.max() <= 1
