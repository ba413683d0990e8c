"""The folder of a run: made ready before it, filled after it.

Knows the names of the files in it (`OUTPUTS`) and never overwrites a run unasked. Does not know how a figure or a
table is made.
"""

import os
import shutil
from pathlib import Path

from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError
from hf_transfer.report import RunReport, write_json

OUTPUTS = {
    "model": "model",
    "report": "run.json",
    "metrics": "metrics.json",
    "history": "history.csv",
    "curves": "curves.png",
}
# What comes after a run, and tells of its data; it goes with it.
AFTERWARDS = ("push.json", "widget")
_RESUME_WORDS_OFF = (None, "False", "false", "no")


def prepare_run_folder(config: FinetuneConfig, folder: Path) -> None:
    """Makes sure that a run may write to `folder`.

    In a distributed run only the main process deletes what an earlier run left.

    Raises:
        UserError: if the folder holds a run and the user asked neither to resume nor to replace it, or if it cannot be
            written to.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder} is a file.", hint="--output_dir with the name of a folder")
    resuming = config.training.get("resume_from_checkpoint") not in _RESUME_WORDS_OFF
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


def write_outputs(report: RunReport, folder: Path) -> None:
    """Writes history, curves, metrics and, last of all, `run.json`, whose presence says that the run is finished."""
    # Only now, when the run is over: matplotlib takes half a second that the first step need not wait for.
    from hf_transfer.evaluation.curves import plot_curves, write_history_csv

    write_history_csv(report.history, folder / OUTPUTS["history"])
    arguments = report.training_arguments
    plot_curves(
        report.history,
        folder / OUTPUTS["curves"],
        metric=(arguments["metric_for_best_model"] or "accuracy").removeprefix("eval_"),
        greater_is_better=arguments["greater_is_better"] is not False,
    )
    write_json(report.metrics, folder / OUTPUTS["metrics"])
    write_json(report, folder / OUTPUTS["report"])


def _leftovers(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    named = [folder / name for name in (*OUTPUTS.values(), *AFTERWARDS)]
    return [path for path in (*named, *sorted(folder.glob("checkpoint-*"))) if path.exists()]
