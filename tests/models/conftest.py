"""A tiny checkpoint in a folder."""

from pathlib import Path

import pytest
import torch

from tests.models.families import build_tiny_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny ViT for the labels `old_0`, `old_1` and `old_2`, with its image processor."""
    torch.manual_seed(0)
    return build_tiny_checkpoint(tmp_path / "checkpoint", "vit")
