"""What needs no network at all: classical methods on the quickstart's digits, beside its frozen features.

Usage:
    python benchmarks/quickstart_classical.py

Five stratified splits, 20 training images per class each and the rest for testing, scikit-learn's defaults. Writes
`benchmarks/results/quickstart_classical.md`, which the checkpoint's card quotes.
"""

import statistics
from pathlib import Path

import numpy as np
import sklearn
import torch
from pipeline_runs import lab_note, made_here
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from written_table import table_head, write_lines

from hf_transfer.data.digits import load_digit_scans
from hf_transfer.data.images import to_rgb
from hf_transfer.data.transforms import build_eval_transform
from hf_transfer.models.checkpoint import load_checkpoint

TABLE = Path(__file__).parent / "results" / "quickstart_classical.md"
SEEDS = range(5)


def frozen_features() -> np.ndarray:
    """Returns what the head of the checkpoint sees of every digit, of shape `(1797, 160)`."""
    scans, labels = load_digit_scans()
    checkpoint = load_checkpoint("quickstart", label_names=sorted(set(labels)))
    transform = build_eval_transform(checkpoint.image_processor)
    seen: list[torch.Tensor] = []
    checkpoint.model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        for start in range(0, len(scans), 64):
            pictures = [transform(to_rgb(scan)) for scan in scans[start : start + 64]]
            checkpoint.model.eval()(pixel_values=torch.stack(pictures))
    return torch.cat(seen).numpy()


def accuracies(inputs: np.ndarray, labels: np.ndarray, make_model) -> list[float]:
    """Returns the test accuracy of each split."""
    scores = []
    for seed in SEEDS:
        train, test = train_test_split(np.arange(len(labels)), train_size=200, stratify=labels, random_state=seed)
        scores.append(make_model().fit(inputs[train], labels[train]).score(inputs[test], labels[test]))
    return scores


def main() -> None:
    pixels, labels = load_digits(return_X_y=True)

    def logistic() -> LogisticRegression:
        return LogisticRegression(max_iter=5000)

    rows = {
        "logistic regression on the checkpoint's frozen features": accuracies(frozen_features(), labels, logistic),
        "support vector machine on raw pixels": accuracies(pixels, labels, SVC),
        "logistic regression on raw pixels": accuracies(pixels, labels, logistic),
    }
    lines = ["# Digits without training a network", ""]
    lines += table_head("method", "test accuracy, mean +- standard deviation")
    lines += [f"| {name} | {statistics.mean(s):.3f} +- {statistics.stdev(s):.3f} |" for name, s in rows.items()]
    lines += [
        "",
        f"Five stratified splits, 200 training and {len(labels) - 200} test images. Command: "
        f"`python benchmarks/quickstart_classical.py`. scikit-learn {sklearn.__version__}. {lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
