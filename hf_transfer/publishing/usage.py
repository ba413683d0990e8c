"""The lines that show how a model is used, tried out before they are written down.

Knows the snippet, and how it is run: in a new process, without the network, on the saved files and one test picture.
Does not know the card that it goes into.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

_SNIPPET = """from transformers import pipeline

classifier = pipeline("image-classification", model={model})
for answer in classifier({picture}):
    print(answer["label"], round(answer["score"], 4))
"""
SECONDS = 300
"""A large model on a slow disk takes a minute; one that takes longer than this is of no use as an example."""

# Of a distributed run; a process of its own must not wait for the others.
_DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
_PREFIXES = ("ACCELERATE_", "TORCHELASTIC_", "FSDP_", "DEEPSPEED_")
_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY")


def snippet(model: str, picture: str) -> str:
    """Returns the lines for a model's folder or id, and a picture."""
    return _SNIPPET.format(model=json.dumps(model), picture=json.dumps(picture))


def try_usage(model: Path, pictures: datasets.Dataset, label_names: Sequence[str]) -> dict[str, Any]:
    """Runs the snippet on a saved model and the first of some pictures.

    Args:
        model (`Path`):
            The folder of the saved model.
        pictures (`datasets.Dataset`):
            A split, with the column `image` as stored.
        label_names (`Sequence[str]`):
            What it may answer.

    Returns:
        `dict`: `worked`, and `problem`, which says why it did not (`None` where it did).
    """
    image = pictures[0]["image"]
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"  # PIL goes by the contents, not by the name
        picture.write_bytes(image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes())
        script = Path(folder) / "snippet.py"
        script.write_text(snippet(str(model.absolute()), str(picture)), encoding="utf-8")
        try:
            answer = subprocess.run(
                [sys.executable, "-P", str(script)],
                capture_output=True, text=True, encoding="utf-8", errors="replace",
                cwd=folder, env=_environment(folder), timeout=SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return _failed(f"it gave no answer within {SECONDS} seconds")
    if answer.returncode != 0:
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        return _failed(lines[-1] if lines else f"exit code {answer.returncode}")
    said = [line.rsplit(" ", 1)[0] for line in answer.stdout.splitlines() if line.strip()]
    # Names of several lines cannot be told apart here; that there is an answer is seen all the same.
    known = {name.splitlines()[-1].strip() for name in label_names if name.strip()}
    if not said or not any(label.strip() in known for label in said):
        return _failed(f"it answered {said[:1]}, which is no label of the model")
    return {"worked": True, "problem": None}


def _failed(reason: str) -> dict[str, Any]:
    return {"worked": False, "problem": reason}


def _environment(home: str) -> dict[str, str]:
    """Returns what the process may know: no network, no accelerator that the run still holds, no secrets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _DISTRIBUTED and not name.startswith(_PREFIXES) and not any(word in name for word in _SECRETS)
    }
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": home,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONIOENCODING": "utf-8",
    }
