"""Checkpoints that can be trusted: whole or not there, and only continued by the same run.

Knows what has to be in a checkpoint beside what Trainer writes: a list of its files, made last of all; what the run
is, so that another one is refused; and the running loss of the part of an epoch that is not logged yet, without which
the history of a resumed run would differ. Does not know when a checkpoint is written (`TransferTrainer`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_transfer.atomic import write_atomically
from hf_transfer.config import asks_to_resume
from hf_transfer.errors import UserError

CONTENTS_FILE = "contents.json"
"""Names and sizes of a checkpoint's files; written after all of them, so that a checkpoint with it is whole."""
RUN_FILE = "run_identity.json"
CHOICES_FILE = "choices.json"
"""What a run chose by measuring: another measurement could choose otherwise, and end with other roundings."""


@dataclass(frozen=True)
class FoundCheckpoint:
    """The checkpoint to continue from, and what was passed over."""

    folder: Path | None
    notes: tuple[str, ...]


def seal_checkpoint(folder: Path) -> None:
    """Writes down which files a checkpoint has; the last thing that happens to it."""
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CONTENTS_FILE
    }
    _write_json(folder / CONTENTS_FILE, sizes)


def break_seal(folder: Path) -> None:
    """Makes a checkpoint count as cut off, before it is written over: old and new files may have the same sizes."""
    (folder / CONTENTS_FILE).unlink(missing_ok=True)


def is_whole(folder: Path) -> bool:
    """Tells whether a checkpoint was written to the end and nothing of it has been lost since."""
    try:
        sizes = json.loads((folder / CONTENTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(sizes, dict) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items()
    )


def find_checkpoint(output_dir: Path) -> FoundCheckpoint:
    """Finds the last checkpoint of a run that is whole.

    Args:
        output_dir (`Path`):
            The folder of the run; it need not exist.

    Returns:
        [`FoundCheckpoint`]: the folder, `None` if there is none, with a sentence about each that was cut off.
    """
    notes: list[str] = []
    for folder in sorted(output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=_step, reverse=True):
        if _step(folder) >= 0 and is_whole(folder):
            return FoundCheckpoint(folder, tuple(notes))
        if _step(folder) >= 0:
            notes.append(f"{folder.name} was cut off while it was written, and is passed over.")
    return FoundCheckpoint(None, tuple(notes))


def checkpoint_to_continue(args: TrainingArguments) -> FoundCheckpoint:
    """Finds the checkpoint that the user wants to continue from.

    Returns:
        [`FoundCheckpoint`]: a folder that is whole, `None` to begin at the beginning.

    Raises:
        UserError: if there is no such checkpoint, or it is not whole.
    """
    given = args.resume_from_checkpoint
    word = str(given).lower()
    if given is None or not asks_to_resume(given):
        return FoundCheckpoint(None, ())
    if word in ("true", "yes", "last", "auto"):
        found = find_checkpoint(Path(str(args.output_dir)))
        if found.folder is None and word != "auto":
            nothing = f"--resume_from_checkpoint {given}: {args.output_dir} holds no checkpoint that is whole."
            raise UserError(
                " ".join([nothing, *found.notes]),
                hint="leave --resume_from_checkpoint out to start from the beginning, or `auto` to start where there "
                "is none",
            )
        return found
    if not Path(given).is_dir():
        raise UserError(
            f"--resume_from_checkpoint {given}: there is no such folder.", allowed="a folder, `last`, or `auto`"
        )
    if not is_whole(Path(given)):
        raise UserError(
            f"--resume_from_checkpoint {given} was cut off while it was written, or has lost files since.",
            hint="--resume_from_checkpoint last takes the last one that is whole",
        )
    return FoundCheckpoint(Path(given), ())


def refuse_weights_only(folder: Path) -> None:
    """Raises for a checkpoint without the optimizer's state, as `--save_only_model` leaves it."""
    if not any(folder.glob("optimizer*")) and not any(folder.glob("global_step*")):
        raise UserError(
            f"{folder} holds weights alone, so the run cannot be continued from it.",
            allowed="a checkpoint that was saved without --save_only_model",
            hint=f"--model {folder} and another --output_dir, for a new run from these weights",
        )


def find_best(state: TrainerState, folder: Path) -> None:
    """Points a state at its best checkpoint beside `folder`, where the folder of the run has been moved since."""
    recorded = state.best_model_checkpoint
    if state.best_global_step is not None and (recorded is None or not Path(recorded).is_dir()):
        beside = folder.parent / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
        state.best_model_checkpoint = str(beside) if is_whole(beside) else None


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Writes down which run a checkpoint belongs to."""
    _write_json(folder / RUN_FILE, identity)


def recorded_identity(folder: Path) -> dict[str, Any] | None:
    """Returns which run a checkpoint says it belongs to; `None` where it does not say."""
    path = folder / RUN_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def recorded_value(folder: Path | None, name: str) -> Any | None:
    """Returns one part of [`recorded_identity`]; `None` without a checkpoint, or where it does not say."""
    identity = None if folder is None else recorded_identity(folder)
    return (identity or {}).get(name)


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of another run.

    Args:
        folder (`Path`):
            The checkpoint.
        identity (`Mapping[str, Any]`):
            What this run is, as [`write_identity`] was given it.

    Raises:
        UserError: with everything that differs, what it was and what it is.
    """
    before = recorded_identity(folder)
    if before is None:
        raise UserError(
            f"{folder} does not say which run it belongs to ({RUN_FILE} is missing), so it cannot be continued.",
            "a checkpoint written by this version of hf_transfer",
        )
    now = json.loads(json.dumps(identity))
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        differences = "; ".join(
            f"{name}: it was {_short(before.get(name))}, it is {_short(now[name])}" for name in changed
        )
        raise UserError(
            f"{folder} belongs to another run. {differences}.",
            "to go on with the settings that the run began with",
            "the same command as before, or another --output_dir for a new run",
        )


def write_choices(folder: Path, choices: Mapping[str, Any]) -> None:
    """Writes down what a run chose by measuring, as JSON values by name."""
    _write_json(folder / CHOICES_FILE, choices)


def read_choices(folder: Path) -> dict[str, Any]:
    """Returns what [`write_choices`] wrote; nothing where an older version wrote the checkpoint."""
    path = folder / CHOICES_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def save_running_loss(trainer: Trainer, folder: Path) -> None:
    """Saves the loss that this process has summed up since the last log entry."""
    facts = {
        "tr_loss": trainer._tr_loss.double().item(),
        "total_loss_scalar": trainer._total_loss_scalar,
        "globalstep_last_logged": trainer._globalstep_last_logged,
    }
    _write_json(_running_loss_file(trainer, folder), facts)


def restore_running_loss(trainer: Trainer, folder: Path) -> None:
    """Takes up the loss where [`save_running_loss`] left it; Trainer begins at zero (transformers 5.23)."""
    path = _running_loss_file(trainer, folder)
    if not path.is_file():
        # Written by another number of processes: the loss of the part of an epoch is then that of the rest of it.
        return
    facts = json.loads(path.read_text(encoding="utf-8"))
    trainer._tr_loss = torch.tensor(facts["tr_loss"], dtype=trainer._tr_loss.dtype, device=trainer._tr_loss.device)
    trainer._total_loss_scalar = facts["total_loss_scalar"]
    trainer._globalstep_last_logged = facts["globalstep_last_logged"]
    trainer._initial_global_step = 0


class SaveAfterEpochCallback(TrainerCallback):
    """Puts off a checkpoint that is due at the last step of an epoch until the epoch's log and evaluation are done.

    Trainer (transformers 5.23) writes it before them, and a run continued from it never makes them up.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._due = False

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save and state.global_step % self.trainer.steps_per_epoch == 0:
            control.should_save = False
            self._due = True

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save = control.should_save or self._due
        self._due = False


class RunningLossCallback(TrainerCallback):
    """Takes up the running loss of a checkpoint, once Trainer has set its own to zero."""

    def __init__(self, trainer: Trainer, folder: Path):
        self.trainer = trainer
        self.folder = folder

    def on_train_begin(self, args, state, control, **kwargs):
        restore_running_loss(self.trainer, self.folder)


def stopped_early(folder: Path) -> bool:
    """Tells whether early stopping had ended the training when a checkpoint was written."""
    state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
    control = state.stateful_callbacks.get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop")) and state.global_step < state.max_steps


def _running_loss_file(trainer: Trainer, folder: Path) -> Path:
    return folder / f"running_loss_{trainer.args.process_index}_of_{trainer.args.world_size}.json"


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1), encoding="utf-8"))
