"""Flags and recipes: one set of rules, the command line wins, and every mistake has its message."""

import dataclasses
from pathlib import Path

import pytest
from transformers import TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError
from hf_transfer.parsing import help_text, parse_command_line

BASE = ["--model", "m", "--dataset", "d"]


def recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text("model: m\ndataset: d\n" + text, encoding="utf-8")
    return str(path)


def test_only_what_was_given_is_in_training():
    config = parse_command_line([*BASE, "--learning_rate", "1e-5"])
    assert config.training == {"learning_rate": 1e-5}
    assert (config.model, config.dataset, config.strategy) == ("m", "d", "feature-extraction")


@pytest.mark.parametrize("form", [["{}"], ["--config", "{}"], ["--config={}"]])
def test_recipe_sets_defaults_and_the_command_line_wins(form: list[str], tmp_path: Path):
    path = recipe(tmp_path, "strategy: full\nnum_train_epochs: 7\nseed: 3\n")
    config = parse_command_line([word.format(path) for word in form] + ["--seed", "4"])
    assert (config.strategy, config.training) == ("full", {"num_train_epochs": 7.0, "seed": 4})
    assert config.recipe == path


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("learning_rate: 1e-5", "learning_rate", 1e-5),
        ("learning_rate: 1.0e-5", "learning_rate", 1e-5),
        ("weight_decay: 0", "weight_decay", 0.0),
        ("eval_strategy: no", "eval_strategy", "no"),
        ("report_to: none", "report_to", "none"),
        ("bf16: yes", "bf16", True),
        ("bf16: on", "bf16", True),
        ("bf16: off", "bf16", False),
        ("max_steps: -1", "max_steps", -1),
        ("run_name: 2026-11-23", "run_name", "2026-11-23"),
        ("run_name: '007'", "run_name", "007"),
    ],
)
def test_values_survive_yaml(line: str, name: str, value: object, tmp_path: Path):
    assert parse_command_line([recipe(tmp_path, line)]).training[name] == value


def test_words_that_yaml_takes_for_switches_stay_words(tmp_path: Path):
    assert parse_command_line([recipe(tmp_path, "channels_last: off")]).channels_last == "off"
    assert parse_command_line([recipe(tmp_path, "channels_last: on")]).channels_last == "on"


def test_dictionaries_and_lists_survive_yaml(tmp_path: Path):
    config = parse_command_line(
        [recipe(tmp_path, "lr_scheduler_kwargs:\n  num_cycles: 0.5\n  min_lr: 1e-6\nmetrics: [f1, precision]\n")]
    )
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **config.training)
    assert args.lr_scheduler_kwargs == {"num_cycles": 0.5, "min_lr": 1e-6}
    assert config.metrics == ["f1", "precision"]


def test_null_leaves_the_default(tmp_path: Path):
    assert parse_command_line([recipe(tmp_path, "max_train_samples: null\n")]).max_train_samples is None


def test_every_field_of_training_arguments_is_a_flag():
    page = help_text(everything=True)
    for field in dataclasses.fields(TrainingArguments):
        if field.init:
            assert f"--{field.name}" in page, field.name


def test_every_field_of_ours_is_in_the_short_help():
    page = help_text(everything=False)
    for field in dataclasses.fields(FinetuneConfig):
        if field.metadata.get("parsed", True):
            assert f"--{field.name}" in page, field.name


def test_debug_alone_is_ours_and_with_a_value_trainers():
    assert parse_command_line([*BASE, "--debug"]).debug
    config = parse_command_line([*BASE, "--debug", "underflow_overflow"])
    assert config.training["debug"] == "underflow_overflow"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*BASE, "--lerning_rate", "3"], "--learning_rate"),
        ([*BASE, "--strategy", "partal"], "feature-extraction"),
        ([*BASE, "--num_train_epochs", "abc"], "invalid float value: 'abc'"),
        ([*BASE, "--learn", "1"], "unknown option"),
        (["--dataset", "d"], "--model is missing"),
        (["--model", "m"], "--dataset is missing"),
        (["nowhere.yaml"], "cannot be read"),
    ],
)
def test_mistakes_on_the_command_line(words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        parse_command_line(words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 3", "line 3: unknown option 'lerning_rate'"),
        ("seed: 1\nseed: 2", "'seed' is set twice"),
        ("num_train_epochs: many", "invalid float value: 'many'"),
        ("strategy: partal", "feature-extraction"),
        ("a: [", "no valid YAML"),
    ],
)
def test_mistakes_in_a_recipe_name_the_file(text: str, message: str, tmp_path: Path):
    path = recipe(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        parse_command_line([path])
    assert path in str(error.value)


def test_the_nearest_key_is_named(tmp_path: Path):
    with pytest.raises(UserError) as error:
        parse_command_line([recipe(tmp_path, "lerning_rate: 3")])
    assert "learning_rate" in (error.value.hint or "")


def test_two_recipes_are_one_too_many(tmp_path: Path):
    path = recipe(tmp_path, "seed: 1")
    with pytest.raises(UserError, match="Two recipes"):
        parse_command_line([path, "--config", path])


def test_a_recipe_without_options_is_refused(tmp_path: Path):
    path = tmp_path / "list.yaml"
    path.write_text("- a\n- b\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no options"):
        parse_command_line([str(path)])


@pytest.mark.parametrize("words", [["--hub_token", "hf_secret"], ["--hub_token=hf_secret"]])
def test_a_token_is_not_kept_in_the_command(words: list[str]):
    config = parse_command_line([*BASE, *words])
    assert not any("hf_secret" in word for word in config.command)
    assert config.training["hub_token"] == "hf_secret"
