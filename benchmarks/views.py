"""How many augmented views of each picture a head on frozen features needs, and whether to solve it or to step.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/views.py

Eight views of each training picture with light variation, and one without any, go through the frozen network once.
Heads are trained as the pipeline does, for 6 and for 20 epochs in which the views repeat, or solved by L-BFGS
(scikit-learn's logistic regression on standardised features, its strength chosen on the same validation data); each
seed has other views of the eight. Judged by the best accuracy on the validation split: this chose the default of
`--cache_views`. Writes `benchmarks/results/views.md`.
"""

import os
import statistics
from datetime import UTC, datetime
from pathlib import Path

import frozen_features
import torch
from frozen_features import best_accuracy, features
from frozen_head import load
from sklearn.linear_model import LogisticRegression

from hf_transfer.data.proportions import choose_proportions
from hf_transfer.data.transforms import POLICIES, build_eval_transform, build_train_transform
from hf_transfer.environment import hardware, package_versions
from hf_transfer.training.head_rate import LOGIT_STEP

TABLE = Path(__file__).parent / "results" / "views.md"
RUNS = (
    ("mobilenet_v1_0.25_128", "clothing10"),
    ("mobilenet_v1_0.5_160", "clothing10"),
    ("mobilenet_v1_0.5_160", "rbc12"),
    ("vit_tiny_patch16_224", "clothing10"),
)
MOST, SEEDS = 8, 5
NUMBERS = (1, 2, 4, 8)
EPOCHS = (6, 20)
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""scikit-learn's C for one view; divided by their number for more."""


def stepped(views: list[torch.Tensor], labels: torch.Tensor, held_out: tuple, seed: int, epochs: int) -> float:
    """Returns the best validation accuracy of a head trained by AdamW."""
    frozen_features.EPOCHS = epochs
    return best_accuracy(views, labels, held_out, seed, LOGIT_STEP / float(views[0].abs().sum(1).mean()))


def solved(views: list[torch.Tensor], labels: torch.Tensor, held_out: tuple) -> float:
    """Returns the best validation accuracy of a head that L-BFGS solved."""
    seen = torch.cat(views)
    mean, spread = seen.mean(0), seen.std(0).clamp_min(1e-6)
    best = 0.0
    for strength in STRENGTHS:
        head = LogisticRegression(C=strength / len(views), max_iter=300, tol=1e-3)
        head.fit(((seen - mean) / spread).numpy(), labels.repeat(len(views)).numpy())
        best = max(best, head.score(((held_out[0] - mean) / spread).numpy(), held_out[1].numpy()))
    return best


def chosen(views: list[torch.Tensor], number: int, seed: int) -> list[torch.Tensor]:
    """Returns some of the views, others for each seed."""
    generator = torch.Generator().manual_seed(seed)
    return [views[index] for index in torch.randperm(len(views), generator=generator)[:number].tolist()]


def shown(scores: list[float]) -> str:
    """Returns mean and standard deviation."""
    return (
        f"{statistics.mean(scores):.3f} +- {statistics.stdev(scores):.3f}" if len(scores) > 1 else f"{scores[0]:.3f}"
    )


def rows(assets: Path, checkpoint_name: str, dataset: str) -> list[str]:
    """Returns the table rows of one network and data set."""
    checkpoint, data = load(assets, checkpoint_name, dataset)
    processor = choose_proportions(checkpoint.image_processor, data.train, "auto").image_processor
    held_out = (
        features(checkpoint, data.validation, build_eval_transform(processor), None, 0),
        torch.tensor(data.validation["label"]),
    )
    labels = torch.tensor(data.train["label"])
    still = [features(checkpoint, data.train, build_eval_transform(processor), None, 0)]
    varied = build_train_transform(processor, POLICIES["light"])
    views = [features(checkpoint, data.train, varied, 0, view) for view in range(MOST)]
    found = []
    for name, sets in (
        ("1, not varied", [still] * SEEDS),
        *((str(number), [chosen(views, number, seed) for seed in range(SEEDS)]) for number in NUMBERS),
    ):
        cells = [
            shown([stepped(one, labels, held_out, seed, epochs) for seed, one in enumerate(sets)]) for epochs in EPOCHS
        ]
        different = sets if name not in ("1, not varied", str(MOST)) else sets[:1]
        cells.append(shown([solved(one, labels, held_out) for one in different]))
        found.append(f"| {checkpoint_name} | {dataset} | {name} | {' | '.join(cells)} |")
        print(found[-1], flush=True)
    return found


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    lines = ["# Views of each picture, for a head on frozen features", ""]
    lines += ["Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/views.py`. Best accuracy on validation"]
    lines += [f"data, mean and standard deviation of {SEEDS} seeds.", ""]
    lines += [
        "| checkpoint | data set | views | 6 epochs | 20 epochs | solved by L-BFGS |",
        "|---|---|---|---|---|---|",
    ]
    for number, run in enumerate(RUNS, start=1):
        lines += rows(assets, *run)
        write_table([*lines, "", f"{number} of {len(RUNS)} planned pairs are in the table."])


def write_table(lines: list[str]) -> None:
    """Writes the rows so far, with the lab note."""
    machine, versions = hardware(1), package_versions()
    used = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "transformers", "scikit-learn") if name in versions
    )
    lines += ["", f"Hardware: {machine['processor']}, {machine['cores']} cores. Versions: {used}."]
    lines += [f"Date: {datetime.now(UTC).date().isoformat()}."]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
