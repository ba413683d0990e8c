"""Whether compiling pays: judged on made-up numbers, tried without a trace, followed by all and on resume."""

import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import set_seed

from hf_transfer.cli import main
from hf_transfer.training import compiling
from hf_transfer.training.checkpoints import find_checkpoint
from hf_transfer.training.compiling import CompileTrial, judge, judge_trial, reason_against
from hf_transfer.training.session import train
from hf_transfer.training.strategies import Unfreezing
from hf_transfer.training.trainer import TransferTrainer
from tests.processes import launched, run_on_cpus
from tests.tiny_project import tiny_project
from tests.training.cached_run import cached_trainer
from tests.training.tiny_run import tiny_model, tiny_trainer


class Counting:
    """A compiler that leaves every graph as it is, and counts how often graphs run."""

    def __init__(self):
        self.runs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable:
        def run(*values: Any) -> Any:
            self.runs += 1
            return graph.forward(*values)

        return run


def broken(graph: torch.fx.GraphModule, inputs: Any) -> Callable:
    raise RuntimeError("no compiler on this machine")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every training long enough for a trial, and every trial a success."""
    monkeypatch.setattr(compiling, "EXPECTED_COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(compiling, "judge", lambda *numbers: compiling.Compilation(True, "always", *numbers))


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every training long enough for a trial, and every trial a failure."""
    monkeypatch.setattr(compiling, "EXPECTED_COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(compiling, "LEAST_SAVING", 2.0)


def trained(
    family: str, folder: Path, backend: Any = None, **settings: Any
) -> tuple[dict[str, torch.Tensor], TransferTrainer]:
    """Returns the weights and buffers that a training of four steps ends with, and its trainer."""
    trainer = trainer_of(family, folder, backend, **settings)
    train(trainer, trainer.args)
    state = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
    return state | {"random numbers": torch.get_rng_state()}, trainer


def trainer_of(family: str, folder: Path, backend: Any = None, **settings: Any) -> TransferTrainer:
    torch.compiler.reset()
    model = tiny_model(family)
    dropout = settings.pop("dropout", 0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    set_seed(5)
    usual = {
        "split_size": 8,
        "strategy": "full",
        "eval_strategy": "epoch",
        "restore_callback_states_from_checkpoint": 1,
    }
    trainer = tiny_trainer(model, folder, family, **(usual | settings))
    if backend is not None:
        trainer.compiling = CompileTrial(trainer, backend)
        trainer.add_callback(trainer.compiling)
    return trainer


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# The judgement


def test_a_short_training_is_not_worth_a_trial():
    no = judge_trial(100, 0.05)
    assert no is not None
    assert not no.compiled
    assert no.reason == "100 steps of 0.05 s would save 2.44 s at best, and compiling takes about 60 s"
    assert (no.planned_steps, no.eager_step_seconds, no.compile_seconds) == (100, 0.05, None)


def test_a_long_training_is_worth_a_trial():
    assert judge_trial(10_000, 0.05) is None


def test_fast_enough_pays():
    decision = judge(10_000, 0.05, 0.04, 60.0)
    assert decision.compiled
    assert decision.break_even_steps == 6000
    assert decision.reason.endswith("the 60 s of compiling are made up for after 6000 steps of 10000")


def test_what_the_trial_took_is_spent():
    decision = judge(1_000, 0.05, 0.04, 60.0)
    assert decision.compiled
    assert decision.break_even_steps == 6000
    assert decision.reason.endswith("after 6000 steps, but are spent; 1000 follow")


@pytest.mark.parametrize("compiled_seconds", [0.0485, 0.05, 0.07])
def test_no_faster_does_not_pay(compiled_seconds: float):
    decision = judge(10**6, 0.05, compiled_seconds, 60.0)
    assert not decision.compiled
    assert decision.break_even_steps is None
    assert decision.compiled_step_seconds == compiled_seconds


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"is_fsdp_enabled": True}, "FSDP"),
        ({"is_deepspeed_enabled": True}, "DeepSpeed"),
        ({"args": types.SimpleNamespace(device=torch.device("mps"))}, "never tried on mps"),
        ({"unfreezing": types.SimpleNamespace(unfreezing=Unfreezing(strategy="progressive"))}, "thaws layers"),
        ({"unfreezing": types.SimpleNamespace(unfreezing=Unfreezing(strategy="lp-ft"))}, "thaws layers"),
        ({"prefix": types.SimpleNamespace(in_use=True)}, "cannot be cut"),
        ({"prefix": types.SimpleNamespace(in_use=False)}, None),
        ({}, None),
    ],
)
def test_where_it_cannot_be(settings: dict, words: str | None):
    usual = {
        "is_fsdp_enabled": False,
        "is_deepspeed_enabled": False,
        "args": types.SimpleNamespace(device=torch.device("cpu")),
        "unfreezing": types.SimpleNamespace(unfreezing=Unfreezing(strategy="full")),
        "prefix": None,
    }
    against = reason_against(types.SimpleNamespace(**(usual | settings)))
    assert (words is None and against is None) or (words is not None and words in str(against))


# The trajectory


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_a_no_leaves_no_trace(family: str, tmp_path: Path):
    plain, _ = trained(family, tmp_path / "plain")
    auto, trainer = trained(family, tmp_path / "auto", "inductor")
    assert "at best" in trainer.compiling.decision.reason
    assert_same(plain, auto)


@pytest.mark.parametrize("family", ["vit", "resnet"])
@pytest.mark.usefixtures("never")
def test_a_no_after_a_trial_leaves_no_trace(family: str, tmp_path: Path):
    plain, _ = trained(family, tmp_path / "plain")
    compiler = Counting()
    auto, trainer = trained(family, tmp_path / "auto", compiler)
    assert compiler.runs == 1 + compiling.TIMED_STEPS
    assert not trainer.compiling.decision.compiled
    assert trainer.compiling.decision.compiled_step_seconds > 0
    assert_same(plain, auto)


@pytest.mark.parametrize("strategy", ["full", "feature-extraction"])
@pytest.mark.usefixtures("always")
def test_a_yes_trains_on_the_compiled_network_alone(strategy: str, tmp_path: Path):
    settings = {"strategy": strategy, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    settings |= {"save_strategy": "epoch"}
    plain, _ = trained("vit", tmp_path / "plain", **settings)
    compiler = Counting()
    auto, trainer = trained("vit", tmp_path / "auto", compiler, **settings)
    assert compiler.runs == 1 + compiling.TIMED_STEPS + 2 * trainer.state.global_step
    assert trainer.args.torch_compile
    for name, tensor in plain.items():
        torch.testing.assert_close(auto[name], tensor, rtol=1e-4, atol=1e-5)
    saved = load_file(tmp_path / "auto" / "checkpoint-4" / "model.safetensors")
    assert saved.keys() == load_file(tmp_path / "plain" / "checkpoint-4" / "model.safetensors").keys()
    assert not [name for name in saved if "orig_mod" in name]


@pytest.mark.usefixtures("always")
def test_a_network_that_cannot_be_compiled_trains_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture):
    plain, _ = trained("vit", tmp_path / "plain")
    auto, trainer = trained("vit", tmp_path / "auto", broken)
    assert not trainer.compiling.decision.compiled
    assert "it could not be compiled" in capsys.readouterr().out
    assert_same(plain, auto)


@pytest.mark.usefixtures("always")
def test_memory_that_runs_out_in_a_trial_is_told_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def exhausted(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(CompileTrial, "_step_seconds", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        trained("vit", tmp_path, "inductor")


@pytest.mark.usefixtures("always")
def test_the_cache_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture):
    trainer = cached_trainer(
        tiny_model("vit"), tmp_path, "vit", tmp_path / "cache", strategy="feature-extraction", num_train_epochs=3
    )
    compiler = Counting()
    trainer.compiling = CompileTrial(trainer, compiler)
    trainer.add_callback(trainer.compiling)
    trainer.train()
    assert trainer.prefix.facts[0]["cached"]
    assert compiler.runs == 0
    assert "not compiled: what the frozen layers compute is kept" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("family", ["vit", "resnet"])
@pytest.mark.usefixtures("always")
def test_inductor_learns_the_same(family: str, tmp_path: Path):
    # Inductor draws the masks of dropout in a way of its own.
    plain, _ = trained(family, tmp_path / "plain", optim="sgd", dropout=0.0)
    auto, trainer = trained(family, tmp_path / "auto", "inductor", optim="sgd", dropout=0.0)
    assert trainer.compiled is not None
    for name, tensor in plain.items():
        torch.testing.assert_close(auto[name], tensor, rtol=1e-4, atol=1e-5)


# Continued runs


@pytest.mark.parametrize("first", [True, False])
def test_a_continued_run_does_as_it_did(first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiling, "EXPECTED_COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(compiling, "judge", lambda *numbers: compiling.Compilation(first, "the first time", *numbers))
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole, _ = trained("vit", tmp_path / "whole", "eager", **settings)
    _, begun = trained("vit", tmp_path / "begun", "eager", **settings)
    decision = begun.compiling.decision
    assert decision.compiled is first
    shutil.rmtree(tmp_path / "begun" / "checkpoint-4")
    assert find_checkpoint(tmp_path / "begun").folder == tmp_path / "begun" / "checkpoint-2"

    # Now measurements would say the opposite, and are not made.
    monkeypatch.setattr(compiling, "judge", lambda *numbers: compiling.Compilation(not first, "now", *numbers))
    compiler = Counting()
    ended, continued = trained("vit", tmp_path / "begun", compiler, resume_from_checkpoint="last", **settings)
    assert continued.compiling.decision == decision
    assert compiler.runs == (2 if first else 0)
    assert_same(whole, ended)


# Several processes


@pytest.mark.slow
def test_all_processes_do_as_the_main_one_measured(tmp_path: Path):
    done = run_on_cpus(launched("tests.training.compiled_run", str(tmp_path), "2"))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"decision-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    assert first == second
    assert first["runs compiled"]
    assert (first["eager_step_seconds"], first["compiled_step_seconds"]) == (1000.0, 10.0)
    assert load_file(tmp_path / "weights.safetensors").keys() == tiny_model("resnet").state_dict().keys()


# The command


@pytest.mark.parametrize("word", ["maybe", "2", ""])
def test_another_word_is_a_mistake(word: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    tiny_project(tmp_path)
    words = ["train", "--model", str(tmp_path / "checkpoint"), "--dataset", str(tmp_path / "pictures"), "--use_cpu"]
    assert main([*words, "--output_dir", str(tmp_path / "run"), "--torch_compile", word]) == 2
    assert "none of auto, true and false" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_says_what_it_decided(
    compiled: bool, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    if compiled:
        monkeypatch.setattr(compiling, "EXPECTED_COMPILE_SECONDS", 0.0)
        monkeypatch.setattr(compiling, "judge", lambda *numbers: compiling.Compilation(True, "always", *numbers, 7))
    torch.compiler.reset()
    torch.manual_seed(0)
    tiny_project(tmp_path)
    words = ["train", "--model", str(tmp_path / "checkpoint"), "--dataset", str(tmp_path / "pictures"), "--use_cpu"]
    words += ["--output_dir", str(tmp_path / "run"), "--strategy", "full", "--num_train_epochs", "2"]
    words += ["--check_usage", "false", "--disable_tqdm", "true", "--augmentation", "none"]
    assert main([*words, "--torch_compile", "auto", "--torch_compile_backend", "eager"]) == 0
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    said = capsys.readouterr().out
    assert ", compiled if that pays" in said
    assert report["config"]["training"]["torch_compile"] == "auto"
    assert report["training_arguments"]["torch_compile"] is compiled
    facts = report["training"]["compilation"]
    assert facts["compiled"] is compiled
    assert facts["planned_steps"] == report["training"]["steps"]
    assert facts["eager_step_seconds"] > 0
    assert (facts["compile_seconds"] is not None) is compiled
    assert facts["break_even_steps"] == (7 if compiled else None)
    assert f"{'compiled' if compiled else 'not compiled'}: {facts['reason']}\n" in said
    (precision,) = [row["value"] for row in report["decisions"] if row["name"] == "precision"]
    assert precision.endswith(", compiled") is compiled
    assert "pays" not in precision
    assert not [name for name in load_file(tmp_path / "run" / "model" / "model.safetensors") if "orig_mod" in name]
