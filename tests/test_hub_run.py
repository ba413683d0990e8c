"""The same command with Hub ids, against a Hub over real HTTP: what is read, pinned and refused."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from hf_transfer.cli import main
from hf_transfer.publishing.card_lint import lint_card
from tests.hub_server import HubServer
from tests.models.timm_architectures import build_tiny_timm_checkpoint
from tests.tiny_project import tiny_pictures, tiny_project

OPTIONS = ["--use_cpu", "--max_steps", "2", "--disable_tqdm", "true", "--check_usage", "false"]


@pytest.mark.parametrize("kind", ["transformers", "timm"])
def test_checkpoint_and_data_by_id(kind: str, hub: HubServer, repo_id: str, tmp_path: Path):
    torch.manual_seed(0)
    if kind == "transformers":
        checkpoint, pictures = tiny_project(tmp_path)
    else:
        checkpoint = build_tiny_timm_checkpoint(tmp_path / "checkpoint", "test_convnext")
        pictures = tiny_pictures(tmp_path / "pictures")
    model = hub.add_model(repo_id, checkpoint)
    hub.add_dataset(f"{repo_id}-data", pictures)
    words = ["train", "--model", repo_id, "--dataset", f"{repo_id}-data", "--output_dir", str(tmp_path / "run")]
    assert main([*words, *OPTIONS]) == 0
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["checkpoint"]["source"] == repo_id
    assert len(report["checkpoint"]["revision"]) == 40
    assert len(report["data"]["revision"]) == 40
    assert report["checkpoint"]["revision"] != report["data"]["revision"]
    assert report["data"]["label_names"] == ["dark", "grey", "light"]
    assert model.repo_id == repo_id
    base = {"id": repo_id, "commit": report["checkpoint"]["revision"]}
    assert base.items() <= report["lineage"]["base_model"].items()
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert (card.data.base_model, card.data.datasets) == (repo_id, [f"{repo_id}-data"])
    assert lint_card(card.content, tmp_path / "run", report) == []
    card.validate()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    stated = {(result.dataset_split, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert stated == {(split, name): value for split, values in metrics.items() for name, value in values.items()}


def test_a_token_shows_up_nowhere(
    hub: HubServer, repo_id: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_marked0token")
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    words = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--output_dir", str(tmp_path / "run")]
    assert main([*words, *OPTIONS, "--hub_token", "hf_marked1token"]) == 0
    assert main(["train", "--model", f"{repo_id}-missing", "--dataset", str(pictures), *OPTIONS, "--debug"]) == 2
    captured = capsys.readouterr()
    written = captured.out + captured.err
    for name in ("run.json", "README.md", "manifest.jsonl"):
        written += (tmp_path / "run" / name).read_text(encoding="utf-8")
    assert "hf_marked" not in written
