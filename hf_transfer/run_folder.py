"""The folder of a run: made ready before it, filled after it.

Knows the names of the files in it (`OUTPUTS`) and never overwrites a run unasked. Does not know how a figure or a
table is made.
"""

import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from hf_transfer.config import FinetuneConfig, asks_to_resume
from hf_transfer.data.image_data import ImageData
from hf_transfer.errors import UserError
from hf_transfer.publishing.card import CARD, is_card, write_card
from hf_transfer.publishing.card_lint import check_card
from hf_transfer.publishing.lineage import collect_lineage
from hf_transfer.publishing.usage import try_usage
from hf_transfer.report import RunReport, write_json

if TYPE_CHECKING:
    from hf_transfer.evaluation.evaluator import Evaluation

OUTPUTS = {
    "model": "model",
    "report": "run.json",
    "metrics": "metrics.json",
    "history": "history.csv",
    "curves": "curves.png",
    "confusions": "confusion_matrix.png",
    "calibration": "calibration.png",
    "manifest": "manifest.jsonl",
    "card": CARD,
}
# What comes after a run, and tells of its data; it goes with it.
AFTERWARDS = ("push.json", "widget")


def prepare_run_folder(config: FinetuneConfig, folder: Path) -> None:
    """Makes sure that a run may write to `folder`.

    In a distributed run only the main process deletes what an earlier run left.

    Raises:
        UserError: if the folder holds a run and the user asked neither to resume nor to replace it, or if it cannot be
            written to.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder} is a file.", hint="--output_dir with the name of a folder")
    card = folder / OUTPUTS["card"]
    if card.is_file() and not is_card(card):
        raise UserError(
            f"--output_dir {folder} holds a {card.name} that is no model card of a run; the run would replace it.",
            hint="--output_dir in a folder of its own",
        )
    resuming = asks_to_resume(config.training.get("resume_from_checkpoint"))
    leftovers = _leftovers(folder)
    if leftovers and config.overwrite_output_dir and not resuming:
        if os.environ.get("RANK", "0") == "0":
            for path in leftovers:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif leftovers and not resuming:
        kind = "a finished run" if (folder / OUTPUTS["report"]).exists() else "an unfinished run"
        raise UserError(
            f"--output_dir {folder} holds {kind} already ({', '.join(path.name for path in leftovers[:3])}).",
            hint="another --output_dir, --resume_from_checkpoint last, or --overwrite_output_dir to replace it",
        )
    # Nothing is made yet: a run that is refused later on leaves nothing behind.
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"--output_dir {folder} cannot be written to.", hint="--output_dir in a folder of your own")


def write_outputs(
    report: RunReport, data: ImageData, evaluation: "Mapping[str, Evaluation]", folder: Path, check_usage: bool
) -> RunReport:
    """Writes all files of a run, metrics first and last of all `run.json`, whose presence says that it is finished.

    Args:
        report (`RunReport`):
            Everything but lineage and usage.
        data (`ImageData`):
            The pictures of the run.
        evaluation (`Mapping[str, Evaluation]`):
            By split; the test split is drawn.
        folder (`Path`):
            The run's folder, with the saved model in it.
        check_usage (`bool`):
            Whether the lines that show how the model is used are tried out.

    Returns:
        `RunReport`: with lineage and usage, as it was written.
    """
    start = time.perf_counter()
    write_json(report.metrics, folder / OUTPUTS["metrics"])
    # What is tried is a process of its own, which has seconds of imports before it: time to draw in.
    with ThreadPoolExecutor(1) as pool:
        model = folder / OUTPUTS["model"]
        trial = pool.submit(try_usage, model, data.test, data.label_names) if check_usage else None
        _write_tables_and_figures(report, evaluation["test"], folder)
    usage = None if trial is None else trial.result()
    if usage and not usage["worked"]:
        print(f"note: the card says nothing about use, since the lines for it failed: {usage['problem']}")
    report = dataclasses.replace(report, lineage=collect_lineage(report, data, folder), usage=usage)
    report.seconds["card"] = round(time.perf_counter() - start, 3)
    write_card(report.to_dict(), folder)
    for problem in check_card(folder, report.to_dict(), CARD):
        print(f"note: the card needs a look: {problem}")
    write_json(report, folder / OUTPUTS["report"])
    return report


def _write_tables_and_figures(report: RunReport, test: "Evaluation", folder: Path) -> None:
    # Only now, when the run is over: matplotlib takes half a second that the first step need not wait for.
    from hf_transfer.evaluation.curves import plot_curves, write_history_csv
    from hf_transfer.evaluation.figures import plot_calibration, plot_confusion_matrix

    write_history_csv(report.history, folder / OUTPUTS["history"])
    arguments = report.training_arguments
    plot_curves(
        report.history,
        folder / OUTPUTS["curves"],
        metric=(arguments["metric_for_best_model"] or "accuracy").removeprefix("eval_"),
        greater_is_better=arguments["greater_is_better"] is not False,
        kept_step=report.training["best_step"],
    )
    plot_confusion_matrix(test, folder / OUTPUTS["confusions"])
    plot_calibration(test, folder / OUTPUTS["calibration"])


def _leftovers(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    named = [folder / name for name in (*OUTPUTS.values(), *AFTERWARDS)]
    return [path for path in (*named, *sorted(folder.glob("checkpoint-*"))) if path.exists()]
