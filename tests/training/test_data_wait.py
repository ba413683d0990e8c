"""The wait for pictures is measured, step by step, and told."""

import time
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from hf_transfer.training.callbacks import evaluation_line
from hf_transfer.training.data_wait import DataWait
from tests.training.tiny_run import tiny_model, tiny_trainer


class Slow(Dataset):
    """Takes its time for every picture."""

    def __init__(self, dataset: Dataset, seconds: float):
        self.dataset = dataset
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, visit: int):
        time.sleep(self.seconds)
        return self.dataset[visit]


def test_a_slow_data_set_is_waited_for(tmp_path: Path):
    trainer = tiny_trainer(tiny_model("vit"), tmp_path, num_train_epochs=1)
    trainer.train_dataset = Slow(trainer.train_dataset, 0.02)
    trainer.train()
    wait = trainer.data_wait
    # 20 pictures.
    assert 0.4 <= wait.waited < wait.total
    assert wait.share == pytest.approx(wait.waited / wait.total)


def test_evaluation_and_saving_are_no_part_of_a_step(tmp_path: Path):
    trainer = tiny_trainer(
        tiny_model("vit"), tmp_path, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch"
    )
    evaluate, evaluations = trainer.evaluate, []

    def timed(*args, **kwargs):
        began = time.perf_counter()
        try:
            return evaluate(*args, **kwargs)
        finally:
            evaluations.append(time.perf_counter() - began)

    trainer.evaluate = timed
    began = time.perf_counter()
    trainer.train()
    # However slow the machine is.
    assert len(evaluations) == 2
    assert trainer.data_wait.total <= time.perf_counter() - began - sum(evaluations)


def test_a_share_is_that_of_the_time_since_the_last_one(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 1.0, 4.0, 10.0, 13.0, 14.0])
    monkeypatch.setattr("hf_transfer.training.data_wait.time.perf_counter", lambda: next(clock))
    wait = DataWait()
    assert wait.share is None
    with wait.fetching():
        pass
    wait.on_step_end(None, None, None)
    assert wait.share_since_last() == 0.25
    assert wait.share_since_last() is None
    with wait.fetching():
        pass
    wait.on_step_end(None, None, None)
    assert wait.share_since_last() == 0.75
    assert wait.share == 0.5


def test_the_line_of_an_evaluation_tells_it():
    class State:
        epoch, num_train_epochs, global_step, max_steps = 1.0, 2, 5, 10

    assert evaluation_line(State, {"eval_loss": 1.0}, None, 0.126).endswith("waited for pictures 13%")
    assert "waited" not in evaluation_line(State, {"eval_loss": 1.0}, None)
