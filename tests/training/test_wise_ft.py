"""WiSE-FT: between the ends, exactly at the ends, and as validation says."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.cli import main
from hf_transfer.models.head import find_head
from hf_transfer.training.wise_ft import backbone_state, choose_alpha, interpolate
from tests.models.families import build_tiny_model
from tests.tiny_project import train_words


def two_ends() -> tuple[torch.nn.Module, dict, dict, tuple[str, ...]]:
    torch.manual_seed(0)
    model = build_tiny_model("resnet")
    head = find_head(model)
    start = backbone_state(model, head)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    return model, start, backbone_state(model, head), head


def test_the_ends_are_met_bit_for_bit():
    model, start, end, _ = two_ends()
    interpolate(model, start, end, 0.0)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in start.items())
    interpolate(model, start, end, 1.0)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in end.items())


def test_statistics_are_mixed_and_the_head_is_not():
    model, start, end, head = two_ends()
    before = {name: model.state_dict()[name].clone() for name in head}
    assert any("running_mean" in name for name in end)
    interpolate(model, start, end, 0.25)
    for name, value in end.items():
        torch.testing.assert_close(model.state_dict()[name], 0.75 * start[name] + 0.25 * value)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("scores", "expected"),
    [({0.0: 1, 0.5: 3, 1.0: 2}, 0.5), ({0.0: 3, 0.5: 3, 1.0: 1}, 0.5), ({0.0: 2, 0.5: 2, 1.0: 2}, 1.0)],
)
def test_the_best_on_validation_is_kept_and_of_equals_the_largest(scores: dict[float, float], expected: float):
    model, start, end, head = two_ends()
    name = next(iter(end))
    tried = []

    def score() -> float:
        alpha = float((model.state_dict()[name] - start[name]).mean() / (end[name] - start[name]).mean())
        tried.append(round(alpha, 3))
        return scores[tried[-1]]

    chosen = choose_alpha(model, start, score, head, sorted(scores))
    assert chosen.alpha == expected
    assert tried == sorted(scores)
    for key, value in end.items():
        torch.testing.assert_close(model.state_dict()[key], torch.lerp(start[key], value, expected))


def test_a_run_saves_the_mixture_and_says_so(tmp_path: Path, capsys):
    words = train_words(tmp_path)
    words += ["--strategy", "full", "--learning_rate", "3e-3", "--num_train_epochs", "4"]
    assert main([*words, "--output_dir", str(tmp_path / "mixed"), "--wise_ft"]) == 0
    assert main([*words, "--output_dir", str(tmp_path / "plain")]) == 0
    assert "WiSE-FT:" in capsys.readouterr().out
    report = json.loads((tmp_path / "mixed" / "run.json").read_text(encoding="utf-8"))
    alpha = report["training"]["wise_ft_alpha"]
    assert 0 <= alpha <= 1
    before = load_file(tmp_path / "checkpoint" / "model.safetensors")
    trained = load_file(tmp_path / "plain" / "model" / "model.safetensors")
    mixed = load_file(tmp_path / "mixed" / "model" / "model.safetensors")
    for name, value in trained.items():
        expected = value if name.startswith("classifier") else torch.lerp(before[name], value, alpha)
        torch.testing.assert_close(mixed[name], expected)
