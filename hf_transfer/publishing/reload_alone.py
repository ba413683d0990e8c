"""Loads a published model as its users will, without this package, and says what it makes of some pictures.

Usage: python -P reload_alone.py FILE.json, with what to load and to look at; the answers replace the file's contents.
Run by `hf_transfer.publishing.push_proof` in a process of its own; imports nothing of hf_transfer, and proves that
nothing else did.
"""

import json
import sys


def answer(task: dict) -> dict:
    """Loads every model of the task by transformers' own classes, and returns its logits and labels."""
    import torch
    import transformers
    from PIL import Image

    pictures = []
    for name in task["pictures"]:
        with Image.open(name) as opened:
            pictures.append(opened.convert("RGB"))
    answers = {}
    for name, source in task["models"].items():
        model = transformers.AutoModelForImageClassification.from_pretrained(dtype=torch.float32, **source).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(**source)
        logits = []
        for picture in pictures:
            with torch.inference_mode():
                logits.append(model(**processor(picture, return_tensors="pt")).logits[0].tolist())
        labels = [model.config.id2label[index] for index in range(len(model.config.id2label))]
        answers[name] = {"logits": logits, "labels": labels}
    return {"answers": answers, "transformers": transformers.__version__}


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        task = json.load(file)
    answers = answer(task)
    if any(module.split(".")[0] == "hf_transfer" for module in sys.modules):
        raise RuntimeError("hf_transfer was imported, so nothing is proven")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main(sys.argv[1])
