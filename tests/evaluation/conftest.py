"""A classifier whose every answer is known: it tells red, green and blue apart, and nothing else.

A tiny ViT with random weights gets a head that is solved for, so that the logit of the right colour is 10 and the
others are 0 on pictures of one plain colour.
"""

from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
LABELS = ("blue", "green", "red")
MODEL_ORDER = ("green", "red", "blue")
"""The model's own order, which is not that of the data set."""


def save_colour_model(folder: Path, label_names: Sequence[str] = MODEL_ORDER) -> Path:
    """Saves the classifier; labels beyond the three colours always get the logit -5."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
    )
    model = ViTForImageClassification(config).eval()
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    pictures = [plain(name) for name in COLOURS]
    with torch.no_grad():
        features = model.vit(**processor(images=pictures, return_tensors="pt")).last_hidden_state[:, 0].double()
        wanted = torch.full((len(COLOURS), len(label_names)), -5.0, dtype=torch.float64)
        for row, colour in enumerate(COLOURS):
            for column, name in enumerate(label_names):
                if name in COLOURS:
                    wanted[row, column] = 10.0 if name == colour else 0.0
        model.classifier.weight.copy_((torch.linalg.pinv(features) @ wanted).T)
        model.classifier.bias.zero_()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def plain(colour: str, side: int = 40) -> Image.Image:
    """Returns a picture of one colour."""
    return Image.new("RGB", (side, side), COLOURS[colour])


def colour_split(folder: Path, shown: Sequence[str], labelled: Sequence[str]) -> datasets.Dataset:
    """Returns a split of pictures of the first colours that claims the second ones, as indices into `LABELS`."""
    paths = []
    for index, colour in enumerate(shown):
        paths.append(str(folder / f"{index}.png"))
        plain(colour).save(paths[-1])
    rows = {"image": paths, "label": [LABELS.index(name) for name in labelled]}
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=list(LABELS))}
    )
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the classifier of three colours."""
    return save_colour_model(tmp_path_factory.mktemp("colours"))
