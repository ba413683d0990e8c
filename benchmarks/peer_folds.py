"""Accuracy of ours and of peers on every picture of a data set: whole runs on five folds.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/peer_folds.py

`benchmarks/peers.py` judges on a test split of a few hundred pictures, always the same, of which one is 0.3 points.
Here the splits are put together and dealt out anew in five folds: each is the test split once, and a fifth of the rest
is for validation. Commands are those of `peers.py`, for the peers that come closest to ours there: the one whose
network is frozen and the one whose normalisation layers learn, in all epochs. Ours lets them learn for one epoch
there, and for more here, as far as an eighth of that peer's time goes. The results decided one default: that two views
are kept after `--tune_norms`, as without it, and not one. Writes `benchmarks/results/peer_folds.md`, and
`peer_folds.jsonl`; runs that are in it are not repeated.
"""

import dataclasses
import os
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import peer_plan as plan
from peer_files import PICTURES, SCRATCH, SPLITS, Files, ListedFile, read_files, read_list, shared_files, write_list
from peer_results import WITHIN, in_pairs, of, paired, spread
from peer_table import shown
from peers import run_contender
from pipeline_runs import lab_note, make_planned
from sklearn.model_selection import StratifiedKFold
from written_table import table_head, table_row, write_lines

RECORDS = Path(__file__).parent / "results" / "peer_folds.jsonl"
TABLE = RECORDS.with_suffix(".md")
FOLDS = 5
ROWS = (plan.Row(plan.EXTRACTION, "vit_tiny_patch16_224", "clothing10"),)
"""Whose accuracies in `peers.md` are less than a few pictures apart."""
ONE_VIEW, FOUR_VIEWS = "ours, norms first, one view", "ours, norms first, four views"
TWO_EPOCHS, FOUR_EPOCHS = "ours, norms for two epochs", "ours, norms for four epochs"
SIX_EPOCHS = "ours, norms for six epochs"
PAIRS = (
    (plan.OURS_COLD, plan.TRAINER_SENSIBLE),
    (plan.OURS_NORMS, plan.TRAINER_SENSIBLE),
    (plan.OURS_NORMS, plan.OURS_COLD),
    (plan.OURS_NORMS, ONE_VIEW),
    (FOUR_VIEWS, plan.OURS_NORMS),
    (TWO_EPOCHS, plan.OURS_NORMS),
    (FOUR_EPOCHS, TWO_EPOCHS),
    (SIX_EPOCHS, FOUR_EPOCHS),
    (plan.OURS_NORMS, plan.FASTAI_DEFAULTS),
    (FOUR_VIEWS, plan.FASTAI_DEFAULTS),
    (TWO_EPOCHS, plan.FASTAI_DEFAULTS),
    (FOUR_EPOCHS, plan.FASTAI_DEFAULTS),
    (SIX_EPOCHS, plan.FASTAI_DEFAULTS),
)
"""One of ours, and what it is held against."""
_THERE = {contender.name: contender for contender in plan.CONTENDERS[plan.EXTRACTION]}
_COLD = _THERE[plan.OURS_COLD]
_OPTIONS = {
    ONE_VIEW: ("--tune_norms", "1", "--cache_views", "1"),
    FOUR_VIEWS: ("--tune_norms", "1", "--cache_views", "4"),
    TWO_EPOCHS: ("--tune_norms", "2"),
    FOUR_EPOCHS: ("--tune_norms", "4"),
    SIX_EPOCHS: ("--tune_norms", "6"),
}
_VARIED = {
    name: dataclasses.replace(_COLD, name=name, options=(*_COLD.options, *options))
    for name, options in _OPTIONS.items()
}
CONTENDERS = {name: one for name, one in (_THERE | _VARIED).items() if any(name in pair for pair in PAIRS)}
"""Those of `peers.py` that are compared here, and ours with other options."""
PLANNED = tuple((row.name, fold, name) for row in ROWS for fold in range(FOLDS) for name in CONTENDERS)


def dealt_out(files: Files, fold: int) -> dict[str, list[tuple[Path, int]]]:
    """Returns the pictures of each split, and their labels, where a fold is the test split."""
    rows = [row for split in SPLITS for row in files.rows[split]]

    def fifth(chosen: Sequence[tuple[Path, int]], number: int) -> tuple[list, list]:
        """Returns one of five parts, each of them with its share of every class, and the rest."""
        labels = [label for _, label in chosen]
        rest, part = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels))[number]
        return [chosen[index] for index in part], [chosen[index] for index in rest]

    test, others = fifth(rows, fold)
    validation, train = fifth(others, 0)
    return {"train": train, "validation": validation, "test": test}


def fold_folder(data: Path, fold: int) -> Path:
    """Writes the splits of a fold as `peer_files` does, and returns their folder."""
    files, folder = read_files(data), data.with_name(f"{data.name}-fold-{fold}")
    hashes = {line.file: line.sha256 for line in read_list(data)}
    shutil.rmtree(folder, ignore_errors=True)
    lines = []
    for split, rows in dealt_out(files, fold).items():
        for path, number in rows:
            label, before = files.label_names[number], path.relative_to(files.folder)
            # Names count up within each of the former splits.
            name = Path(split) / label / f"{before.parts[0]}-{path.name}"
            (folder / PICTURES / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, folder / PICTURES / name)
            lines.append(ListedFile(split, name.as_posix(), label, hashes[before.as_posix()]))
    write_list(folder, lines)
    return folder


def measured(row_name: str, fold: int, contender: str) -> dict:
    """Returns the record of one run."""
    row = next(row for row in ROWS if row.name == row_name)
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    data = shared_files(assets / "datasets" / f"{row.dataset}.tar", SCRATCH)
    epochs = plan.EPOCHS[row.task]
    return run_contender(
        plan.Run(row, CONTENDERS[contender], fold, epochs, epochs), assets, fold_folder(data, fold), SCRATCH
    )


def write_table(records: Sequence[dict]) -> None:
    """Writes what all finished runs gave."""
    lines = ["# Ours and peers on every picture: five folds", ""]
    lines += ["Whole runs of `feature-extraction`, 20 epochs, by the commands of `benchmarks/peers.py`; the splits"]
    lines += ["of the data set are put together, and each fold is the test split once. Mean test accuracy over folds,"]
    lines += ["the mean difference within folds and its standard error; seconds as there, and their ratio within"]
    lines += ["folds. Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/peer_folds.py`.", ""]
    columns = ("row", "of ours", "beside", "folds", "ours", "theirs", "difference")
    lines += table_head(*columns, f"at least -{WITHIN:g}", "times as long")
    lines += [_row(row.name, *pair, records) for row in ROWS for pair in PAIRS if paired(records, row.name, *pair)]
    columns = ("row", "contender", "seconds", "validation accuracy, mean", "test accuracy, mean", "of each fold")
    lines += ["", *table_head(*columns, "test pictures")]
    lines += [_runs(row.name, name, records) for row in ROWS for name in CONTENDERS if of(records, row.name, name)]
    lines += ["", f"{len(records)} of {len(PLANNED)} planned runs are in the table. {lab_note(records)}"]
    write_lines(TABLE, lines)


def _row(row: str, ours: str, peer: str, records: Sequence[dict]) -> str:
    pairs = in_pairs(records, row, ours, peer, lambda record: record["accuracy"])
    mine, theirs = (statistics.mean(values) for values in zip(*pairs, strict=True))
    differences = [one - other for one, other in pairs]
    whole = len(differences) == FOLDS
    error = f" +- {statistics.stdev(differences) / FOLDS**0.5:.4f}" if whole else ""
    holds = ("yes" if mine - theirs >= -WITHIN else "**no**") if whole else "too few folds"
    cells = [f"{mine:.4f}", f"{theirs:.4f}", f"{mine - theirs:+.4f}{error}", holds]
    longer = shown(paired(records, row, peer, ours))
    return table_row(row, ours, peer, str(len(pairs)), *cells, longer)


def _runs(row: str, contender: str, records: Sequence[dict]) -> str:
    runs = of(records, row, contender)
    # Peers do not say how accurate they are on validation pictures, nor did the first runs of ours.
    validation = [run["validation_accuracy"] for run in runs if "validation_accuracy" in run]
    on_validation = f"{statistics.mean(validation):.4f}" if len(validation) == len(runs) else ""
    accuracies = [run["accuracy"] for run in runs]
    cells = [on_validation, f"{statistics.mean(accuracies):.4f}", ", ".join(f"{one:.4f}" for one in accuracies)]
    pictures = sum(record["images"]["test"] for record in runs)
    seconds = shown(spread([record["seconds"] for record in runs]))
    return table_row(row, contender, seconds, *cells, str(pictures))


def main() -> None:
    make_planned(__doc__ or "", RECORDS, ("row", "fold", "contender"), PLANNED, measured, write_table)


if __name__ == "__main__":
    main()
