"""The lines that show how a model is used, tried out before they are written down.

Knows the snippet, and how it is run: in a new process, without the network, on the saved files and one test picture.
Does not know the card that it goes into.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from hf_transfer.publishing.lone_process import lone_environment

_SNIPPET = """from transformers import pipeline

classifier = pipeline("image-classification", model={model})
for answer in classifier({picture}):
    print(answer["label"], round(answer["score"], 4))
"""
SECONDS = 300
"""A large model on a slow disk takes a minute; one that takes longer than this is of no use as an example."""


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
                cwd=folder, env=lone_environment(folder), timeout=SECONDS, check=False,
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
