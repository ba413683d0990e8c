"""`hf-transfer inspect`: groups from a configuration alone."""

import json
from pathlib import Path

import pytest
from transformers import ConvNextConfig, ViTConfig

from hf_transfer.cli import main
from tests.hub_server import HubServer


@pytest.fixture
def bare_vit(tmp_path: Path) -> Path:
    """A folder that holds a configuration and nothing else."""
    folder = tmp_path / "vit"
    config = ViTConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, image_size=32)
    config.architectures = ["ViTForImageClassification"]
    config.save_pretrained(folder)
    return folder


def groups(capsys, *words: str) -> list[dict]:
    assert main(["inspect", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["groups"]


def test_a_configuration_is_enough(bare_vit: Path, capsys):
    rows = groups(capsys, "--model", str(bare_vit))
    assert [row["name"] for row in rows] == ["stem", "layers.0", "layers.1", "layers.2", "head"]
    assert rows[-1]["parameters"] == 2 * 16 + 2
    assert "vit.embeddings.cls_token" in rows[0]["parameter_names"]
    assert "vit.layers.1" in rows[2]["module_names"]


def test_the_table_shows_every_group_and_its_size(bare_vit: Path, capsys):
    assert main(["inspect", "--model", str(bare_vit)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "5 layer groups" in lines[0]
    assert [line.split()[1] for line in lines[2:]] == ["stem", "layers.0", "layers.1", "layers.2", "head"]
    assert lines[-1].split()[-2:] == ["measured", "classifier"]


def test_rates_of_a_strategy(bare_vit: Path, capsys):
    words = ["--model", str(bare_vit), "--layer_decay", "0.5", "--learning_rate", "1e-3", "--lr_groups", "layers.0=7"]
    assert [row["rates"] for row in groups(capsys, *words)] == [
        [pytest.approx(1.25e-4)],
        [7.0],
        [pytest.approx(5e-4)],
        [pytest.approx(1e-3)],
        [pytest.approx(1e-2)],
    ]


def test_who_learns_first(bare_vit: Path, capsys):
    first = {
        strategy: [row["name"] for row in groups(capsys, "--model", str(bare_vit), *words) if row["learns_first"]]
        for strategy, words in {
            "partial": ["--strategy", "partial", "--train_last", "2"],
            "progressive": ["--strategy", "progressive"],
        }.items()
    }
    assert first == {"partial": ["layers.1", "layers.2", "head"], "progressive": ["head"]}


def test_granularity(tmp_path: Path, capsys):
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[2, 2], num_stages=2, image_size=32)
    config.architectures = ["ConvNextForImageClassification"]
    config.save_pretrained(tmp_path)
    names = {
        granularity: [row["name"] for row in groups(capsys, "--model", str(tmp_path), "--granularity", granularity)]
        for granularity in ("auto", "stage", "block")
    }
    assert names["auto"] == names["stage"] == ["stem", "stages.0", "stages.1", "head"]
    assert names["block"][1:3] == ["stages.0.layers.0", "stages.0.layers.1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "partial", "--train_last", "9"], "the backbone has 4 groups"),
        (["--layer_decay", "2"], "--layer_decay 2"),
        (["--lr_groups", "layer.0=1"], "layers.0=1"),
        (["--granularty", "block"], "--granularity"),
        (["--strategy", "auto"], "invalid choice"),
    ],
)
def test_mistakes_get_one_message(bare_vit: Path, capsys, words: list[str], message: str):
    assert main(["inspect", "--model", str(bare_vit), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_folder_that_is_no_checkpoint(tmp_path: Path, capsys):
    assert main(["inspect", "--model", str(tmp_path)]) == 2
    assert "no config.json" in capsys.readouterr().err


def test_the_quickstart_has_its_stages(capsys):
    names = [row["name"] for row in groups(capsys, "--model", "quickstart")]
    assert names == ["stem", "stages.0", "stages.1", "stages.2", "head"]


def test_by_hub_id_no_weights_are_fetched(bare_vit: Path, hub: HubServer, repo_id: str, capsys):
    # What cannot be read as weights shows that nobody tries to.
    (bare_vit / "model.safetensors").write_bytes(b"no weights")
    hub.add_model(repo_id, bare_vit)
    names = [row["name"] for row in groups(capsys, "--model", repo_id)]
    assert names == ["stem", "layers.0", "layers.1", "layers.2", "head"]
    fetched = [path for _, path, _ in hub.requests]
    assert any(path.endswith("config.json") for path in fetched)
    assert not any(path.endswith(".safetensors") for path in fetched)


def test_a_hub_id_that_does_not_exist(hub: HubServer, repo_id: str, capsys):
    assert main(["inspect", "--model", repo_id]) == 2
    captured = capsys.readouterr()
    assert repo_id in captured.err
    assert "Traceback" not in captured.err
