"""Sharded parameters (FSDP2): strategies whose groups stay open or frozen train what one process does."""

from pathlib import Path

from safetensors.torch import load_file

from tests.processes import launched, run_on_cpus
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_model, tiny_trainer

STRATEGIES = ("full", "feature-extraction", "partial")
SHARDING = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "NO_WRAP")


def test_shards_train_what_one_process_does(tmp_path: Path):
    out = tmp_path / "two.safetensors"
    result = run_on_cpus(launched("tests.training.sharded_run", str(out), "vit", *STRATEGIES, way=SHARDING))
    assert result.returncode == 0, result.stderr[-3000:]
    two = load_file(out)
    for strategy in STRATEGIES:
        model = tiny_model("vit")
        tiny_trainer(model, tmp_path / strategy, split_size=16, strategy=strategy).train()
        shards = {name: two[f"{strategy}/{name}"] for name in model.state_dict()}
        assert_same(dict(model.state_dict()), shards)
