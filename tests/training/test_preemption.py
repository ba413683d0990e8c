"""SIGTERM: the step is finished, everything is saved, and all processes stop together."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import TrainerCallback

from hf_transfer.training.checkpoints import find_checkpoint
from hf_transfer.training.preemption import Preempted
from hf_transfer.training.session import train
from tests.processes import launched, on_cpus
from tests.training.killed_run import accuracy
from tests.training.tiny_run import tiny_model, tiny_trainer

SIGTERM_EXIT = 143


class AtStep(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, act):
        self.step = step
        self.act = act

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.act()


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail() -> None:
    raise RuntimeError("out of luck")


@pytest.fixture(autouse=True)
def handler() -> Iterator[object]:
    """Returns the handler that every test has to leave as it was, and that no signal of a test may reach."""

    def reached(number, frame):
        raise AssertionError("SIGTERM arrived where nobody waits for it")

    before = signal.signal(signal.SIGTERM, reached)
    yield reached
    signal.signal(signal.SIGTERM, before)


def trainer_of(folder: Path, step: int, act, **settings):
    """Returns a trainer of 15 steps, 5 an epoch, in which no evaluation but the first is the best."""
    usual = {"split_size": 18, "num_train_epochs": 3, "learning_rate": 0.0, "metric_for_best_model": "accuracy"}
    usual |= {"eval_strategy": "epoch", "save_strategy": "epoch", "compute_metrics": accuracy}
    return tiny_trainer(tiny_model("vit"), folder, callbacks=[AtStep(step, act)], **(usual | settings))


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        (3, {}),
        (10, {}),
        (10, {"save_strategy": "best"}),
        (8, {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 4}),
        (8, {"save_strategy": "no"}),
    ],
    ids=["within an epoch", "at its end", "best at the end of an epoch", "best at an evaluation", "no checkpoints"],
)
def test_it_saves_and_stops_after_the_step(step: int, settings: dict, tmp_path: Path, handler):
    trainer = trainer_of(tmp_path, step, ask_to_stop, **settings)
    strategy = trainer.args.save_strategy
    with pytest.raises(Preempted, match=f"after step {step};") as stopped:
        train(trainer, trainer.args)
    assert stopped.value.exit_code == SIGTERM_EXIT
    assert trainer.state.global_step == step
    assert find_checkpoint(tmp_path).folder == tmp_path / f"checkpoint-{step}"
    assert trainer.args.save_strategy == strategy
    assert signal.getsignal(signal.SIGTERM) is handler


def test_after_the_last_step_the_run_comes_to_its_end(tmp_path: Path):
    trainer = trainer_of(tmp_path, 15, ask_to_stop)
    assert train(trainer, trainer.args).steps == 15


def test_a_failed_training_gives_the_signal_back(tmp_path: Path, handler):
    trainer = trainer_of(tmp_path, 2, fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        train(trainer, trainer.args)
    assert signal.getsignal(signal.SIGTERM) is handler


def signalled(folder: Path, target: str, processes: int = 1) -> subprocess.CompletedProcess:
    words = launched("tests.training.signalled_run", str(folder), target, "3", processes=processes)
    # A group of its own, so that a signal to the group does not reach the tests.
    return subprocess.run(
        words, env=on_cpus(), capture_output=True, text=True, timeout=200, check=False, start_new_session=True
    )


def test_a_signal_to_one_process_stops_all(tmp_path: Path):
    stopped = signalled(tmp_path, "last", processes=2)
    assert stopped.stdout.count("Stopped by SIGTERM after step 3") == 2, stopped.stderr[-3000:]
    assert find_checkpoint(tmp_path).folder == tmp_path / "checkpoint-3"


def test_workers_of_data_loaders_outlive_a_signal_to_the_whole_group(tmp_path: Path):
    stopped = signalled(tmp_path, "group")
    assert "DataLoader worker" not in stopped.stderr
    assert stopped.returncode == SIGTERM_EXIT, stopped.stderr[-3000:]
    assert find_checkpoint(tmp_path).folder == tmp_path / "checkpoint-3"
