"""A saved checkpoint to load, and to spoil: the configuration or the tensors of a folder, changed in place."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import load_checkpoint


def message_of(model: Path | str, label_names: tuple[str, ...] = ("cat", "dog"), **options: object) -> str:
    """Returns what the user is told when the checkpoint cannot be loaded."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(str(model), label_names=label_names, **options)
    return str(caught.value)


def edit_config(folder: Path, change: Callable[[dict], object]) -> None:
    """Changes `config.json`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_tensors(folder: Path, change: Callable[[dict], object]) -> None:
    """Changes the tensors in `model.safetensors`."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
